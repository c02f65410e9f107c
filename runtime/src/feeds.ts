import { FieldloopError } from "@fieldloop/protocol";
import type { Tensor, TensorInfo } from "./backend.js";
import { ARRAY_OF, newElements } from "./package/tensor-bytes.js";

/**
 * Holds feeds against a session's signature before anything native sees them, so that every backend refuses alike.
 * @throws FieldloopError `tensor_invalid` naming the input, what it is and what was wanted
 */
export function checkFeeds(inputs: readonly TensorInfo[], feeds: Readonly<Record<string, Tensor>>): void {
  for (const info of inputs) {
    if (!Object.hasOwn(feeds, info.name)) {
      throw refuse(`input "${info.name}" is missing, given are ${listed(Object.keys(feeds))}`);
    }
    checkTensor(info, feeds[info.name]!);
  }
  for (const name in feeds) {
    if (inputs.some((info) => info.name === name)) continue;
    throw refuse(`there is no input "${name}", the model has ${listed(inputs.map((info) => info.name))}`);
  }
}

/**
 * One tensor against what a model wants of it.
 * @throws FieldloopError `tensor_invalid`
 */
export function checkTensor(info: TensorInfo, tensor: Tensor): void {
  const { name, type } = info;
  const { dims, data } = tensor;
  if (tensor.type !== type) throw refuse(`input "${name}" is ${tensor.type}, wanted ${type}`);
  const right = type === "string" ? Array.isArray(data) : data instanceof ARRAY_OF[type];
  if (!right) throw refuse(`the data of input "${name}" is not what carries ${type}`);
  let count = 1;
  for (const dim of dims) {
    if (!Number.isSafeInteger(dim) || dim < 0) throw refuse(`input "${name}" has dimension ${String(dim)}`);
    count *= dim;
  }
  if (count !== data.length) {
    throw refuse(`input "${name}" of [${dims.join(", ")}] wants ${count} elements, it has ${data.length}`);
  }
  // A rank that the graph leaves open comes as no dimensions at all, which is also what a scalar has.
  if (info.dims.length === 0) return;
  const fits =
    dims.length === info.dims.length &&
    info.dims.every((wanted, at) => typeof wanted === "string" || wanted < 0 || wanted === dims[at]);
  if (fits) return;
  throw refuse(`input "${name}" is [${dims.join(", ")}], wanted [${info.dims.join(", ")}]`);
}

/**
 * Outputs to compute: the ones asked for, or all.
 * @throws FieldloopError `tensor_invalid` for a name that is no output, or an empty list
 */
export function checkFetches(
  outputs: readonly TensorInfo[],
  fetches: readonly string[] | undefined,
): readonly string[] {
  if (fetches === undefined) return outputs.map((info) => info.name);
  if (fetches.length === 0) throw refuse("no output is asked for");
  for (const name of fetches) {
    if (outputs.some((info) => info.name === name)) continue;
    throw refuse(`there is no output "${name}", the model has ${listed(outputs.map((info) => info.name))}`);
  }
  return fetches;
}

/**
 * Zeros for a signature, each open dimension as 1: enough to run most graphs once.
 */
export function placeholderFeeds(inputs: readonly TensorInfo[]): Record<string, Tensor> {
  const feeds: Record<string, Tensor> = {};
  for (const { name, type, dims } of inputs) {
    const sizes = dims.map((dim) => (typeof dim === "number" && dim >= 0 ? dim : 1));
    const count = sizes.reduce((product, dim) => product * dim, 1);
    feeds[name] = {
      type,
      dims: sizes,
      data: type === "string" ? new Array<string>(count).fill("") : newElements(type, count),
    };
  }
  return feeds;
}

function refuse(what: string): FieldloopError {
  return new FieldloopError("tensor_invalid", `Run model: ${what}`);
}

function listed(names: readonly string[]): string {
  return names.length === 0 ? "none" : names.map((name) => `"${name}"`).join(", ");
}
