import { FieldloopError, type ManifestInput, type SignalName } from "@fieldloop/protocol";
import type { TensorInfo } from "../backend.js";

/** Inputs and outputs of an ONNX file. */
export interface ModelSignature {
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
}

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
  readonly scoreThreshold?: number;
  readonly iouThreshold?: number;
  /** Of the reconstruction error. */
  readonly threshold?: number;
  readonly sampleRateHz?: number;
  readonly hop?: number;
  readonly normalization?: "none" | "zscore" | "fixed";
  /** Name of an output that is an embedding. */
  readonly embeddingOutput?: string;
}

/** The part of a manifest that a preset decides. */
export type PresetResult = Pick<ManifestInput, "task" | "inputs" | "heads"> & {
  readonly signals: SignalName[];
};

export interface Preset {
  readonly title: string;
  /** @throws FieldloopError `package_incompatible` where the file is of another kind, `invalid_argument` where an option is missing */
  readonly build: (signature: ModelSignature, options: PresetOptions) => PresetResult;
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
