import { FieldloopError, type Affine, type Head } from "@fieldloop/protocol";
import type { ElementType, Tensor } from "../backend.js";
import { asFloat32 } from "../package/tensor-bytes.js";

export type Tensors = Readonly<Record<string, Tensor>>;

const INTEGERS: ReadonlySet<ElementType> = new Set([
  "int8",
  "uint8",
  "int16",
  "uint16",
  "int32",
  "uint32",
  "int64",
  "uint64",
]);

/**
 * The elements as 32-bit floats; integers become `scale · (integer − zeroPoint)` where a quantization is declared. A view of the
 * tensor's memory where nothing is to be converted.
 * @throws FieldloopError `model_output_invalid` for text
 */
export function realValues(tensor: Tensor, quantization?: Affine): Float32Array {
  const values = asFloat32(tensor);
  if (quantization === undefined || !INTEGERS.has(tensor.type)) return values;
  const { scale, zeroPoint } = quantization;
  for (let at = 0; at < values.length; at++) values[at] = scale * (values[at]! - zeroPoint);
  return values;
}

/** @throws FieldloopError `model_output_invalid` where the run has no such tensor */
export function tensorOf(head: Head, tensors: Tensors, name: string): Tensor {
  const tensor = tensors[name];
  if (tensor === undefined) throw outputInvalid(head, `the run has no tensor "${name}"`);
  return tensor;
}

export function outputInvalid(head: Head, what: string): FieldloopError {
  return new FieldloopError("model_output_invalid", `Read head "${head.name}": ${what}`);
}

/** `"boxes" [1, 84, 8400]` */
export function named(name: string, tensor: Tensor): string {
  return `"${name}" [${tensor.dims.join(", ")}]`;
}

export function sigmoidOf(logit: number): number {
  return 1 / (1 + Math.exp(-logit));
}

/** The logit of a probability; infinite at 0 and 1. */
export function logitOf(p: number): number {
  return Math.log(p / (1 - p));
}

/** How far beyond 0..1 rounding (to 8 bits, to half floats) may take a probability; logits go further at once. */
const PROBABILITY_SLACK = 0.02;

/**
 * Softmax and sigmoid taken for granted where the graph has none would give full confidence to anything.
 * @throws FieldloopError `model_output_invalid` for a value that is no probability
 */
export function requireProbability(head: Head, output: string, value: number): void {
  if (!(value < -PROBABILITY_SLACK || value > 1 + PROBABILITY_SLACK)) return;
  throw outputInvalid(
    head,
    `output "${output}" holds ${Number(value.toPrecision(4))}, wanted probabilities; logits are named as such ("values": "logits", --values logits or a preset for logits)`,
  );
}

/** Clipped to 0..1; NaN becomes 0. */
export function clipUnit(value: number): number {
  if (!(value > 0)) return 0;
  return value < 1 ? value : 1;
}
