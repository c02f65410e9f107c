import type { Affine } from "@fieldloop/protocol";
import type { ModelProto, NodeProto, TensorProto } from "../onnx/generated/onnx_pb.js";
import { consumerMap, producerMap, storedTensors } from "../onnx/graph.js";
import { graphSignature } from "../onnx/inspect.js";
import { graphOf } from "../onnx/model.js";
import {
  elementCount,
  tensorDims,
  tensorElementType,
  tensorToFloat32,
  tensorToInt64Numbers,
} from "../onnx/tensor.js";
import type { ModelSignature } from "./preset.js";

/** Operators that change the form of a tensor and not its values. */
const FORM_ONLY: ReadonlySet<string> = new Set([
  "Reshape",
  "Squeeze",
  "Unsqueeze",
  "Identity",
  "Flatten",
  "Transpose",
  "Cast",
]);
/** Steps from an output back to the operator that computed it. */
const STEPS_MAX = 8;

/**
 * What a graph tells beyond the shapes of its inputs and outputs, for presets: what the integers of its inputs and outputs stand for, the
 * operator that computes each output, and all operators.
 */
export function describeModel(model: ModelProto): ModelSignature {
  const graph = graphOf(model);
  const { inputs, outputs } = graphSignature(graph);
  const producers = producerMap(graph);
  const quantization: Record<string, Affine> = {};
  const computedBy: Record<string, string> = {};
  const constants = storedTensors(graph);
  const consumers = consumerMap(graph);
  for (const { name } of inputs) {
    const affine = inputAffine(consumers.get(name) ?? [], consumers, constants);
    if (affine !== undefined) quantization[name] = affine;
  }
  for (const { name } of outputs) {
    const affine = outputAffine(producers.get(name), constants);
    if (affine !== undefined) quantization[name] = affine;
    const operator = operatorBehind(name, producers);
    if (operator !== undefined) computedBy[name] = operator;
  }
  return {
    inputs,
    outputs,
    quantization,
    computedBy,
    operators: [...new Set(graph.node.map((node) => node.opType))],
  };
}

type Constants = ReadonlyMap<string, TensorProto>;

/** `DequantizeLinear(input, scale, zero point)`, or the older `Cast → Sub zero point → Mul scale`. */
function inputAffine(
  readers: readonly NodeProto[],
  consumers: ReadonlyMap<string, NodeProto[]>,
  constants: Constants,
): Affine | undefined {
  const [reader] = readers;
  if (reader === undefined || readers.length > 1) return undefined;
  if (reader.opType === "DequantizeLinear") {
    return affineOf(constants, reader.input[1], reader.input[2]);
  }
  if (reader.opType !== "Cast") return undefined;
  const shift = onlyReader(consumers, reader, "Sub");
  const scale = shift && onlyReader(consumers, shift, "Mul");
  return scale && affineOf(constants, scale.input[1], shift.input[1]);
}

function onlyReader(
  consumers: ReadonlyMap<string, NodeProto[]>,
  node: NodeProto,
  opType: string,
): NodeProto | undefined {
  const readers = consumers.get(node.output[0]!) ?? [];
  return readers.length === 1 && readers[0]!.opType === opType ? readers[0] : undefined;
}

/** `QuantizeLinear(x, scale, zero point)` → output, reshaped at most. */
function outputAffine(producer: NodeProto | undefined, constants: Constants): Affine | undefined {
  if (producer?.opType !== "QuantizeLinear") return undefined;
  return affineOf(constants, producer.input[1], producer.input[2]);
}

function affineOf(
  constants: Constants,
  scaleName: string | undefined,
  zeroName: string | undefined,
): Affine | undefined {
  const scale = scalarOf(constants, scaleName);
  const zeroPoint = zeroName === undefined || zeroName === "" ? 0 : scalarOf(constants, zeroName);
  if (scale === undefined || zeroPoint === undefined) return undefined;
  return scale > 0 && Number.isInteger(zeroPoint) ? { scale, zeroPoint } : undefined;
}

function scalarOf(constants: Constants, name: string | undefined): number | undefined {
  const tensor = name === undefined ? undefined : constants.get(name);
  if (tensor === undefined || elementCount(tensorDims(tensor)) !== 1) return undefined;
  const type = tensorElementType(tensor);
  if (type === "string") return undefined;
  return type.startsWith("float") ? tensorToFloat32(tensor)[0] : tensorToInt64Numbers(tensor)[0];
}

function operatorBehind(name: string, producers: ReadonlyMap<string, NodeProto>): string | undefined {
  let node = producers.get(name);
  for (let step = 0; step < STEPS_MAX && node !== undefined; step++) {
    const passes =
      FORM_ONLY.has(node.opType) || node.opType === "QuantizeLinear" || node.opType === "DequantizeLinear";
    if (!passes) return node.opType;
    node = producers.get(node.input[0]!);
  }
  return undefined;
}
