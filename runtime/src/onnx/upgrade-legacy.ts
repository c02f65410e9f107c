import type { NodeProto } from "./generated/onnx_pb.js";
import { attribute, floatAttribute, intsAttribute, makeNode } from "./graph.js";
import { float32Tensor } from "./tensor.js";
import { addConstant, addFloat, addTensor, uniqueName, type Upgrade } from "./upgrade-tools.js";

/** alpha · x + beta; never in the standard, written by early converters. */
export function upgradeAffine(node: NodeProto, upgrade: Upgrade): NodeProto[] {
  const scaled = uniqueName(upgrade, `${node.output[0]!}/scaled`);
  const alpha = addFloat(upgrade, node, "alpha", floatAttribute(node, "alpha", 1));
  const beta = addFloat(upgrade, node, "beta", floatAttribute(node, "beta", 0));
  return [
    makeNode("Mul", [node.input[0]!, alpha], [scaled]),
    makeNode("Add", [scaled, beta], node.output, {}, { name: node.name }),
  ];
}

/** scale · x + bias of the channel. */
export function upgradeImageScaler(node: NodeProto, upgrade: Upgrade): NodeProto[] {
  const scaled = uniqueName(upgrade, `${node.output[0]!}/scaled`);
  const scale = addFloat(upgrade, node, "scale", floatAttribute(node, "scale", 1));
  const values = attribute(node, "bias")?.floats ?? [];
  const bias = addTensor(upgrade, node, "bias", (name) =>
    float32Tensor(name, [1, values.length, 1, 1], values),
  );
  return [
    makeNode("Mul", [node.input[0]!, scale], [scaled]),
    makeNode("Add", [scaled, bias], node.output, {}, { name: node.name }),
  ];
}

/** Cuts `border` (left, top, right, bottom) off an image, or takes `scale` (height, width) from its left top corner. */
export function upgradeCrop(node: NodeProto, upgrade: Upgrade): NodeProto[] {
  const [left = 0, top = 0, right = 0, bottom = 0] = intsAttribute(node, "border") ?? [];
  const scale = intsAttribute(node, "scale");
  const whole = Number.MAX_SAFE_INTEGER;
  const ends = scale
    ? [top + (scale[0] ?? 0), left + (scale[1] ?? 0)]
    : [bottom === 0 ? whole : -bottom, right === 0 ? whole : -right];
  return [
    makeNode(
      "Slice",
      [
        node.input[0]!,
        addConstant(upgrade, node, "starts", [top, left]),
        addConstant(upgrade, node, "ends", ends),
        addConstant(upgrade, node, "axes", [2, 3]),
      ],
      node.output,
      {},
      { name: node.name },
    ),
  ];
}
