import { createHash } from "node:crypto";
import { encodeModel, GraphBuilder, makeNode, valueInfo } from "../index.js";
import { float32Tensor, int32Tensor, int8Tensor, uint8Tensor } from "../onnx/tensor.js";
import { float16Tensor } from "../quantize/convert.js";
import { Random } from "../simulate/random.js";
import { readDelta } from "./apply.js";
import { makeDelta } from "./make.js";

export const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/** In memory. */
export async function apply(base: Uint8Array, delta: Uint8Array): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  await readDelta(
    delta,
    { bytes: base.length, read: (from, into) => into.set(base.subarray(from, from + into.length)) },
    (chunk) => {
      chunks.push(chunk.slice());
    },
  );
  return new Uint8Array(Buffer.concat(chunks));
}

export function make(base: Uint8Array, target: Uint8Array, bytesMax?: number): Uint8Array | undefined {
  return makeDelta(base, target, { sha256, ...(bytesMax === undefined ? {} : { bytesMax }) });
}

export const TENSOR_TYPES = ["int8", "uint8", "int32", "float16", "float32"] as const;
export type TensorType = (typeof TENSOR_TYPES)[number];

/** One tensor of a made-up network; the numbers follow from the seed, `drift` is how far they moved since. */
export interface DrawnTensor {
  readonly name: string;
  readonly type: TensorType;
  readonly dims: readonly number[];
  readonly seed: number;
  readonly drift: number;
}

/** A network that only sums its tensors up: the delta looks at files, not at what they compute. */
export function drawnNetwork(tensors: readonly DrawnTensor[], label = "network"): Uint8Array {
  const builder = new GraphBuilder();
  builder.input("IN", "float32", [1, 4]);
  for (const tensor of tensors) builder.initializer(drawTensor(tensor));
  const [out] = builder.node("Relu", ["IN"], {}, ["OUT"]);
  builder.output(out!, "float32", [1, 4]);
  const model = builder.build({ opset: 17, graphName: label });
  model.graph!.node.push(...tensors.map(({ name }) => makeNode("Identity", [name], [`${name}/read`])));
  model.graph!.output.push(valueInfo("MORE", "float32", [1]));
  return encodeModel(model);
}

function drawTensor({ name, type, dims, seed, drift }: DrawnTensor) {
  const count = dims.reduce((product, size) => product * size, 1);
  const still = new Random(seed, 1);
  const moving = new Random(seed, 2);
  const values = Float64Array.from({ length: count }, () => still.normal() + drift * moving.normal());
  switch (type) {
    case "int8":
      return int8Tensor(
        name,
        dims,
        values.map((value) => Math.max(-127, Math.min(127, Math.round(40 * value)))),
      );
    case "uint8":
      return uint8Tensor(
        name,
        dims,
        values.map((value) => Math.max(0, Math.min(255, 128 + Math.round(40 * value)))),
      );
    case "int32":
      return int32Tensor(
        name,
        dims,
        values.map((value) => Math.round(1e5 * value)),
      );
    case "float16":
      return float16Tensor(
        name,
        dims,
        Uint16Array.from(values, (value) => (Math.round(value * 2000) & 0x7fff) ^ (value < 0 ? 0x8000 : 0)),
      );
    case "float32":
      return float32Tensor(name, dims, values);
  }
}
