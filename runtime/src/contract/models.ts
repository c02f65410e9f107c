import type { ElementType, Tensor } from "../backend.js";
import { GraphBuilder } from "../onnx/builder.js";
import { encodeModel } from "../onnx/model.js";
import {
  float32Tensor,
  int32Tensor,
  int8Tensor,
  scalarFloat32Tensor,
  scalarInt8Tensor,
  scalarUint8Tensor,
} from "../onnx/tensor.js";

/** A small network and what it is fed: every backend must answer alike. */
export interface ContractModel {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly feeds: Readonly<Record<string, Tensor>>;
  /** Allowed |difference| from the CPU's results: accelerators round and sum in another order. 0 means every bit. */
  readonly tolerance: number;
}

export const CONTRACT_TYPES: readonly ElementType[] = [
  "float32",
  "float64",
  "float16",
  "int8",
  "uint8",
  "int16",
  "uint16",
  "int32",
  "uint32",
  "int64",
  "uint64",
  "bool",
  "string",
];

/** Names that break whatever splits, escapes or normalizes them. */
export const ODD_NAMES = {
  input: "serving_default_input:0",
  second: "a b/ü-名前%2F\"'\\",
  output: "StatefulPartitionedCall:0",
  third: "constructor",
} as const;

export const LARGE_DIMS = [1, 3, 1024, 1024] as const;
const OPSET = 17;

/** All networks of the suite, by name. */
export function contractModels(): ReadonlyMap<string, ContractModel> {
  const models = [
    ...CONTRACT_TYPES.map(identity),
    scalars(),
    symbolic(),
    emptyDimension(),
    oddNames(),
    severalOutputs(),
    convolution(),
    gemm(),
    quantized(),
    halfPrecision(),
    lstm(),
    branches(),
    large(),
  ];
  return new Map(models.map((model) => [model.name, model]));
}

/** Numbers in [-1, 1), the same everywhere (a linear congruential generator, Numerical Recipes' constants). */
export function values(count: number, seed: number): Float32Array {
  let state = seed >>> 0;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

function floats(dims: readonly number[], seed: number): Tensor {
  return {
    type: "float32",
    dims,
    data: values(
      dims.reduce((product, dim) => product * dim, 1),
      seed,
    ),
  };
}

function finish(
  graph: GraphBuilder,
  name: string,
  feeds: Record<string, Tensor>,
  tolerance = 0,
): ContractModel {
  return { name, bytes: encodeModel(graph.build({ opset: OPSET, graphName: name })), feeds, tolerance };
}

/** Extreme and ordinary values of each type; half floats as bits (1, -2, 0.5, 65504, smallest, -0). */
function sampleOf(type: ElementType): Tensor["data"] {
  switch (type) {
    case "string":
      return ["", "plain", "ünï 名前", "with\nnewline", "😀", "0"];
    case "float16":
      return Uint16Array.of(0x3c00, 0xc000, 0x3800, 0x7bff, 0x0001, 0x8000);
    case "bool":
      return Uint8Array.of(1, 0, 0, 1, 1, 0);
    case "int64":
      return BigInt64Array.of(-(2n ** 63n), 2n ** 63n - 1n, 0n, -1n, 2n ** 53n + 1n, 7n);
    case "uint64":
      return BigUint64Array.of(0n, 2n ** 64n - 1n, 1n, 2n ** 63n, 2n ** 53n + 1n, 7n);
    case "float32":
      return Float32Array.of(0, -1.5, 3.4e38, 1e-40, 0.1, -0);
    case "float64":
      return Float64Array.of(0, -1.5, 1.7e308, 1e-300, 0.1, -0);
    case "int8":
      return Int8Array.of(1, 127, -128, 42, 0, -1);
    case "uint8":
      return Uint8Array.of(1, 127, 255, 42, 0, 128);
    case "int16":
      return Int16Array.of(1, 32_767, -32_768, 42, 0, -1);
    case "uint16":
      return Uint16Array.of(1, 32_767, 65_535, 42, 0, 32_768);
    case "int32":
      return Int32Array.of(1, 2 ** 31 - 1, -(2 ** 31), 42, 0, -1);
    case "uint32":
      return Uint32Array.of(1, 2 ** 31 - 1, 2 ** 32 - 1, 42, 0, 2 ** 31);
  }
}

function identity(type: ElementType): ContractModel {
  const graph = new GraphBuilder();
  graph.input("x", type, [2, 3]);
  graph.node("Identity", ["x"], {}, ["y"]);
  graph.output("y", type, [2, 3]);
  return finish(graph, `identity-${type}`, { x: { type, dims: [2, 3], data: sampleOf(type) } });
}

function scalars(): ContractModel {
  const graph = new GraphBuilder();
  graph.input("x", "float32", []);
  graph.input("rate", "int64", []);
  graph.node("Cast", ["rate"], { to: { i: 1 } }, ["factor"]);
  graph.node("Mul", ["x", "factor"], {}, ["y"]);
  graph.output("y", "float32", []);
  return finish(graph, "scalars", {
    x: { type: "float32", dims: [], data: Float32Array.of(1.5) },
    rate: { type: "int64", dims: [], data: BigInt64Array.of(16n) },
  });
}

function symbolic(): ContractModel {
  const graph = new GraphBuilder();
  graph.input("x", "float32", ["batch", 3, ""]);
  graph.node("Relu", ["x"], {}, ["y"]);
  graph.output("y", "float32", ["batch", 3, ""]);
  return finish(graph, "symbolic", { x: floats([2, 3, 5], 1) });
}

function emptyDimension(): ContractModel {
  const graph = new GraphBuilder();
  graph.input("a", "float32", ["n", 3]);
  graph.input("b", "float32", ["m", 3]);
  graph.node("Concat", ["a", "b"], { axis: { i: 0 } }, ["y"]);
  graph.output("y", "float32", ["k", 3]);
  const none: Tensor = { type: "float32", dims: [0, 3], data: new Float32Array(0) };
  return finish(graph, "empty", { a: none, b: floats([2, 3], 2) });
}

function oddNames(): ContractModel {
  const graph = new GraphBuilder();
  const { input, second, output, third } = ODD_NAMES;
  graph.input(input, "float32", [4]);
  graph.input(second, "float32", [4]);
  graph.node("Add", [input, second], {}, [output]);
  graph.node("Sub", [input, second], {}, [third]);
  graph.output(output, "float32", [4]);
  graph.output(third, "float32", [4]);
  return finish(graph, "odd-names", { [input]: floats([4], 3), [second]: floats([4], 4) });
}

function severalOutputs(): ContractModel {
  const graph = new GraphBuilder();
  graph.input("a", "float32", [2, 2]);
  graph.input("b", "float32", [2, 2]);
  graph.input("keep", "bool", [2, 2]);
  graph.node("Add", ["a", "b"], {}, ["sum"]);
  graph.node("Mul", ["a", "b"], {}, ["product"]);
  graph.node("Where", ["keep", "a", "b"], {}, ["picked"]);
  graph.node("Shape", ["a"], {}, ["shape"]);
  graph.output("sum", "float32", [2, 2]);
  graph.output("product", "float32", [2, 2]);
  graph.output("picked", "float32", [2, 2]);
  graph.output("shape", "int64", [2]);
  return finish(
    graph,
    "several",
    {
      a: floats([2, 2], 5),
      b: floats([2, 2], 6),
      keep: { type: "bool", dims: [2, 2], data: Uint8Array.of(1, 0, 1, 0) },
    },
    1e-6,
  );
}

function convolution(): ContractModel {
  const graph = new GraphBuilder();
  graph.input("image", "float32", [1, 3, 16, 16]);
  const weights = graph.initializer(float32Tensor("w", [8, 3, 3, 3], values(8 * 27, 7)));
  const bias = graph.initializer(float32Tensor("b", [8], values(8, 8)));
  const [convolved] = graph.node("Conv", ["image", weights, bias], {
    kernel_shape: { ints: [3, 3] },
    pads: { ints: [1, 1, 1, 1] },
    strides: { ints: [2, 2] },
  });
  const [lit] = graph.node("Relu", [convolved!]);
  graph.node("MaxPool", [lit!], { kernel_shape: { ints: [2, 2] }, strides: { ints: [2, 2] } }, ["y"]);
  graph.output("y", "float32", [1, 8, 4, 4]);
  return finish(graph, "conv", { image: floats([1, 3, 16, 16], 9) }, 1e-4);
}

function gemm(): ContractModel {
  const graph = new GraphBuilder();
  graph.input("x", "float32", [4, 32]);
  const weights = graph.initializer(float32Tensor("w", [10, 32], values(320, 10)));
  const bias = graph.initializer(float32Tensor("b", [10], values(10, 11)));
  const [scores] = graph.node("Gemm", ["x", weights, bias], { transB: { i: 1 } });
  graph.node("Softmax", [scores!], { axis: { i: 1 } }, ["y"]);
  graph.output("y", "float32", [4, 10]);
  return finish(graph, "gemm", { x: floats([4, 32], 12) }, 1e-4);
}

/** A convolution between quantizers, as a quantized model has it: 8-bit weights, 32-bit bias. */
function quantized(): ContractModel {
  const graph = new GraphBuilder();
  graph.input("image", "float32", [1, 3, 8, 8]);
  const scale = graph.initializer(scalarFloat32Tensor("x.scale", 2 / 255));
  const zero = graph.initializer(scalarUint8Tensor("x.zero", 128));
  const weightScale = graph.initializer(scalarFloat32Tensor("w.scale", 1 / 127));
  const weightZero = graph.initializer(scalarInt8Tensor("w.zero", 0));
  const outScale = graph.initializer(scalarFloat32Tensor("y.scale", 0.1));
  const weights = Int8Array.from(values(4 * 27, 13), (value) => Math.trunc(value * 127));
  const w = graph.initializer(int8Tensor("w", [4, 3, 3, 3], weights));
  const biasScale = graph.initializer(scalarFloat32Tensor("b.scale", 2 / 255 / 127));
  const b = graph.initializer(int32Tensor("b", [4], Int32Array.of(100, -2000, 30, 4000)));
  const [qx] = graph.node("QuantizeLinear", ["image", scale, zero]);
  const [x] = graph.node("DequantizeLinear", [qx!, scale, zero]);
  const [dw] = graph.node("DequantizeLinear", [w, weightScale, weightZero]);
  const [db] = graph.node("DequantizeLinear", [b, biasScale]);
  const [convolved] = graph.node("Conv", [x!, dw!, db!], { kernel_shape: { ints: [3, 3] } });
  const [qy] = graph.node("QuantizeLinear", [convolved!, outScale, zero]);
  graph.node("DequantizeLinear", [qy!, outScale, zero], {}, ["y"]);
  graph.output("y", "float32", [1, 4, 6, 6]);
  // One step of the output: a value may lie exactly between two.
  return finish(graph, "int8", { image: floats([1, 3, 8, 8], 14) }, 0.1001);
}

/** Half floats inside, floats outside, as fp16 variants have it. */
function halfPrecision(): ContractModel {
  const graph = new GraphBuilder();
  graph.input("x", "float32", [4, 16]);
  const weights = graph.initializer(float32Tensor("w", [16, 8], values(128, 15)));
  const [half] = graph.node("Cast", ["x"], { to: { i: 10 } });
  const [halfWeights] = graph.node("Cast", [weights], { to: { i: 10 } });
  const [product] = graph.node("MatMul", [half!, halfWeights!]);
  const [lit] = graph.node("Relu", [product!]);
  graph.node("Cast", [lit!], { to: { i: 1 } }, ["y"]);
  graph.output("y", "float32", [4, 8]);
  return finish(graph, "fp16", { x: floats([4, 16], 16) }, 2e-2);
}

function lstm(): ContractModel {
  const graph = new GraphBuilder();
  const hidden = 8;
  graph.input("x", "float32", [5, 1, 4]);
  graph.input("h", "float32", [1, 1, hidden]);
  graph.input("c", "float32", [1, 1, hidden]);
  const w = graph.initializer(float32Tensor("w", [1, 4 * hidden, 4], values(4 * hidden * 4, 17)));
  const r = graph.initializer(float32Tensor("r", [1, 4 * hidden, hidden], values(4 * hidden * hidden, 18)));
  graph.node("LSTM", ["x", w, r, "", "", "h", "c"], { hidden_size: { i: hidden } }, ["y", "hN", "cN"]);
  graph.output("y", "float32", [5, 1, 1, hidden]);
  graph.output("hN", "float32", [1, 1, hidden]);
  graph.output("cN", "float32", [1, 1, hidden]);
  return finish(
    graph,
    "lstm",
    { x: floats([5, 1, 4], 19), h: floats([1, 1, hidden], 20), c: floats([1, 1, hidden], 21) },
    1e-4,
  );
}

/** An If whose branch depends on an input. */
function branches(): ContractModel {
  const branch = (
    name: string,
    operator: string,
  ): NonNullable<ReturnType<GraphBuilder["build"]>["graph"]> => {
    const inner = new GraphBuilder();
    const two = inner.initializer(float32Tensor(`${name}.two`, [1], Float32Array.of(2)));
    inner.node(operator, ["x", two], {}, [`${name}.y`]);
    inner.output(`${name}.y`, "float32", [3]);
    return inner.build({ opset: OPSET, graphName: name }).graph!;
  };
  const graph = new GraphBuilder();
  graph.input("x", "float32", [3]);
  graph.input("double", "bool", []);
  graph.node(
    "If",
    ["double"],
    { then_branch: { g: branch("then", "Mul") }, else_branch: { g: branch("else", "Add") } },
    ["y"],
  );
  graph.output("y", "float32", [3]);
  return finish(
    graph,
    "if",
    { x: floats([3], 22), double: { type: "bool", dims: [], data: Uint8Array.of(1) } },
    1e-6,
  );
}

function large(): ContractModel {
  const graph = new GraphBuilder();
  graph.input("x", "float32", [...LARGE_DIMS]);
  graph.node("Neg", ["x"], {}, ["y"]);
  graph.output("y", "float32", [...LARGE_DIMS]);
  return finish(graph, "large", { x: floats(LARGE_DIMS, 23) });
}
