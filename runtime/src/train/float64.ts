import { FieldloopError } from "@fieldloop/protocol";
import * as shape from "./float64-shape.js";
import { broadcastIndices, type Operator, type Tensor64 } from "./float64-tensor.js";
import { evaluateConv, evaluateConvTranspose, evaluatePool } from "./float64-window.js";
import { floatAttribute, intAttribute, numbersOf, sizeOf, type TrainGraph, type TrainNode } from "./graph.js";
import { positiveAxis } from "./rules/rule.js";

/**
 * Reference interpreter in double precision, for checking gradients by finite differences: single precision is useless
 * for that on deep nets. Written for clarity, not speed. `shapes` holds the shape of every value.
 */
export function evaluate64(
  graph: Pick<TrainGraph, "nodes" | "constants">,
  shapes: ReadonlyMap<string, readonly number[]>,
  feeds: ReadonlyMap<string, Tensor64>,
): Map<string, Tensor64> {
  const values = new Map<string, Tensor64>(feeds);
  for (const [name, tensor] of graph.constants) {
    if (!values.has(name))
      values.set(name, { dims: tensor.dims, data: Float64Array.from(numbersOf(tensor)) });
  }
  for (const node of graph.nodes) {
    const evaluate = OPERATORS[node.op];
    if (!evaluate) {
      throw new FieldloopError(
        "onnx_unsupported",
        `Evaluate in float64: no reference for "${node.op}" ("${node.name}")`,
      );
    }
    const results = evaluate({
      node,
      inputs: node.inputs.map((name) => values.get(name)),
      outputDims: node.outputs.map((name) => shapes.get(name) ?? []),
    });
    node.outputs.forEach((name, index) => {
      const data = results[index];
      if (name && data) values.set(name, { dims: shapes.get(name)!, data });
    });
  }
  return values;
}

function unary(f: (x: number, node: TrainNode) => number): Operator {
  return ({ node, inputs }) => [inputs[0]!.data.map((x) => f(x, node))];
}

function binary(f: (a: number, b: number) => number): Operator {
  return ({ inputs, outputDims }) => {
    const [a, b] = [inputs[0]!, inputs[1]!];
    const dims = outputDims[0]!;
    const left = broadcastIndices(a.dims, dims);
    const right = broadcastIndices(b.dims, dims);
    return [Float64Array.from(left, (at, k) => f(a.data[at]!, b.data[right[k]!]!))];
  };
}

const copy: Operator = ({ inputs }) => [inputs[0]!.data.slice()];

/** erf by its Maclaurin series up to 3, beyond by the continued fraction of erfc (Abramowitz and Stegun 7.1.5, 7.1.14). */
export function erf64(x: number): number {
  const size = Math.abs(x);
  if (size > 6) return Math.sign(x);
  if (size <= 3) {
    let term = x;
    let sum = x;
    for (let n = 1; n < 200 && Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
      term *= (-x * x) / n;
      sum += term / (2 * n + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = 0;
  for (let k = 120; k > 0; k--) fraction = k / 2 / (size + fraction);
  const rest = Math.exp(-size * size) / ((size + fraction) * Math.sqrt(Math.PI));
  return Math.sign(x) * (1 - rest);
}

const clip: Operator = ({ inputs }) => {
  const low = inputs[1]?.data[0] ?? -Infinity;
  const high = inputs[2]?.data[0] ?? Infinity;
  return [inputs[0]!.data.map((x) => Math.min(high, Math.max(low, x)))];
};

const gemm: Operator = ({ node, inputs, outputDims }) => {
  const [a, b, c] = [inputs[0]!, inputs[1]!, inputs[2]];
  const dims = outputDims[0]!;
  const [rows, columns] = [dims[0]!, dims[1]!];
  const transA = intAttribute(node, "transA", 0) === 1;
  const transB = intAttribute(node, "transB", 0) === 1;
  const inner = a.dims[transA ? 0 : 1]!;
  const y = new Float64Array(rows * columns);
  const bias = c ? broadcastIndices(c.dims, dims) : undefined;
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      let sum = 0;
      for (let k = 0; k < inner; k++) {
        sum +=
          a.data[transA ? k * rows + i : i * inner + k]! * b.data[transB ? j * inner + k : k * columns + j]!;
      }
      const at = i * columns + j;
      y[at] = floatAttribute(node, "alpha", 1) * sum;
      if (c && bias) y[at]! += floatAttribute(node, "beta", 1) * c.data[bias[at]!]!;
    }
  }
  return [y];
};

const matMul: Operator = ({ inputs, outputDims }) => {
  const [a, b] = [inputs[0]!, inputs[1]!];
  const dims = outputDims[0]!;
  const lead = dims.slice(0, -2);
  const [rows, inner, columns] = [a.dims.at(-2)!, a.dims.at(-1)!, b.dims.at(-1)!];
  const left = broadcastIndices(a.dims.slice(0, -2), lead);
  const right = broadcastIndices(b.dims.slice(0, -2), lead);
  const y = new Float64Array(sizeOf(dims));
  for (let n = 0; n < left.length; n++) {
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) {
        let sum = 0;
        for (let k = 0; k < inner; k++) {
          sum +=
            a.data[left[n]! * rows * inner + i * inner + k]! *
            b.data[right[n]! * inner * columns + k * columns + j]!;
        }
        y[(n * rows + i) * columns + j] = sum;
      }
    }
  }
  return [y];
};

const globalAveragePool: Operator = ({ inputs, outputDims }) => {
  const x = inputs[0]!;
  const y = new Float64Array(sizeOf(outputDims[0]!));
  const plane = x.data.length / y.length;
  return [
    y.map(
      (_, k) => x.data.subarray(k * plane, (k + 1) * plane).reduce((sum, value) => sum + value, 0) / plane,
    ),
  ];
};

const batchNormalization: Operator = ({ node, inputs }) => {
  const [x, scale, bias, mean, variance] = inputs.map((input) => input!);
  const plane = sizeOf(x!.dims.slice(2));
  const epsilon = floatAttribute(node, "epsilon", 1e-5);
  return [
    x!.data.map((value, at) => {
      const c = Math.floor(at / plane) % x!.dims[1]!;
      const inverse = 1 / Math.sqrt(variance!.data[c]! + epsilon);
      return scale!.data[c]! * (value - mean!.data[c]!) * inverse + bias!.data[c]!;
    }),
  ];
};

const layerNormalization: Operator = ({ node, inputs }) => {
  const [x, scale, bias] = [inputs[0]!, inputs[1]!, inputs[2]];
  const axis = positiveAxis(intAttribute(node, "axis", -1), x.dims.length);
  const size = sizeOf(x.dims.slice(axis));
  const epsilon = floatAttribute(node, "epsilon", 1e-5);
  const y = new Float64Array(x.data.length);
  for (let start = 0; start < y.length; start += size) {
    const row = x.data.subarray(start, start + size);
    const mean = row.reduce((sum, value) => sum + value, 0) / size;
    const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / size;
    row.forEach((value, k) => {
      y[start + k] = ((value - mean) / Math.sqrt(variance + epsilon)) * scale.data[k]! + (bias?.data[k] ?? 0);
    });
  }
  return [y];
};

function softmax(log: boolean): Operator {
  return ({ node, inputs }) => {
    const x = inputs[0]!;
    const axis = positiveAxis(intAttribute(node, "axis", -1), x.dims.length);
    const kept = x.dims.map((dim, at) => (at === axis ? 1 : dim));
    const groups = broadcastIndices(kept, x.dims);
    const peak = new Float64Array(sizeOf(kept)).fill(-Infinity);
    x.data.forEach((value, at) => (peak[groups[at]!] = Math.max(peak[groups[at]!]!, value)));
    const sums = new Float64Array(sizeOf(kept));
    x.data.forEach((value, at) => (sums[groups[at]!]! += Math.exp(value - peak[groups[at]!]!)));
    return [
      x.data.map((value, at) => {
        const shifted = value - peak[groups[at]!]! - Math.log(sums[groups[at]!]!);
        return log ? shifted : Math.exp(shifted);
      }),
    ];
  };
}

const OPERATORS: Readonly<Record<string, Operator>> = {
  Abs: unary(Math.abs),
  Add: binary((a, b) => a + b),
  AveragePool: evaluatePool,
  BatchNormalization: batchNormalization,
  Clip: clip,
  Concat: shape.concat,
  Conv: evaluateConv,
  ConvTranspose: evaluateConvTranspose,
  Div: binary((a, b) => a / b),
  Dropout: copy,
  Erf: unary(erf64),
  Exp: unary(Math.exp),
  Expand: shape.expand,
  Flatten: copy,
  Gather: shape.gather,
  Gelu: unary((x) => 0.5 * x * (1 + erf64(x * Math.SQRT1_2))),
  Gemm: gemm,
  GlobalAveragePool: globalAveragePool,
  HardSigmoid: unary((x, node) =>
    Math.max(0, Math.min(1, floatAttribute(node, "alpha", 0.2) * x + floatAttribute(node, "beta", 0.5))),
  ),
  HardSwish: unary((x) => x * Math.max(0, Math.min(1, x / 6 + 0.5))),
  Identity: copy,
  LayerNormalization: layerNormalization,
  LeakyRelu: unary((x, node) => (x > 0 ? x : floatAttribute(node, "alpha", 0.01) * x)),
  Log: unary(Math.log),
  LogSoftmax: softmax(true),
  MatMul: matMul,
  MaxPool: evaluatePool,
  Mul: binary((a, b) => a * b),
  Neg: unary((x) => -x),
  PRelu: binary((x, slope) => (x > 0 ? x : slope * x)),
  Pad: shape.pad,
  Pow: binary((a, b) => a ** b),
  ReduceMean: shape.reduce(true),
  ReduceSum: shape.reduce(false),
  Relu: unary((x) => Math.max(0, x)),
  Reshape: copy,
  Resize: shape.resize,
  Sigmoid: unary((x) => 1 / (1 + Math.exp(-x))),
  Slice: shape.slice,
  Softmax: softmax(false),
  Softplus: unary((x) => Math.log1p(Math.exp(-Math.abs(x))) + Math.max(0, x)),
  Split: shape.split,
  Sqrt: unary(Math.sqrt),
  Squeeze: copy,
  Sub: binary((a, b) => a - b),
  Tanh: unary(Math.tanh),
  Transpose: shape.transpose,
  Unsqueeze: copy,
};
