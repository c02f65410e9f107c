import { FieldloopError, type Affine, type ManifestInput, type SignalName } from "@fieldloop/protocol";
import type { TensorInfo } from "../backend.js";

/** Inputs and outputs of an ONNX file, and what its graph tells of them where it was read. */
export interface ModelSignature {
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  /** What the integers of inputs and outputs stand for. */
  readonly quantization?: Readonly<Record<string, Affine>>;
  /** The operator whose values an output holds. */
  readonly computedBy?: Readonly<Record<string, string>>;
  /** Every operator of the graph. */
  readonly operators?: readonly string[] | Readonly<Record<string, unknown>>;
}

type DraftTable = Extract<ManifestInput["inputs"][number], { kind: "table" }>;
type DraftRegression = Extract<ManifestInput["heads"][number], { kind: "regression" }>;
type DraftDetection = Extract<ManifestInput["heads"][number], { kind: "detection" }>;

/** What the file alone cannot say; a preset has a default for most. */
export interface PresetOptions {
  readonly labels?: readonly string[];
  /** Pixels, where the file leaves the size open. */
  readonly width?: number;
  readonly height?: number;
  readonly colour?: "rgb" | "bgr" | "gray";
  readonly resize?: "stretch" | "letterbox" | "crop";
  readonly range?: "unit" | "byte";
  readonly mean?: readonly number[];
  readonly std?: readonly number[];
  readonly temperature?: number;
  readonly activation?: "softmax" | "sigmoid";
  /** What the output holds, where the graph does not tell. */
  readonly values?: "logits" | "probabilities";
  readonly scoreThreshold?: number;
  readonly iouThreshold?: number;
  readonly suppression?: "class" | "all" | "none";
  readonly detectionsMax?: number;
  /** Boxes in 0..1 of the input instead of its pixels. */
  readonly units?: "pixel" | "unit";
  /** Of detectors that list boxes and classes: the number of the first label, and the order of the corners. */
  readonly firstClass?: number;
  readonly corners?: "xyxy" | "yxyx";
  /** Of a grid detector, in pixels. */
  readonly strides?: readonly number[];
  readonly anchors?: DraftDetection["anchors"];
  /** Names of the points of pose and keypoint models. */
  readonly keypointLabels?: readonly string[];
  /** Which coordinate of a point comes first. */
  readonly order?: "xy" | "yx";
  /** Label of a segmentation that is not a finding. */
  readonly background?: string;
  /** Above it a window is anomalous, or a label of several is set. */
  readonly threshold?: number;
  readonly sampleRateHz?: number;
  /** Samples between two windows. */
  readonly hop?: number;
  /** Values of one sample of a window. */
  readonly channels?: number;
  /** What lies together in the tensor of a window, where its shape does not tell. */
  readonly windowLayout?: "time-channel" | "channel-time";
  readonly normalization?: "none" | "zscore" | "fixed";
  /** Of a table, in the order of the model's input. */
  readonly columns?: DraftTable["columns"];
  /** Of a regression, in the order of the model's output. */
  readonly targets?: DraftRegression["targets"];
  /** What the integers of the input stand for, where the graph does not tell. */
  readonly inputQuantization?: Affine;
  readonly outputQuantization?: Affine;
  /** Name of an output that is an embedding. */
  readonly embeddingOutput?: string;
  /** Inputs that carry state, each with the output that gives its next value; zeros at the start of a stream. */
  readonly states?: Readonly<Record<string, string>>;
  /** Inputs that hold the same number in every run, e.g. a sample rate; it fills the tensor, open sizes are 1. */
  readonly constants?: Readonly<Record<string, number>>;
}

/** The part of a manifest that a preset decides. */
export type PresetResult = Pick<ManifestInput, "task" | "inputs" | "heads"> & {
  readonly signals: SignalName[];
};

export interface Preset {
  readonly title: string;
  /**
   * Whether the file is plainly of this kind, by more than its shapes allow for any model. Presets without it are general: they are
   * suggested only where no other recognizes the file.
   */
  readonly recognizes?: (signature: ModelSignature) => boolean;
  /** @throws FieldloopError `package_incompatible` where the file is of another kind, `invalid_argument` where an option is missing */
  readonly build: (signature: ModelSignature, options: PresetOptions) => PresetResult;
}

export function hasOperator(signature: ModelSignature, opType: string): boolean | undefined {
  const { operators } = signature;
  if (operators === undefined) return undefined;
  return Array.isArray(operators) ? operators.includes(opType) : Object.hasOwn(operators, opType);
}

/** Sizes with the unknown ones as 0. */
export function knownDims(info: TensorInfo): number[] {
  return info.dims.map((size) => (typeof size === "number" && size > 0 ? size : 0));
}

/** Elements of one item: the product of all dims but a batch in front; `undefined` where one of them is open. */
export function itemLength(info: TensorInfo): number | undefined {
  const dims = knownDims(info);
  const rest = dims.length > 1 ? dims.slice(1) : dims;
  if (dims.length > 1 && dims[0]! > 1) return undefined;
  const length = rest.reduce((product, size) => product * size, 1);
  return length > 0 ? length : undefined;
}

/** `float32[1, 3, ?, ?]` */
export function describe(info: TensorInfo): string {
  const dims = knownDims(info).map((size) => (size === 0 ? "?" : String(size)));
  return `"${info.name}" ${info.type}[${dims.join(", ")}]`;
}

export function describeSignature(signature: ModelSignature): string {
  return `${signature.inputs.map(describe).join(", ")} → ${signature.outputs.map(describe).join(", ")}`;
}

export function unsuitable(preset: string, signature: ModelSignature, wanted: string): FieldloopError {
  return new FieldloopError(
    "package_incompatible",
    `Apply preset "${preset}": the file has ${describeSignature(signature)}, wanted ${wanted}`,
  );
}

export function missing(preset: string, what: string): FieldloopError {
  return new FieldloopError("invalid_argument", `Apply preset "${preset}": give ${what}`);
}

export function onlyInput(preset: string, signature: ModelSignature): TensorInfo {
  const input = signature.inputs[0];
  if (input === undefined || signature.inputs.length > 1) throw unsuitable(preset, signature, "one input");
  return input;
}

/** The given labels, the preset's own where their number fits, or numbers as labels. */
export function labelsFor(count: number, options: PresetOptions, usual: readonly string[] = []): string[] {
  if (options.labels === undefined) {
    return usual.length === count ? [...usual] : Array.from({ length: count }, (_, index) => String(index));
  }
  if (options.labels.length === count) return [...options.labels];
  throw new FieldloopError(
    "invalid_argument",
    `Read labels: ${options.labels.length} were given, the model has ${count} outputs`,
  );
}

/** What the integers of a tensor stand for: given, or told by the graph; nothing for floats. */
export function quantizationOf(
  signature: ModelSignature,
  info: TensorInfo,
  given: Affine | undefined,
): { quantization?: Affine } {
  if (info.type.startsWith("float")) return {};
  const quantization = given ?? signature.quantization?.[info.name];
  return quantization === undefined ? {} : { quantization };
}

/** What gives probabilities; the last two end the classifiers of ai.onnx.ml. */
const PROBABILITY_OPERATORS: ReadonlySet<string> = new Set([
  "Softmax",
  "Sigmoid",
  "Normalizer",
  "TreeEnsembleClassifier",
]);

/** Whether an output holds logits or probabilities: given, or by the operator that computes it, or logits. */
export function valuesOf(
  signature: ModelSignature,
  output: TensorInfo,
  options: PresetOptions,
): "logits" | "probabilities" {
  if (options.values !== undefined) return options.values;
  const operator = signature.computedBy?.[output.name];
  return operator !== undefined && PROBABILITY_OPERATORS.has(operator) ? "probabilities" : "logits";
}
