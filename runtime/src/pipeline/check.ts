import { type Head, type Manifest, type ModelInput, type PipelineNode } from "@fieldloop/protocol";
import { handedOn, invalid, orderNodes, pipelineParts } from "./graph.js";

type CropSource = Extract<PipelineNode["from"], { kind: "crop" }>;

/**
 * Holds the nodes of a manifest against each other: names, order, and that everything a node speaks of is there and of the right
 * kind. Tensor names are held against the graphs when they are opened.
 * @throws FieldloopError `manifest_invalid` naming the node
 */
export function checkPipeline(manifest: Manifest): void {
  const parts = pipelineParts(manifest);
  const heads = new Map<string, readonly Head[]>();
  for (const part of parts) {
    if (heads.has(part.name)) throw invalid(part.name, "there are two of this name");
    heads.set(part.name, part.heads);
    refuseRepeated(part.name, "input", part.inputs);
    refuseRepeated(part.name, "head", part.heads);
    refuseRepeated(part.name, "variant", part.variants);
  }
  orderNodes(manifest.nodes);
  for (const { name, node } of manifest.golden) {
    if (node !== undefined && !heads.has(node))
      throw invalid(node, `golden case "${name}" is of it, and it is not there`);
  }
  if (manifest.nodes.length === 0) return;
  for (const node of manifest.nodes) {
    checkSource(node, manifest, heads);
    checkCondition(node, heads);
  }
  for (const { name, heads: own } of parts) {
    if (own.length > 0 || handedOn(manifest, name).length > 0) continue;
    throw invalid(name, "it has no heads, and no other node takes anything of it");
  }
}

function checkSource(
  node: PipelineNode,
  manifest: Manifest,
  heads: ReadonlyMap<string, readonly Head[]>,
): void {
  switch (node.from.kind) {
    case "frame":
      return checkFrameInput(node, manifest.inputs);
    case "tensors":
      return checkTensors(node, node.from.tensors);
    case "crop":
      return checkCrop(node, node.from, heads.get(node.from.node)!);
  }
}

/** The inputs that a frame fills: not what a model remembers, nor what is the same in every run. */
function framed(inputs: readonly ModelInput[]): ModelInput[] {
  return inputs.filter(({ kind }) => kind !== "state" && kind !== "constant");
}

function checkFrameInput(node: PipelineNode, rootInputs: readonly ModelInput[]): void {
  const own = framed(node.inputs)[0];
  const root = framed(rootInputs)[0];
  if (own === undefined || root === undefined || own.kind !== root.kind) {
    throw invalid(
      node.name,
      `it takes the frame as "${own?.kind ?? "nothing"}", the root as "${root?.kind ?? "nothing"}"`,
    );
  }
  if (own.kind !== "window" || root.kind !== "window") return;
  for (const field of ["length", "channels", "sampleRateHz"] as const) {
    if (own[field] === root[field]) continue;
    throw invalid(
      node.name,
      `its window has ${field} ${own[field]}, that of the root ${root[field]}; a longer look back is its "context"`,
    );
  }
}

function checkTensors(node: PipelineNode, tensors: Readonly<Record<string, string>>): void {
  const inputs = new Map(node.inputs.map((input) => [input.name, input.kind]));
  for (const name of Object.keys(tensors)) {
    const kind = inputs.get(name);
    if (kind === undefined) throw invalid(node.name, `it is fed input "${name}", which it does not have`);
    if (kind === "constant" || kind === "state")
      throw invalid(node.name, `it is fed input "${name}", which is of kind "${kind}"`);
  }
  const unfed = framed(node.inputs).find(({ name }) => !Object.hasOwn(tensors, name));
  if (unfed !== undefined) throw invalid(node.name, `nothing feeds its input "${unfed.name}"`);
  if (Object.keys(tensors).length === 0) throw invalid(node.name, "it takes no tensor");
}

function checkCrop(node: PipelineNode, from: CropSource, heads: readonly Head[]): void {
  const head = heads.find(({ name }) => name === from.head);
  if (head === undefined) throw invalid(node.name, `node "${from.node}" has no head "${from.head}"`);
  if (head.kind !== "detection") {
    throw invalid(node.name, `head "${from.head}" is of kind "${head.kind}", crops want "detection"`);
  }
  refuseUnknownLabels(node, head, from.labels);
  if (node.inputs.some(({ kind }) => kind === "state"))
    throw invalid(node.name, "it carries state, and boxes of two frames are no stream");
  const inputs = framed(node.inputs);
  if (inputs.length === 1 && inputs[0]!.kind === "image") return;
  const kinds = inputs.map(({ kind }) => `"${kind}"`).join(", ");
  throw invalid(node.name, `it takes crops with inputs of kind ${kinds}, wanted one "image"`);
}

function checkCondition(node: PipelineNode, heads: ReadonlyMap<string, readonly Head[]>): void {
  const { when } = node;
  if (when === undefined) return;
  const head = heads.get(when.node)?.find(({ name }) => name === when.head);
  if (head === undefined)
    throw invalid(node.name, `its condition asks head "${when.head}" of node "${when.node}", there is none`);
  refuseUnknownLabels(node, head, when.labels);
}

function refuseUnknownLabels(node: PipelineNode, head: Head, labels: readonly string[] | undefined): void {
  const known = decidedLabels(head);
  if (known === undefined) {
    throw invalid(node.name, `head "${head.name}" of kind "${head.kind}" decides nothing to ask for`);
  }
  const unknown = labels?.find((label) => !known.includes(label));
  if (unknown !== undefined) throw invalid(node.name, `head "${head.name}" has no label "${unknown}"`);
}

function decidedLabels(head: Head): readonly string[] | undefined {
  switch (head.kind) {
    case "classification":
    case "detection":
    case "segmentation":
    case "anomaly":
      return head.labels;
    case "keypoints":
    case "regression":
    case "embedding":
    case "image":
      return undefined;
  }
}

function refuseRepeated(node: string, what: string, entries: readonly { name: string }[]): void {
  const seen = new Set<string>();
  for (const { name } of entries) {
    if (seen.has(name)) throw invalid(node, `${what} "${name}" occurs twice`);
    seen.add(name);
  }
}
