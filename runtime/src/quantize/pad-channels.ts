import type { GraphProto, NodeProto, TensorProto } from "../onnx/generated/onnx_pb.js";
import {
  consumerMap,
  definedNames,
  initializerMap,
  intAttribute,
  makeNode,
  sortedNodes,
} from "../onnx/graph.js";
import { elementCount, float32Tensor, int64Tensor, tensorDims, tensorToFloat32 } from "../onnx/tensor.js";

/** Input channels that a direct 8-bit convolution of ONNX Runtime reads at a time (MLAS, `FilterInputChannelPackCount`). */
const CHANNELS_PACKED = 4;

/**
 * Gives the first convolution of an image a fourth channel of zeros, in place, where the image has three. Its 8-bit kernel reads
 * channels four at a time, and three take the slow way over a copy of every window: on 224×224 the layer alone took a seventh of
 * MobileNetV1. Zeros times zero weights add nothing, so every result stays what it was.
 */
export function padChannels(graph: GraphProto): void {
  const inputs = new Set(graph.input.map(({ name }) => name));
  const outputs = new Set(graph.output.map(({ name }) => name));
  const initializers = initializerMap(graph);
  const consumers = consumerMap(graph);
  const taken = definedNames(graph);
  graph.node = graph.node.flatMap((node) => {
    const [input = "", weightName = ""] = node.input;
    const weight = initializers.get(weightName);
    const padded = `${input}/padded`;
    const pads = `${padded}/pads`;
    const alone = consumers.get(weightName)?.length === 1 && consumers.get(input)?.length === 1;
    // Weights that the model gives away keep their shape.
    if (outputs.has(weightName)) return [node];
    if (!inputs.has(input) || !weight || !alone || !isThreeChannels(node, weight)) return [node];
    if (taken.has(padded) || taken.has(pads)) return [node];
    graph.initializer[graph.initializer.indexOf(weight)] = widen(weight);
    graph.initializer.push(int64Tensor(pads, [8], [0, 0, 0, 0, 0, 1, 0, 0]));
    node.input[0] = padded;
    return [makeNode("Pad", [input, pads], [padded], {}, { name: padded }), node];
  });
}

/** Once the graph is quantized, in place: the channel of zeros is added to levels of a byte in place of floats of four. */
export function padLevels(graph: GraphProto): void {
  const initializers = initializerMap(graph);
  const consumers = consumerMap(graph);
  for (const pad of graph.node) {
    const [input = "", pads = ""] = pad.input;
    const [padded = ""] = pad.output;
    const [quantize, ...others] = consumers.get(padded) ?? [];
    if (pad.opType !== "Pad" || pads !== `${input}/padded/pads` || !initializers.has(pads)) continue;
    if (quantize?.opType !== "QuantizeLinear" || others.length > 0) continue;
    const [levels = ""] = quantize.output;
    const [, scale = "", zeroPoint = ""] = quantize.input;
    quantize.input = [input, scale, zeroPoint];
    quantize.output = [padded];
    pad.input = [padded, pads, zeroPoint];
    pad.output = [levels];
  }
  graph.node = sortedNodes(graph);
}

function isThreeChannels(node: NodeProto, weight: TensorProto): boolean {
  const dims = tensorDims(weight);
  const isConvolution = node.opType === "Conv" && node.domain === "" && intAttribute(node, "group", 1) === 1;
  return isConvolution && dims.length === 4 && dims[1] === CHANNELS_PACKED - 1;
}

/** [outputs, 3, height, width] with a fourth input channel of zeros. */
function widen(weight: TensorProto): TensorProto {
  const [outputs, channels, height, width] = tensorDims(weight) as [number, number, number, number];
  const dims = [outputs, CHANNELS_PACKED, height, width];
  const values = tensorToFloat32(weight);
  const wide = new Float32Array(elementCount(dims));
  const [from, to] = [channels * height * width, CHANNELS_PACKED * height * width];
  for (let output = 0; output < outputs; output++) {
    wide.set(values.subarray(output * from, (output + 1) * from), output * to);
  }
  return float32Tensor(weight.name, dims, wide);
}
