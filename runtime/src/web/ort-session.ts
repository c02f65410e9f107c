import type * as Ort from "onnxruntime-web";
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
import { checkFeeds, checkFetches } from "../feeds.js";

/** The library, which comes in several bundles with one interface. */
export type OrtWeb = typeof Ort;

const QUIET = 4;
const WARNINGS = 2;

/** Sessions of one page or thread take turns: the library is one WebAssembly instance and refuses overlapping calls. */
let turns: Promise<unknown> = Promise.resolve();

function inTurn<Value>(work: () => Promise<Value>): Promise<Value> {
  const turn = turns.then(work);
  turns = turn.catch(() => undefined);
  return turn;
}

/** A backend over onnxruntime-web; `providers` are what this bundle and place may try. */
export function webBackend(ort: OrtWeb, providers: readonly string[]): Backend {
  return {
    name: "onnxruntime-web",
    version: ort.env.versions.web ?? ort.env.versions.common,
    executionProviders: () => providers,
    openSession: (model, options) => inTurn(() => open(ort, providers, model, options)),
  };
}

async function open(
  ort: OrtWeb,
  providers: readonly string[],
  model: string | Uint8Array,
  options: SessionOptions,
): Promise<Session> {
  const { executionProvider } = options;
  if (!providers.includes(executionProvider)) {
    throw new FieldloopError(
      "provider_unavailable",
      `Open execution provider "${executionProvider}": this bundle of onnxruntime-web has ${providers.join(", ")}`,
    );
  }
  const native = {
    executionProviders: [executionProvider],
    graphOptimizationLevel: options.graphOptimization ?? "all",
    enableMemPattern: options.memoryPattern ?? true,
    logSeverityLevel: options.nativeLog === true ? WARNINGS : QUIET,
  } as const;
  try {
    const session =
      typeof model === "string"
        ? await ort.InferenceSession.create(model, native)
        : await ort.InferenceSession.create(model, native);
    return new WebSession(ort, session);
  } catch (cause) {
    const reason = reasonOf(cause);
    const missing = /webgpu.*(?:adapter|not supported|unavailable)|no available backend/i.test(reason);
    throw new FieldloopError(
      missing ? "provider_unavailable" : "model_load_failed",
      missing
        ? `Open execution provider "${executionProvider}": ${reason}`
        : `Open model: ONNX Runtime refused it: ${reason}`,
      { cause },
    );
  }
}

class WebSession implements Session {
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  readonly omitted: readonly string[];
  readonly #ort: OrtWeb;
  readonly #native: Ort.InferenceSession;
  #released: Promise<void> | undefined;

  constructor(ort: OrtWeb, native: Ort.InferenceSession) {
    this.#ort = ort;
    this.#native = native;
    this.inputs = native.inputMetadata.flatMap(toTensorInfo);
    this.outputs = native.outputMetadata.flatMap(toTensorInfo);
    this.omitted = native.outputMetadata.filter((meta) => !meta.isTensor).map((meta) => meta.name);
  }

  run(feeds: Readonly<Record<string, Tensor>>, fetches?: readonly string[]): Promise<Record<string, Tensor>> {
    // Before its turn: a release that is asked for meanwhile waits for this run.
    if (this.#released !== undefined) {
      return Promise.reject(new FieldloopError("conflict", "Run model: its session was released"));
    }
    return inTurn(() => this.#run(feeds, fetches));
  }

  async #run(
    feeds: Readonly<Record<string, Tensor>>,
    fetches: readonly string[] | undefined,
  ): Promise<Record<string, Tensor>> {
    checkFeeds(this.inputs, feeds);
    const wanted = checkFetches(this.outputs, fetches);
    const outputs: Record<string, Tensor> = {};
    if (wanted.length === 0) return outputs;
    const nativeFeeds: Record<string, Ort.Tensor> = {};
    for (const { name } of this.inputs) {
      const { type, data, dims } = feeds[name]!;
      nativeFeeds[name] = new this.#ort.Tensor(type as Ort.Tensor.Type, data as Ort.Tensor.DataType, dims);
    }
    try {
      const results = await this.#native.run(nativeFeeds, wanted);
      for (const name of wanted) outputs[name] = await toTensor(results[name] as Ort.Tensor);
    } catch (cause) {
      throw new FieldloopError("model_run_failed", `Run model: ${reasonOf(cause)}`, { cause });
    }
    return outputs;
  }

  release(): Promise<void> {
    this.#released ??= inTurn(() => this.#native.release());
    return this.#released;
  }
}

function toTensorInfo(meta: Ort.InferenceSession.ValueMetadata): TensorInfo[] {
  if (!meta.isTensor) return [];
  // A size without a name is -1 read as 32 bits without a sign there, or the empty text.
  const dims = meta.shape.map((dim) => (dim === "" || dim === 2 ** 32 - 1 ? -1 : dim));
  return [{ name: meta.name, type: meta.type as ElementType, dims }];
}

async function toTensor(value: Ort.Tensor): Promise<Tensor> {
  const type = value.type as ElementType;
  const data = (await value.getData()) as TensorData;
  // Where half floats have an array of their own the library uses it; here their bits travel.
  if (type === "float16" && !(data instanceof Uint16Array)) {
    const { buffer, byteOffset, length } = data as Float32Array;
    return { type, dims: value.dims, data: new Uint16Array(buffer, byteOffset, length) };
  }
  return { type, dims: value.dims, data };
}

function reasonOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
