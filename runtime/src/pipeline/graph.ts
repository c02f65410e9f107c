import {
  FieldloopError,
  ROOT_NODE,
  type Head,
  type Manifest,
  type ModelInput,
  type PipelineNode,
  type Variant,
} from "@fieldloop/protocol";
import { headOutputs } from "../heads/read.js";

/** What the root and every further node of a package have alike. */
export interface PipelinePart {
  readonly name: string;
  readonly model: string;
  readonly version: number;
  readonly inputs: ModelInput[];
  readonly heads: Head[];
  readonly variants: Variant[];
}

type Graph = Pick<
  Manifest,
  "model" | "version" | "root" | "inputs" | "heads" | "variants" | "nodes" | "golden"
>;

/** The root and the nodes, in the manifest's order; a plain model is its root alone. */
export function pipelineParts(manifest: Graph): PipelinePart[] {
  const { inputs, heads, variants } = manifest;
  const { model, version } = manifest.root ?? manifest;
  return [{ name: ROOT_NODE, model, version, inputs, heads, variants }, ...manifest.nodes];
}

/** The outputs of a part's graph that someone reads: its own heads first, then the nodes that take tensors of it. */
export function wantedOutputs(manifest: Pick<Manifest, "heads" | "nodes">, part: string): string[] {
  const heads =
    part === ROOT_NODE ? manifest.heads : (manifest.nodes.find(({ name }) => name === part)?.heads ?? []);
  return [...new Set([...headOutputs(heads), ...handedOn(manifest, part)])];
}

/** The outputs of a part's graph that other nodes take. */
export function handedOn(manifest: Pick<Manifest, "nodes">, part: string): string[] {
  const names = manifest.nodes.flatMap(({ from }) =>
    from.kind === "tensors" && from.node === part ? Object.values(from.tensors) : [],
  );
  return [...new Set(names)];
}

/** The nodes whose results a node needs before it can run. */
function needs(node: PipelineNode): string[] {
  const names = [node.from.kind === "frame" ? undefined : node.from.node, node.when?.node];
  return names.filter((name) => name !== undefined && name !== ROOT_NODE) as string[];
}

/**
 * The nodes so that each comes after those it needs; where several could be next, the manifest's order decides (Kahn 1962).
 * @throws FieldloopError `manifest_invalid` naming a node that needs an unknown one, or the nodes of a cycle
 */
export function orderNodes(nodes: readonly PipelineNode[]): PipelineNode[] {
  const known = new Set(nodes.map(({ name }) => name));
  for (const node of nodes) {
    const unknown = needs(node).find((name) => !known.has(name));
    if (unknown !== undefined) throw invalid(node.name, `it needs node "${unknown}", which is not there`);
  }
  const ordered: PipelineNode[] = [];
  const done = new Set<string>();
  let waiting = [...nodes];
  while (waiting.length > 0) {
    const next = waiting.find((node) => needs(node).every((name) => done.has(name)));
    if (next === undefined) throw cycleAmong(waiting);
    ordered.push(next);
    done.add(next.name);
    waiting = waiting.filter((node) => node !== next);
  }
  return ordered;
}

/** Follows needs until a name comes again: what lies between is a cycle, not merely something behind one. */
function cycleAmong(stuck: readonly PipelineNode[]): FieldloopError {
  const byName = new Map(stuck.map((node) => [node.name, node]));
  const path: string[] = [];
  let at = stuck[0]!.name;
  while (!path.includes(at)) {
    path.push(at);
    at = needs(byName.get(at)!).find((name) => byName.has(name))!;
  }
  const cycle = [...path.slice(path.indexOf(at)), at];
  return invalid(at, `it needs itself: ${cycle.map((name) => `"${name}"`).join(" → ")}`);
}

/** A manifest that contradicts itself about a node. */
export function invalid(node: string, what: string): FieldloopError {
  return new FieldloopError("manifest_invalid", `Read pipeline: node "${node}": ${what}`);
}
