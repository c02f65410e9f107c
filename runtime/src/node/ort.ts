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

/** The only file on Node that knows ONNX Runtime. `run()` blocks its thread: call it from a worker where that matters. */
export const ortNode: Backend = {
  name: "onnxruntime-node",
  version: ort.env.versions.node ?? ort.env.versions.common,
  executionProviders: () => ort.listSupportedBackends().map((backend) => backend.name),
  openSession,
};

async function openSession(model: string | Uint8Array, options: SessionOptions): Promise<Session> {
  const native = await createNative(model, toNativeOptions(options));
  return new OrtSession(native);
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
    // 4 = fatal: what goes wrong reaches the caller as an error; native log lines never reach the terminal.
    logSeverityLevel: 4,
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

async function createNative(
  model: string | Uint8Array,
  options: ort.InferenceSession.SessionOptions,
): Promise<ort.InferenceSession> {
  try {
    return typeof model === "string"
      ? await ort.InferenceSession.create(model, options)
      : await ort.InferenceSession.create(model, options);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FieldloopError("model_load_failed", `Open model: ONNX Runtime refused it: ${reason}`, {
      cause,
    });
  }
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
  const native = await createNative(model, toNativeOptions(options));
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
  readonly #native: ort.InferenceSession;

  constructor(native: ort.InferenceSession) {
    this.#native = native;
    this.inputs = native.inputMetadata.map(toTensorInfo);
    this.outputs = native.outputMetadata.map(toTensorInfo);
    this.omitted = native.outputMetadata.filter((meta) => !meta.isTensor).map((meta) => meta.name);
  }

  async run(
    feeds: Readonly<Record<string, Tensor>>,
    fetches?: readonly string[],
  ): Promise<Record<string, Tensor>> {
    const nativeFeeds: Record<string, ort.Tensor> = {};
    for (const [name, tensor] of Object.entries(feeds)) nativeFeeds[name] = toNativeTensor(tensor);
    let results: ort.InferenceSession.OnnxValueMapType;
    try {
      results = fetches
        ? await this.#native.run(nativeFeeds, [...fetches])
        : await this.#native.run(nativeFeeds);
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new FieldloopError("model_run_failed", `Run model: ${reason}`, { cause });
    }
    const outputs: Record<string, Tensor> = {};
    for (const [name, value] of Object.entries(results))
      outputs[name] = fromNativeTensor(value as ort.Tensor);
    return outputs;
  }

  async release(): Promise<void> {
    await this.#native.release();
  }
}

function toTensorInfo(meta: ort.InferenceSession.ValueMetadata): TensorInfo {
  if (!meta.isTensor) return { name: meta.name, type: "string", dims: [] };
  return { name: meta.name, type: meta.type as ElementType, dims: meta.shape };
}

function toNativeTensor(tensor: Tensor): ort.Tensor {
  return new ort.Tensor(tensor.type as ort.Tensor.Type, tensor.data as ort.Tensor.DataType, tensor.dims);
}

function fromNativeTensor(value: ort.Tensor): Tensor {
  return { type: value.type as ElementType, dims: value.dims, data: value.data as TensorData };
}
