import { FieldloopError } from "@fieldloop/protocol";
import type { GraphProto, NodeProto, TensorProto } from "./generated/onnx_pb.js";
import { float32Tensor, int64Tensor } from "./tensor.js";

/** One graph on its way from one operator set to another. */
export interface Upgrade {
  readonly graph: GraphProto;
  readonly from: number;
  readonly to: number;
  readonly taken: Set<string>;
  readonly readNames: ReadonlySet<string>;
}

/** What a node becomes; the last of the list keeps its name and outputs. */
export type Adapter = (node: NodeProto, upgrade: Upgrade) => NodeProto[];

export function addConstant(
  upgrade: Upgrade,
  node: NodeProto,
  label: string,
  values: readonly number[],
): string {
  return addTensor(upgrade, node, label, (name) => int64Tensor(name, [values.length], values));
}

export function addFloat(upgrade: Upgrade, node: NodeProto, label: string, value: number): string {
  return addTensor(upgrade, node, label, (name) => float32Tensor(name, [], [value]));
}

export function addTensor(
  upgrade: Upgrade,
  node: NodeProto,
  label: string,
  make: (name: string) => TensorProto,
): string {
  const tensor = make(uniqueName(upgrade, `${node.output[0]!}/${label}`));
  upgrade.graph.initializer.push(tensor);
  return tensor.name;
}

export function uniqueName(upgrade: Upgrade, stem: string): string {
  let name = stem;
  for (let count = 1; upgrade.taken.has(name); count++) name = `${stem}_${count}`;
  upgrade.taken.add(name);
  return name;
}

export function dropAttributes(node: NodeProto, names: readonly string[]): void {
  node.attribute = node.attribute.filter((entry) => !names.includes(entry.name));
}

export function trimInputs(node: NodeProto): void {
  while (node.input.length > 0 && node.input[node.input.length - 1] === "") node.input.pop();
}

export function unsupported(target: number, what: string): FieldloopError {
  return new FieldloopError("onnx_unsupported", `Upgrade ONNX to operator set ${target}: ${what}`);
}
