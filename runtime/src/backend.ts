/**
 * The border between Fieldloop and whatever executes an ONNX graph. Everything else in the runtime sees
 * tensors and sessions only; one file per platform implements {@link Backend}.
 */

export type ElementType =
  | "float32"
  | "float64"
  | "float16"
  | "int8"
  | "uint8"
  | "int16"
  | "uint16"
  | "int32"
  | "uint32"
  | "int64"
  | "uint64"
  | "bool"
  | "string";

export type TensorData =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array
  | string[];

/** A dense tensor in row-major order; float16 travels as raw bits in a Uint16Array, bool as a Uint8Array. */
export interface Tensor {
  readonly type: ElementType;
  readonly dims: readonly number[];
  readonly data: TensorData;
}

/** What a session says about one input or output; a symbolic dimension is a string (or -1 when nameless). */
export interface TensorInfo {
  readonly name: string;
  readonly type: ElementType;
  readonly dims: readonly (number | string)[];
}

export interface SessionOptions {
  /** Threads inside one operator. The sum over all sessions of a process must not exceed its cores. */
  readonly threadCount: number;
  readonly executionProvider: string;
  /** Microseconds a worker thread spins after a run before it sleeps: short spins save a core at camera rates. */
  readonly spinDurationUs?: number;
  readonly graphOptimization?: "disabled" | "basic" | "extended" | "all";
  readonly memoryPattern?: boolean;
  /** Save the optimized graph here, to see what was folded or fused. */
  readonly optimizedModelPath?: string;
  /** Further ONNX Runtime session configuration entries, e.g. `{ "session.disable_quant_qdq": "1" }`. */
  readonly config?: Readonly<Record<string, string>>;
  /** Let the library write its own log lines to the terminal. Default false: what goes wrong comes as an error. */
  readonly nativeLog?: boolean;
  /** One answer of a remote backend may take so long. Default 30 000. */
  readonly requestTimeoutMs?: number;
}

export interface Session {
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  /** Outputs of the graph that this binding cannot return (sequences, maps, optionals), left out of `outputs`. */
  readonly omitted: readonly string[];
  /**
   * Share of the graph's nodes that each execution provider runs, 0..1; undefined where the backend cannot tell. Opens the
   * model once more for it, beside this session, and runs it on `feeds` (zeros, open dimensions as 1, by default).
   */
  providerShares?(feeds?: Readonly<Record<string, Tensor>>): Promise<Readonly<Record<string, number>>>;
  /** Runs the graph once; `fetches` limits the outputs that are computed and copied. */
  run(feeds: Readonly<Record<string, Tensor>>, fetches?: readonly string[]): Promise<Record<string, Tensor>>;
  /** Frees native memory. Must be awaited after the last run and before the process or thread ends. */
  release(): Promise<void>;
}

export interface Backend {
  readonly name: string;
  /** Version of the library that executes graphs, for lineage. */
  readonly version: string;
  /** Execution providers that this backend could try here; whether one works shows only when it runs. */
  executionProviders(): readonly string[];
  /** Opens a model by path (preferred: a model loaded from bytes may read files as weights) or from bytes that we built ourselves. */
  openSession(model: string | Uint8Array, options: SessionOptions): Promise<Session>;
}
