import { create } from "@bufbuild/protobuf";
import type { Backend, ElementType, Session, Tensor } from "../backend.js";
import { ValueInfoProtoSchema } from "../onnx/generated/onnx_pb.js";
import { pruneDead } from "../onnx/graph.js";
import { decodeModel, encodeModel, graphOf } from "../onnx/model.js";
import { QUANTIZE_LIMITS } from "./limits.js";

/** A copy of a model that also gives the named tensors as outputs; their types are left for the backend to infer. */
export function exposeTensors(bytes: Uint8Array, names: Iterable<string>): Uint8Array {
  const model = decodeModel(bytes);
  const graph = graphOf(model);
  const present = new Set([...graph.output, ...graph.input].map((entry) => entry.name));
  for (const name of names) if (!present.has(name)) graph.output.push(create(ValueInfoProtoSchema, { name }));
  return encodeModel(model);
}

/** A copy of a model that gives the named tensors and computes nothing that they do not need. */
function onlyTensors(bytes: Uint8Array, names: readonly string[]): Uint8Array {
  const model = decodeModel(bytes);
  const graph = graphOf(model);
  const inputs = new Set(graph.input.map((input) => input.name));
  const known = new Map(graph.output.map((output) => [output.name, output]));
  const outputs = names
    .filter((name) => !inputs.has(name))
    .map((name) => known.get(name) ?? create(ValueInfoProtoSchema, { name }));
  // A model needs at least one output, even when only inputs are observed.
  if (outputs.length > 0) graph.output = outputs;
  pruneDead(graph);
  return encodeModel(model);
}

/** Element types and dimensions (-1 or a name where open) of graph inputs and of everything that top-level nodes write. */
export async function inferTypes(
  backend: Backend,
  bytes: Uint8Array,
): Promise<Map<string, { readonly type: ElementType; readonly dims: readonly (number | string)[] }>> {
  const graph = graphOf(decodeModel(bytes));
  const written = graph.node.flatMap((node) => node.output).filter((name) => name !== "");
  const session = await backend.openSession(exposeTensors(bytes, written), {
    threadCount: 1,
    executionProvider: "cpu",
    // A folded or fused tensor could not be asked for its type.
    graphOptimization: "disabled",
  });
  const omitted = new Set(session.omitted);
  const infos = [...session.inputs, ...session.outputs].filter((info) => !omitted.has(info.name));
  await session.release();
  return new Map(infos.map(({ name, type, dims }) => [name, { type, dims }]));
}

/** Splits names into groups whose sizes add up to at most `bytesMax` each, where a single tensor is not larger itself. */
export function groupBySize(
  names: readonly string[],
  sizeOf: (name: string) => number,
  bytesMax: number = QUANTIZE_LIMITS.activationBytesMax,
): string[][] {
  const groups: string[][] = [[]];
  let held = 0;
  for (const name of names) {
    const size = sizeOf(name);
    if (held > 0 && held + size > bytesMax && groups.length < QUANTIZE_LIMITS.activationGroupsMax) {
      groups.push([]);
      held = 0;
    }
    groups[groups.length - 1]!.push(name);
    held += size;
  }
  return groups;
}

/** Bytes of a tensor by its inferred dimensions, an open one counted as 1. */
export function inferredBytes(info: { readonly dims: readonly (number | string)[] } | undefined): number {
  const sizes = (info?.dims ?? []).map((dim) => (typeof dim === "number" && dim > 0 ? dim : 1));
  return sizes.reduce((product, size) => product * size, 4);
}

/** Sessions of one model that each give some of the named tensors. */
export class GroupedSession {
  readonly #groups: readonly { readonly session: Session; readonly names: readonly string[] }[];

  private constructor(groups: readonly { readonly session: Session; readonly names: readonly string[] }[]) {
    this.#groups = groups;
  }

  static async open(
    bytes: Uint8Array,
    groups: readonly (readonly string[])[],
    open: (bytes: Uint8Array) => Promise<Session>,
  ): Promise<GroupedSession> {
    const opened: { session: Session; names: readonly string[] }[] = [];
    try {
      for (const names of groups) opened.push({ session: await open(onlyTensors(bytes, names)), names });
    } catch (error) {
      for (const { session } of opened) await session.release();
      throw error;
    }
    return new GroupedSession(opened);
  }

  get groupCount(): number {
    return this.#groups.length;
  }

  /** The tensors of one group. A graph input comes back as it was fed. */
  async run(index: number, feeds: Readonly<Record<string, Tensor>>): Promise<Record<string, Tensor>> {
    const { session, names } = this.#groups[index]!;
    const inputs = new Set(session.inputs.map((input) => input.name));
    const fetches = names.filter((name) => !inputs.has(name));
    const results = fetches.length === 0 ? {} : await session.run(feeds, fetches);
    for (const name of names) if (inputs.has(name)) results[name] = feeds[name]!;
    return results;
  }

  async release(): Promise<void> {
    for (const { session } of this.#groups) await session.release();
  }
}
