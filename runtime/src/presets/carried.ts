import { FieldloopError } from "@fieldloop/protocol";
import type { TensorInfo } from "../backend.js";
import { knownDims, type ModelSignature, type PresetOptions, type PresetResult } from "./preset.js";

type CarriedOptions = Pick<PresetOptions, "states" | "constants">;

/**
 * The signature as a preset is to see it: without the inputs that no frame feeds (recurrent state, constants), and without the outputs that
 * only carry state on.
 * @throws FieldloopError `invalid_argument` for a name that the file does not have
 */
export function withoutCarried(signature: ModelSignature, options: CarriedOptions): ModelSignature {
  const { states = {}, constants = {} } = options;
  const inputs = new Set([...Object.keys(states), ...Object.keys(constants)]);
  const outputs = new Set(Object.values(states));
  for (const name of inputs) find("input", name, signature.inputs);
  for (const [name, output] of Object.entries(states)) {
    const from = find("output", output, signature.outputs);
    const to = find("input", name, signature.inputs);
    if (from.type === to.type) continue;
    throw new FieldloopError(
      "invalid_argument",
      `Carry state "${name}": it is ${to.type}, output "${output}" is ${from.type}`,
    );
  }
  return {
    ...signature,
    inputs: signature.inputs.filter(({ name }) => !inputs.has(name)),
    outputs: signature.outputs.filter(({ name }) => !outputs.has(name)),
  };
}

/** What a preset made of the rest, with the carried inputs behind its own. */
export function withCarried(
  result: PresetResult,
  signature: ModelSignature,
  { states = {}, constants = {} }: CarriedOptions,
): PresetResult {
  const state = ([name, output]: readonly [string, string]): PresetResult["inputs"][number] => {
    const { type, ...info } = find("input", name, signature.inputs);
    return { kind: "state", name, output, elementType: type, dims: knownDims({ ...info, type }) };
  };
  const constant = ([name, value]: readonly [string, number]): PresetResult["inputs"][number] => {
    const info = find("input", name, signature.inputs);
    const dims = knownDims(info).map((size) => Math.max(size, 1));
    return { kind: "constant", name, elementType: info.type, dims, values: [constantOf(info, value)] };
  };
  const carried = [...Object.entries(states).map(state), ...Object.entries(constants).map(constant)];
  return { ...result, inputs: [...result.inputs, ...carried] };
}

function constantOf({ name, type }: TensorInfo, value: number): number | boolean {
  if (type === "bool") return value !== 0;
  const isWhole = !type.startsWith("float");
  if (type !== "string" && (!isWhole || Number.isInteger(value))) return value;
  throw new FieldloopError("invalid_argument", `Fill constant "${name}": ${value} is no ${type}`);
}

function find(what: "input" | "output", name: string, infos: readonly TensorInfo[]): TensorInfo {
  const info = infos.find((candidate) => candidate.name === name);
  if (info !== undefined) return info;
  const known = infos.map((candidate) => `"${candidate.name}"`).join(", ");
  throw new FieldloopError("invalid_argument", `Describe model: no ${what} "${name}", the file has ${known}`);
}
