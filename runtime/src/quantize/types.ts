import type { Backend, Tensor } from "../backend.js";
import type { AffineParameters, QuantizedType } from "./numeric.js";
import type { CalibrationMethod } from "./observer.js";

/** Inputs of one run, by input name. */
export type Feeds = Readonly<Record<string, Tensor>>;

/**
 * Lets the backend optimize a model and gives back what it saved: `basic` folds constants and BatchNormalization,
 * `extended` also fuses to the kernels that will run. Node's is `foldModel` of `@fieldloop/runtime/node`.
 */
export type FoldModel = (
  backend: Backend,
  bytes: Uint8Array,
  level: "basic" | "extended",
  /** Session configuration, see `SessionOptions.config`. */
  config?: Readonly<Record<string, string>>,
) => Promise<Uint8Array>;

/** How far a long piece of work has come. */
export interface QuantizeProgress {
  readonly stage: "calibrate" | "compare" | "search" | "measure";
  /** Batches, models or runs so far. */
  readonly done: number;
  readonly detail?: string;
}

/** Scales of a quantized model, by tensor name in the folded float model. */
export interface QuantizationScales {
  readonly activations: Readonly<Record<string, AffineParameters>>;
  /** One scale per output channel, or a single one. */
  readonly weights: Readonly<Record<string, readonly number[]>>;
}

/** What a version that devices already have was quantized to (`readQuantizedBase`). */
export interface QuantizedBase {
  readonly scales: QuantizationScales;
  /** int8 levels of each weight by its name in the float model. */
  readonly levels: ReadonlyMap<string, Int8Array>;
  /** What each bias was rounded to. */
  readonly biases: ReadonlyMap<string, Float32Array>;
  /** The float model that it was made from: layers that are the same in both are taken over as they are. */
  readonly float?: Uint8Array;
}

export interface QuantizeOptions {
  readonly backend: Backend;
  readonly fold: FoldModel;
  /** Representative inputs, a hundred or more, pre-processed as on the device. Read once, one batch at a time. */
  readonly calibration: AsyncIterable<Feeds> | Iterable<Feeds>;
  /** uint8 for CPUs (fast on x86 with VNNI and on Arm), int8 for TensorRT. */
  readonly activation: QuantizedType;
  /** int8, or uint8 for a U8U8 model; both symmetric. */
  readonly weight: QuantizedType;
  readonly perChannel: boolean;
  /** 7-bit weights, for x86 without VNNI. */
  readonly reduceRange: boolean;
  readonly method: CalibrationMethod;
  /** Names of nodes, or of tensors they write, that stay float. */
  readonly keepFloat?: readonly string[];
  /** Zero point in the middle; default true for int8 (TensorRT demands it) and false for uint8. */
  readonly symmetricActivation?: boolean;
  /** The version that devices have: its scales are kept where they still fit, and levels chosen near its own. */
  readonly base?: QuantizedBase;
  /** With a base: what a bit of the delta is worth, see `LevelsRequest.changeCost`. Default 0. */
  readonly changeCost?: number;
  /**
   * Narrowest range of a tensor (ONNX Runtime's `MinimumRealRange`): scales of tensors and channels that are almost always
   * zero stay away from tiny numbers. Default 0.
   */
  readonly minimumRealRange?: number;
  readonly onProgress?: (progress: QuantizeProgress) => void;
  /** Threads for calibration runs; default 1. */
  readonly threadCount?: number;
  readonly signal?: AbortSignal;
}

/** How one tensor of the quantized model differs from the float model's. */
export interface Fidelity {
  /** 1 means the same direction. */
  readonly cosine: number;
  /** Signal to quantization noise ratio, decibels. */
  readonly sqnrDb: number;
}

export interface LayerReport extends Fidelity {
  readonly node: string;
  readonly operator: string;
  /** The activation that was compared: what the node writes, behind its Relu or Clip. */
  readonly tensor: string;
}

/** An output as the fused model gives it. */
export interface OutputReport extends Fidelity {
  readonly name: string;
  /** Share of rows with the same largest element, for outputs [rows, 2 or more]. */
  readonly topOneAgreement?: number;
}

/** Which kernels the backend really runs, counted in the optimized graph. */
export interface KernelReport {
  /** Nodes computing on 8-bit integers. */
  readonly integer: number;
  /** Convolutions and matrix products that stayed float. */
  readonly float: number;
  readonly operators: Readonly<Record<string, number>>;
  /** Names of those that stayed float, as the backend calls them. */
  readonly floatNodes?: readonly string[];
}

export interface QuantizationReport {
  readonly calibrationBatches: number;
  /** Batches of calibration on which layers and outputs were compared. */
  readonly comparedBatches: number;
  readonly bytesBefore: number;
  readonly bytesAfter: number;
  readonly nodesQuantized: number;
  readonly nodesFloat: number;
  /** Nodes that could compute on 8-bit levels, whether or not they were kept in float. */
  readonly nodesQuantizable?: number;
  /** In execution order. */
  readonly layers: readonly LayerReport[];
  readonly outputs: readonly OutputReport[];
  readonly kernels: KernelReport;
  readonly scales: QuantizationScales;
}

export interface QuantizeResult {
  readonly bytes: Uint8Array;
  readonly report: QuantizationReport;
}
