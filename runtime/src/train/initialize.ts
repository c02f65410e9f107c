import type { Tensor } from "../backend.js";
import { decodeModel, encodeModel } from "../onnx/model.js";
import { replaceInitializers } from "../onnx/writeback.js";
import { Random, hashText } from "../simulate/random.js";
import { intAttribute, sizeOf, type TrainGraph, type TrainNode } from "./graph.js";
import { findLayers } from "./layers.js";
import { graphFromBytes } from "./onnx-form.js";

/** Activations of which about half the outputs are zero: the gain of He et al. (2015) is for these. */
const RECTIFIERS = new Set(["Relu", "LeakyRelu", "PRelu", "Clip", "HardSwish", "Gelu"]);
/** Operators that may stand between a weighted layer and its activation. */
const BETWEEN = new Set(["Add", "BatchNormalization", "MaxPool", "AveragePool", "Reshape", "Identity"]);

/**
 * Gives every weight of a freshly built model a random start: normal with standard deviation sqrt(2 / inputs) before a
 * rectifier (He et al. 2015), sqrt(1 / inputs) elsewhere; biases 0; normalization layers are left as they are. The
 * stream depends on the seed and the tensor's name, so adding a layer does not change the others.
 */
export function initializeWeights(model: Uint8Array, seed: number): Uint8Array {
  const graph = graphFromBytes(model);
  const values = new Map<string, Float32Array>();
  for (const layer of findLayers(graph)) {
    for (const name of layer.tensors) {
      const tensor = graph.constants.get(name)!;
      const user = graph.nodes.find((node) => node.inputs.includes(name))!;
      const drawn = drawTensor(name, tensor, user, graph, seed);
      if (drawn) values.set(name, drawn);
    }
  }
  const decoded = decodeModel(model);
  replaceInitializers(decoded, values);
  return encodeModel(decoded);
}

function drawTensor(
  name: string,
  tensor: Tensor,
  user: TrainNode,
  graph: TrainGraph,
  seed: number,
): Float32Array | undefined {
  if (user.op === "BatchNormalization" || user.op === "LayerNormalization" || user.op === "PRelu")
    return undefined;
  const size = sizeOf(tensor.dims);
  if (tensor.dims.length < 2 || user.op === "Add") return new Float32Array(size);
  const gain = feedsRectifier(user.outputs[0]!, graph) ? 2 : 1;
  const deviation = Math.sqrt(gain / fanIn(user, tensor.dims));
  const random = new Random(seed, hashText(name));
  return Float32Array.from({ length: size }, () => deviation * random.normal());
}

/** How many products each output of the layer sums. */
function fanIn(user: TrainNode, dims: readonly number[]): number {
  switch (user.op) {
    case "Conv":
      return sizeOf(dims.slice(1));
    case "ConvTranspose": {
      const kernel = sizeOf(dims.slice(2));
      const overlap = user.attributes["strides"];
      const stride = overlap && "ints" in overlap ? sizeOf(overlap.ints) : 1;
      return Math.max(1, (dims[0]! / intAttribute(user, "group", 1)) * (kernel / stride));
    }
    case "Gemm":
      return intAttribute(user, "transB", 0) === 1 ? dims[1]! : dims[0]!;
    case "Gather":
      return dims[1]!;
    default:
      return dims.at(-2)!;
  }
}

function feedsRectifier(output: string, graph: TrainGraph): boolean {
  let at = output;
  for (let hops = 0; hops < 4; hops++) {
    const next = graph.nodes.find((node) => node.inputs.includes(at));
    if (!next) return false;
    if (RECTIFIERS.has(next.op)) return true;
    if (!BETWEEN.has(next.op)) return false;
    at = next.outputs[0]!;
  }
  return false;
}
