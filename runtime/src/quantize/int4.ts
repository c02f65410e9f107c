import { FieldloopError } from "@fieldloop/protocol";
import {
  TensorProto_DataType,
  type GraphProto,
  type NodeProto,
  type TensorProto,
} from "../onnx/generated/onnx_pb.js";
import { floatAttribute, intAttribute, makeNode, pruneDead, subgraphsOf } from "../onnx/graph.js";
import { decodeModel, encodeModel, graphOf } from "../onnx/model.js";
import { float32Tensor, tensorDims, tensorToFloat32, uint8Tensor } from "../onnx/tensor.js";
import {
  importDomain,
  isKept,
  labelOf,
  NameSource,
  requireNames,
  transposed,
  type ConvertOptions,
  type ConvertResult,
  type LeftNode,
} from "./convert.js";
import { roundHalfEven } from "./numeric.js";
import { prepareFloat } from "./prepare.js";

export const INT4_BLOCK_SIZES = [16, 32, 64, 128, 256] as const;

export interface Int4Options extends ConvertOptions {
  /** Weights along the inner dimension that share a scale; 32, 64 or 128 are usual. */
  readonly blockSize: number;
  /** Without a zero point for each block. */
  readonly symmetric: boolean;
  /** 0: the backend's choice; 1: compute in float32; 4: quantize activations to int8 for the product, which is faster. */
  readonly accuracyLevel: 0 | 1 | 4;
  /** Weights with fewer elements stay float; default 1024. */
  readonly elementsMin?: number;
}

/** A matrix in 4-bit blocks: of each output the blocks one after the other, two levels a byte, the lower four bits first. */
export interface Int4Matrix {
  /** [outputs, blocks, blockSize / 2] */
  readonly packed: Uint8Array;
  /** [outputs, blocks]; real = scale · (level − zero point), the zero point being 8 for the symmetric form. */
  readonly scales: Float32Array;
  /** [outputs, ceil(blocks / 2)], two a byte; undefined for the symmetric form. */
  readonly zeroPoints: Uint8Array | undefined;
}

/**
 * Stores the weights of MatMul and Gemm nodes as 4-bit blocks, computed by `com.microsoft.MatMulNBits`; activations stay float32. Made for
 * models whose weights do not fit otherwise. Throws what `checkModel` and `upgradeOpset` throw, `invalid_argument` for a block
 * size the kernel does not have, and `onnx_unsupported` where there is nothing to quantize.
 */
export async function quantizeInt4(modelBytes: Uint8Array, options: Int4Options): Promise<ConvertResult> {
  if (!INT4_BLOCK_SIZES.some((size) => size === options.blockSize)) {
    throw new FieldloopError(
      "invalid_argument",
      `Quantize to 4 bits: block size ${options.blockSize}, wanted ${INT4_BLOCK_SIZES.join(", ")}`,
    );
  }
  const model = decodeModel(await prepareFloat(modelBytes, options));
  const graph = graphOf(model);
  requireNames(graph, options.keepFloat);
  const writer = new Int4Writer(new NameSource(graph), options);
  writer.rewrite(graph, new Map());
  if (writer.converted.length === 0) {
    const reasons = writer.left.map(({ node, reason }) => `"${node}" ${reason}`).join("; ");
    throw new FieldloopError(
      "onnx_unsupported",
      `Quantize to 4 bits: no MatMul or Gemm with large enough stored float32 weights${reasons === "" ? "" : ` (${reasons})`}`,
    );
  }
  importDomain(model, "com.microsoft", 1);
  pruneDead(graph);
  return { bytes: encodeModel(model), converted: writer.converted, left: writer.left, warnings: [] };
}

class Int4Writer {
  readonly converted: string[] = [];
  readonly left: LeftNode[] = [];
  readonly #names: NameSource;
  readonly #options: Int4Options;
  readonly #keepFloat: ReadonlySet<string>;

  constructor(names: NameSource, options: Int4Options) {
    this.#names = names;
    this.#options = options;
    this.#keepFloat = new Set(options.keepFloat);
  }

  rewrite(graph: GraphProto, outer: ReadonlyMap<string, TensorProto>): void {
    const stored = new Map([...outer, ...graph.initializer.map((tensor) => [tensor.name, tensor] as const)]);
    graph.node = graph.node.flatMap((node) => {
      for (const inner of subgraphsOf(node)) this.rewrite(inner, stored);
      return this.#rewriteNode(node, stored, graph) ?? [node];
    });
    if (outer.size > 0) pruneDead(graph);
  }

  #rewriteNode(
    node: NodeProto,
    stored: ReadonlyMap<string, TensorProto>,
    graph: GraphProto,
  ): NodeProto[] | undefined {
    if (node.domain !== "" && node.domain !== "ai.onnx") return undefined;
    if (node.opType !== "MatMul" && node.opType !== "Gemm") return undefined;
    const leave = (reason: string): undefined => {
      this.left.push({ node: labelOf(node), operator: node.opType, reason });
    };
    if (isKept(node, this.#keepFloat)) return leave("asked for");
    const weight = stored.get(node.input[1] ?? "");
    if (weight?.dataType !== TensorProto_DataType.FLOAT || weight.dims.length !== 2) {
      return leave("its second operand is no stored matrix");
    }
    const [first, second] = tensorDims(weight) as [number, number];
    if (first * second < (this.#options.elementsMin ?? 1024)) return leave("is small");
    if (intAttribute(node, "transA", 0) !== 0) return leave("transA is set");
    this.converted.push(labelOf(node));
    return this.#product(node, weight, graph);
  }

  #product(node: NodeProto, weight: TensorProto, graph: GraphProto): NodeProto[] {
    const { blockSize, symmetric, accuracyLevel } = this.#options;
    const isGemm = node.opType === "Gemm";
    const [rows, columns] = tensorDims(weight) as [number, number];
    const flipped = isGemm && intAttribute(node, "transB", 0) !== 0;
    const alpha = isGemm ? floatAttribute(node, "alpha", 1) : 1;
    const plain = tensorToFloat32(weight).map((value) => value * alpha);
    const outputs = flipped ? rows : columns;
    const inner = flipped ? columns : rows;
    const byOutput = flipped ? plain : transposed(plain, rows, columns);
    const matrix = packInt4(byOutput, outputs, inner, blockSize, symmetric);
    const blocks = Math.ceil(inner / blockSize);
    const store = (tensor: TensorProto): string => {
      graph.initializer.push(tensor);
      return tensor.name;
    };
    const name = (end: string) => this.#names.unique(`${weight.name}/${end}`);
    const inputs = [
      node.input[0]!,
      store(uint8Tensor(name("levels"), [outputs, blocks, blockSize / 2], matrix.packed)),
      store(float32Tensor(name("scales"), [outputs * blocks], matrix.scales)),
    ];
    if (matrix.zeroPoints) {
      const dims = [outputs * Math.ceil(blocks / 2)];
      inputs.push(store(uint8Tensor(name("zero_points"), dims, matrix.zeroPoints)));
    }
    const output = node.output[0]!;
    const bias = node.input[2] ?? "";
    const result = bias === "" ? output : this.#names.unique(`${output}/product`);
    const attributes = {
      K: { i: inner },
      N: { i: outputs },
      bits: { i: 4 },
      block_size: { i: blockSize },
      ...(accuracyLevel === 0 ? {} : { accuracy_level: { i: accuracyLevel } }),
    };
    const made = [
      makeNode("MatMulNBits", inputs, [result], attributes, { name: node.name, domain: "com.microsoft" }),
    ];
    if (bias === "") return made;
    const beta = floatAttribute(node, "beta", 1);
    let added = bias;
    if (beta !== 1) {
      const factor = store(float32Tensor(this.#names.unique(`${output}/beta`), [], [beta]));
      added = this.#names.unique(`${output}/bias`);
      made.push(makeNode("Mul", [bias, factor], [added]));
    }
    return [...made, makeNode("Add", [result, added], [output])];
  }
}

/**
 * Quantizes a matrix [outputs, inner] to 4 bits in blocks along `inner`; a last short block is filled with zeros. The symmetric form
 * uses all 16 levels: the value of largest magnitude lies at level 0, whichever its sign.
 */
export function packInt4(
  values: Float32Array,
  outputs: number,
  inner: number,
  blockSize: number,
  symmetric: boolean,
): Int4Matrix {
  const blocks = Math.ceil(inner / blockSize);
  const packed = new Uint8Array((outputs * blocks * blockSize) / 2);
  const scales = new Float32Array(outputs * blocks);
  const zeroBytes = Math.ceil(blocks / 2);
  const zeroPoints = symmetric ? undefined : new Uint8Array(outputs * zeroBytes);
  for (let output = 0; output < outputs; output++) {
    for (let block = 0; block < blocks; block++) {
      const from = output * inner + block * blockSize;
      const slice = values.subarray(from, Math.min(from + blockSize, (output + 1) * inner));
      const { scale, zeroPoint } = symmetric ? symmetricBlock(slice) : asymmetricBlock(slice);
      scales[output * blocks + block] = scale;
      if (zeroPoints) zeroPoints[output * zeroBytes + (block >> 1)]! |= zeroPoint << (4 * (block & 1));
      const base = ((output * blocks + block) * blockSize) / 2;
      for (let at = 0; at < blockSize; at++) {
        const level = at < slice.length ? levelOf(slice[at]!, scale, zeroPoint) : zeroPoint;
        packed[base + (at >> 1)]! |= level << (4 * (at & 1));
      }
    }
  }
  return { packed, scales, zeroPoints };
}

/** The float values that packed blocks stand for, [outputs, inner]. */
export function unpackInt4(
  matrix: Int4Matrix,
  outputs: number,
  inner: number,
  blockSize: number,
): Float32Array {
  const blocks = Math.ceil(inner / blockSize);
  const zeroBytes = Math.ceil(blocks / 2);
  const values = new Float32Array(outputs * inner);
  for (let output = 0; output < outputs; output++) {
    for (let at = 0; at < inner; at++) {
      const block = Math.floor(at / blockSize);
      const offset = at % blockSize;
      const byte = matrix.packed[((output * blocks + block) * blockSize) / 2 + (offset >> 1)]!;
      const zeroByte = matrix.zeroPoints?.[output * zeroBytes + (block >> 1)];
      const zeroPoint = zeroByte === undefined ? 8 : (zeroByte >> (4 * (block & 1))) & 15;
      const level = (byte >> (4 * (offset & 1))) & 15;
      values[output * inner + at] = matrix.scales[output * blocks + block]! * (level - zeroPoint);
    }
  }
  return values;
}

function symmetricBlock(values: Float32Array): { scale: number; zeroPoint: number } {
  let extreme = 0;
  for (const value of values) if (Math.abs(value) > Math.abs(extreme)) extreme = value;
  return { scale: Math.fround(extreme / -8), zeroPoint: 8 };
}

function asymmetricBlock(values: Float32Array): { scale: number; zeroPoint: number } {
  let low = 0;
  let high = 0;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const scale = Math.fround((high - low) / 15);
  if (scale === 0) return { scale, zeroPoint: 0 };
  return { scale, zeroPoint: Math.min(15, Math.max(0, roundHalfEven(-low / scale))) };
}

function levelOf(value: number, scale: number, zeroPoint: number): number {
  if (!Number.isFinite(value)) {
    throw new FieldloopError("quantization_rejected", `Quantize to 4 bits: a weight is ${value}, not finite`);
  }
  const level = scale === 0 ? zeroPoint : roundHalfEven(value / scale) + zeroPoint;
  return Math.min(15, Math.max(0, level));
}
