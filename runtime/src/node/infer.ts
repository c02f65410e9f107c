import { create } from "@bufbuild/protobuf";
import { FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import type { Tensor, TensorInfo } from "../backend.js";
import { ValueInfoProtoSchema, type ModelProto } from "../onnx/generated/onnx_pb.js";
import { decodeModel, encodeModel, graphOf } from "../onnx/model.js";
import { newElements } from "../package/tensor-bytes.js";
import { withTrial, type TrialOptions, type TrialProcess } from "./trial.js";
import type { TensorSummary } from "./trial-messages.js";

type InferOptions = Pick<TrialOptions, "timeoutMs" | "rssBytesMax">;
type Feeds = Readonly<Record<string, Tensor>>;

/**
 * Type and shape of every tensor that the main graph's nodes write, as the engine infers them; symbolic dimensions keep
 * their names. The engine says nothing of ranks behind an If: with `feeds`, a run fills them in, with open sizes.
 * Opens the model in a process of its own.
 * @throws FieldloopError what `tryModel` throws
 */
export async function inferTensors(
  bytes: Uint8Array,
  options: InferOptions & { readonly feeds?: Feeds } = {},
): Promise<Map<string, TensorInfo>> {
  const { inputs, outputs, omitted, summaries } = await withTrial(options, (trial) =>
    trial.run(exposeAll(bytes), {
      graphOptimization: "disabled",
      blame: false,
      values: false,
      ...(options.feeds === undefined ? {} : { feeds: options.feeds }),
    }),
  );
  const known = new Map<string, TensorInfo>();
  for (const info of [...inputs, ...outputs]) {
    if (omitted.includes(info.name)) continue;
    const seen = summaries[info.name]?.dims ?? [];
    known.set(
      info.name,
      info.dims.length === 0 && seen.length > 0 ? { ...info, dims: seen.map(() => -1) } : info,
    );
  }
  return known;
}

/** What one run of a model showed of every tensor. */
export interface TensorProfile {
  readonly tensors: ReadonlyMap<string, TensorSummary>;
  /** Of the graph as it is, without optimization. */
  readonly runMs: number;
}

/**
 * Runs a model once with every tensor as an output, in a process of its own: exact shapes, and where values stop being
 * finite. @throws FieldloopError what `tryModel` throws
 */
export async function profileTensors(
  bytes: Uint8Array,
  feeds: Feeds,
  options: InferOptions = {},
): Promise<TensorProfile> {
  return withTrial(options, (trial) => profileIn(trial, bytes, feeds));
}

/** {@link profileTensors} in a process that is there already. */
export async function profileIn(
  trial: TrialProcess,
  bytes: Uint8Array,
  feeds: Feeds,
): Promise<TensorProfile> {
  const result = await trial.run(exposeAll(bytes), { feeds, values: false, graphOptimization: "disabled" });
  const tensors = new Map(Object.entries(result.summaries));
  for (const [name, { type, dims }] of Object.entries(feeds)) tensors.set(name, { type, dims, notFinite: 0 });
  return { tensors, runMs: result.runMs ?? 0 };
}

/** Zeros (`float` values from `fill`) for inputs as a file states them; open dimensions become 1 or what `dims` says. */
export function feedsFor(
  inputs: readonly TensorInfo[],
  dims: Readonly<Record<string, number>> = {},
  fill: (at: number) => number = () => 0,
): Record<string, Tensor> {
  return Object.fromEntries(
    inputs.map((info) => {
      const sizes = info.dims.map((size) =>
        typeof size === "string" ? (dims[size] ?? 1) : Math.max(size, 1),
      );
      const count = sizes.reduce((product, size) => product * size, 1);
      return [info.name, feedOf(info, sizes, count, fill)];
    }),
  );
}

function feedOf(info: TensorInfo, dims: number[], count: number, fill: (at: number) => number): Tensor {
  if (count > 2 ** 28) {
    throw new FieldloopError(
      "onnx_too_large",
      `Feed model: input "${info.name}" has ${count} elements, at most ${2 ** 28} allowed`,
    );
  }
  if (info.type === "string") return { type: "string", dims, data: new Array<string>(count).fill("") };
  if (info.type === "float32") {
    return { type: info.type, dims, data: Float32Array.from({ length: count }, (_, at) => fill(at)) };
  }
  return { type: info.type, dims, data: newElements(info.type, count) };
}

function exposeAll(bytes: Uint8Array): Uint8Array {
  const model: ModelProto = decodeModel(bytes);
  const graph = graphOf(model);
  const outputs = new Set(graph.output.map((output) => output.name));
  for (const node of graph.node) {
    for (const name of node.output) {
      if (name === "" || outputs.has(name)) continue;
      outputs.add(name);
      graph.output.push(create(ValueInfoProtoSchema, { name }));
    }
  }
  return encodeModel(model);
}

/** Whether an execution provider of this machine opens and runs a model. */
export interface ProviderAbility {
  readonly executionProvider: string;
  /** Why not; `undefined` where it does. */
  readonly reason: string | undefined;
  /** Share of the nodes that each provider ran, 0..1: what one does not know falls to the CPU. */
  readonly shares: Readonly<Record<string, number>> | undefined;
}

/** Tries each provider, one after the other, in a process of its own. Correct results and speed are the probe's business. */
export async function ableProviders(
  bytes: Uint8Array,
  feeds: Feeds,
  executionProviders: readonly string[],
  options: InferOptions = {},
): Promise<ProviderAbility[]> {
  const abilities: ProviderAbility[] = [];
  for (const executionProvider of executionProviders) {
    try {
      const { providerShares: shares } = await withTrial(options, (trial) =>
        trial.run(bytes, { executionProvider, feeds, values: false, shares: true, blame: false }),
      );
      abilities.push({ executionProvider, reason: undefined, shares });
    } catch (error) {
      abilities.push({ executionProvider, reason: toFieldloopError(error).message, shares: undefined });
    }
  }
  return abilities;
}
