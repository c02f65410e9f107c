import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { FieldloopError } from "@fieldloop/protocol";
import type {
  Backend,
  ElementType,
  Session,
  SessionOptions,
  Tensor,
  TensorData,
  TensorInfo,
} from "../backend.js";
import { checkFeeds, checkFetches, placeholderFeeds } from "../feeds.js";
import { cleanEngineText } from "./engine-text.js";
import { withGpuLock } from "./gpu-lock.js";
import { forbidTelemetry } from "./no-telemetry.js";
import { sharesOfProfile } from "./ort-profile.js";

forbidTelemetry();
// 4 = fatal, the library's own and each session's: what goes wrong reaches the caller as an error, no line the terminal.
ort.env.logLevel = "fatal";
const QUIET = 4;
const WARNINGS = 2;

const PROVIDERS: readonly string[] = ort.listSupportedBackends().map((backend) => backend.name);
/** Providers whose runs of one process must not overlap. */
const ALONE = new Set(["webgpu"]);

/** The only file on Node that knows ONNX Runtime. `run()` blocks its thread: call it from a worker where that matters. */
export const ortNode: Backend = {
  name: "onnxruntime-node",
  version: ort.env.versions.node ?? ort.env.versions.common,
  executionProviders: () => PROVIDERS,
  openSession,
};

async function openSession(model: string | Uint8Array, options: SessionOptions): Promise<Session> {
  requireKnown(options.executionProvider);
  const native = await alone(options, () => createNative(model, options));
  return new OrtSession(native, model, options);
}

/** ONNX Runtime would drop a name that it does not know without a word, and run on the CPU. */
function requireKnown(executionProvider: string): void {
  if (PROVIDERS.includes(executionProvider)) return;
  throw new FieldloopError(
    "provider_unavailable",
    `Open execution provider "${executionProvider}": ONNX Runtime ${ortNode.version} for ${process.platform} ${process.arch} has ${PROVIDERS.join(", ")}`,
  );
}

function alone<Value>(options: SessionOptions, work: () => Promise<Value>): Promise<Value> {
  return ALONE.has(options.executionProvider) ? withGpuLock(work) : work();
}

function toNativeOptions(options: SessionOptions): ort.InferenceSession.SessionOptions {
  const config: Record<string, string> = { ...options.config };
  if (options.spinDurationUs !== undefined) {
    config["session.intra_op.spin_duration_us"] = String(options.spinDurationUs);
  }
  return {
    executionProviders: [options.executionProvider],
    intraOpNumThreads: options.threadCount,
    interOpNumThreads: 1,
    graphOptimizationLevel: options.graphOptimization ?? "all",
    enableMemPattern: options.memoryPattern ?? true,
    logSeverityLevel: options.nativeLog === true ? WARNINGS : QUIET,
    ...(options.optimizedModelPath === undefined
      ? {}
      : { optimizedModelFilePath: options.optimizedModelPath }),
    extra: nestConfig(config),
  };
}

/** onnxruntime-common spells session configuration as nested objects: `a.b` becomes `{ a: { b } }`. */
function nestConfig(config: Readonly<Record<string, string>>): Record<string, unknown> {
  const root: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(config)) {
    const parts = key.split(".");
    let at = root;
    for (const part of parts.slice(0, -1)) {
      at[part] ??= {};
      at = at[part] as Record<string, unknown>;
    }
    at[parts[parts.length - 1]!] = value;
  }
  return root;
}

/** What ONNX Runtime says where the provider, not the model, is at fault: its library or its device is missing. */
const PROVIDER_FAULT =
  /AppendExecutionProvider|load (?:shared )?library|ExecutionProvider.*not (?:enabled|available)|WebGPU adapter|WebGpuContext|no available backend/i;

/** ONNX Runtime says that a library is missing, not which, nor where it comes from. */
const LIBRARY_HINTS: Readonly<Record<string, string>> = {
  cuda: "it wants libonnxruntime_providers_cuda.so, CUDA 12 and cuDNN 9",
  tensorrt: "it wants libonnxruntime_providers_tensorrt.so, CUDA 12 and TensorRT 10",
};

function hintOf(executionProvider: string, reason: string): string {
  const hint = LIBRARY_HINTS[executionProvider];
  return hint !== undefined && /load (?:shared )?library/i.test(reason)
    ? ` (${hint}: docs/hardware.md says how to install them)`
    : "";
}

async function createNative(
  model: string | Uint8Array,
  options: SessionOptions,
  more: ort.InferenceSession.SessionOptions = {},
): Promise<ort.InferenceSession> {
  const native = { ...toNativeOptions(options), ...more };
  try {
    return typeof model === "string"
      ? await ort.InferenceSession.create(model, native)
      : await ort.InferenceSession.create(model, native);
  } catch (cause) {
    const reason = reasonOf(cause);
    if (PROVIDER_FAULT.test(reason)) {
      throw new FieldloopError(
        "provider_unavailable",
        `Open execution provider "${options.executionProvider}": ${cleanEngineText(reason)}${hintOf(options.executionProvider, reason)}`,
        { cause },
      );
    }
    throw new FieldloopError("model_load_failed", `Open model: ONNX Runtime refused it: ${reason}`, {
      cause,
    });
  }
}

function reasonOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

/**
 * ONNX Runtime with nothing of ours around it, on tensors made once: what a benchmark holds the rest against.
 * @returns `run` for one run, `release` for after the last
 */
export async function openBareRunner(
  model: string,
  options: SessionOptions,
  feeds: Readonly<Record<string, Tensor>>,
  fetches: readonly string[],
): Promise<{ run: () => Promise<void>; release: () => Promise<void> }> {
  requireKnown(options.executionProvider);
  const native = await createNative(model, options);
  const nativeFeeds: Record<string, ort.Tensor> = {};
  for (const [name, tensor] of Object.entries(feeds)) nativeFeeds[name] = toNativeTensor(tensor);
  return {
    run: async () => {
      await native.run(nativeFeeds, fetches);
    },
    release: () => native.release(),
  };
}

class OrtSession implements Session {
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  readonly omitted: readonly string[];
  readonly providerShares?: NonNullable<Session["providerShares"]>;
  readonly #native: ort.InferenceSession;
  readonly #alone: boolean;
  readonly #allOutputs: readonly string[];
  /** Feeds of the last run: whoever refills the same tensor pays for its check and its native twin once. */
  #last: Readonly<Record<string, Tensor>> | undefined;
  #nativeFeeds: Record<string, ort.Tensor> = {};
  #running = 0;
  #released: Promise<void> | undefined;
  #idle: (() => void) | undefined;

  constructor(native: ort.InferenceSession, model: string | Uint8Array, options: SessionOptions) {
    this.#native = native;
    this.#alone = ALONE.has(options.executionProvider);
    this.inputs = native.inputMetadata.map(toTensorInfo);
    this.outputs = native.outputMetadata.filter((meta) => meta.isTensor).map(toTensorInfo);
    this.omitted = native.outputMetadata.filter((meta) => !meta.isTensor).map((meta) => meta.name);
    this.#allOutputs = this.outputs.map((info) => info.name);
    if (typeof model === "string") {
      this.providerShares = (feeds) => profileShares(model, options, feeds ?? placeholderFeeds(this.inputs));
    }
  }

  async run(
    feeds: Readonly<Record<string, Tensor>>,
    fetches?: readonly string[],
  ): Promise<Record<string, Tensor>> {
    if (this.#released !== undefined) {
      throw new FieldloopError("conflict", "Run model: its session was released");
    }
    const wanted = fetches === undefined ? this.#allOutputs : checkFetches(this.outputs, fetches);
    const nativeFeeds = this.#toNative(feeds);
    const outputs: Record<string, Tensor> = {};
    // Every output is one that this binding can't return: there is nothing to run for.
    if (wanted.length === 0) return outputs;
    this.#running++;
    try {
      const results = this.#alone
        ? await withGpuLock(() => this.#native.run(nativeFeeds, wanted))
        : await this.#native.run(nativeFeeds, wanted);
      for (const name of wanted) outputs[name] = fromNativeTensor(results[name] as ort.Tensor);
      return outputs;
    } catch (cause) {
      throw new FieldloopError("model_run_failed", `Run model: ${reasonOf(cause)}`, { cause });
    } finally {
      if (--this.#running === 0) this.#idle?.();
    }
  }

  #toNative(feeds: Readonly<Record<string, Tensor>>): Record<string, ort.Tensor> {
    const last = this.#last;
    if (last !== undefined) {
      let same = true;
      for (const name in feeds) if (feeds[name] !== last[name]) same = false;
      for (const { name } of this.inputs) if (feeds[name] !== last[name]) same = false;
      if (same) return this.#nativeFeeds;
    }
    checkFeeds(this.inputs, feeds);
    const nativeFeeds: Record<string, ort.Tensor> = {};
    for (const { name } of this.inputs) nativeFeeds[name] = toNativeTensor(feeds[name]!);
    this.#last = { ...feeds };
    this.#nativeFeeds = nativeFeeds;
    return nativeFeeds;
  }

  release(): Promise<void> {
    this.#released ??= this.#end();
    return this.#released;
  }

  async #end(): Promise<void> {
    if (this.#running > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
    this.#last = undefined;
    this.#nativeFeeds = {};
    await (this.#alone ? withGpuLock(() => this.#native.release()) : this.#native.release());
  }
}

/** One run of a second session that writes a profile into a folder of its own. */
async function profileShares(
  model: string,
  options: SessionOptions,
  feeds: Readonly<Record<string, Tensor>>,
): Promise<Record<string, number>> {
  const folder = await mkdtemp(join(tmpdir(), "fieldloop-profile-"));
  try {
    await alone(options, async () => {
      const native = await createNative(model, options, {
        enableProfiling: true,
        profileFilePrefix: join(folder, "profile"),
      });
      try {
        const nativeFeeds: Record<string, ort.Tensor> = {};
        for (const [name, tensor] of Object.entries(feeds)) nativeFeeds[name] = toNativeTensor(tensor);
        const fetches = native.outputMetadata.filter((meta) => meta.isTensor).map((meta) => meta.name);
        await native.run(nativeFeeds, fetches);
        native.endProfiling();
      } catch (cause) {
        throw new FieldloopError("model_run_failed", `Profile model: ${reasonOf(cause)}`, { cause });
      } finally {
        await native.release();
      }
    });
    const [file] = await readdir(folder);
    if (file === undefined) throw new FieldloopError("internal", "Profile model: no profile was written");
    return sharesOfProfile(await readFile(join(folder, file), "utf8"));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function toTensorInfo(meta: ort.InferenceSession.ValueMetadata): TensorInfo {
  if (!meta.isTensor) return { name: meta.name, type: "string", dims: [] };
  // A size without a name is the empty text there.
  const dims = meta.shape.map((dim) => (dim === "" ? -1 : dim));
  return { name: meta.name, type: meta.type as ElementType, dims };
}

/** @throws FieldloopError `tensor_invalid` for text that the binding would cut: it hands on what ends with the first zero */
function toNativeTensor(tensor: Tensor): ort.Tensor {
  const cut = Array.isArray(tensor.data) ? tensor.data.findIndex((text) => text.includes("\0")) : -1;
  if (cut >= 0) {
    throw new FieldloopError(
      "tensor_invalid",
      `Run model: text ${cut} of an input holds a zero character, with which ONNX Runtime would end it`,
    );
  }
  return new ort.Tensor(tensor.type as ort.Tensor.Type, tensor.data as ort.Tensor.DataType, tensor.dims);
}

function fromNativeTensor(value: ort.Tensor): Tensor {
  const type = value.type as ElementType;
  const data = value.data as TensorData;
  // Newer versions of Node have arrays of half floats, and the binding then uses them; here their bits travel.
  if (type === "float16" && !(data instanceof Uint16Array)) {
    const { buffer, byteOffset, length } = data as Float32Array;
    return { type, dims: value.dims, data: new Uint16Array(buffer, byteOffset, length) };
  }
  return { type, dims: value.dims, data };
}
