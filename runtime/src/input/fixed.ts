import { FieldloopError, type ConstantInput, type StateInput } from "@fieldloop/protocol";
import type { ElementType, Tensor } from "../backend.js";
import { numberToHalf } from "../package/tensor-bytes.js";
import { zeroTensor } from "./elements.js";

/** Zeros in the shape of a state input, the state at the start of a stream. A dynamic dimension is 1. */
export function zeroState(input: StateInput): Tensor {
  if (input.elementType === "string") {
    throw new FieldloopError("manifest_invalid", `Prepare state "${input.name}": text is no state`);
  }
  return zeroTensor(input.name, input.elementType, input.dims);
}

/**
 * The tensor of a constant input; a scalar has no dims, and one value fills any dims.
 * @throws FieldloopError `manifest_invalid` where the values do not fit the type or the dims
 */
export function constantTensor(input: ConstantInput): Tensor {
  const { name, elementType, values } = input;
  // Text takes the type of its size only.
  const { dims, data } = zeroTensor(name, elementType === "string" ? "uint8" : elementType, input.dims);
  const count = data.length;
  if (values.length !== count && values.length !== 1) {
    throw new FieldloopError(
      "manifest_invalid",
      `Prepare constant "${name}": ${values.length} values, dims [${input.dims.join(", ")}] want ${count}, or one for all`,
    );
  }
  const at = (index: number) => values[values.length === 1 ? 0 : index]!;
  if (elementType === "string") {
    return {
      type: "string",
      dims,
      data: Array.from({ length: count }, (_, index) => textOf(name, at(index))),
    };
  }
  for (let index = 0; index < count; index++) {
    const value = numberOf(name, elementType, at(index));
    if (data instanceof BigInt64Array || data instanceof BigUint64Array) data[index] = BigInt(value);
    else if (!Array.isArray(data)) data[index] = elementType === "float16" ? numberToHalf(value) : value;
    const isExact = Number(data[index]) === value;
    if (isExact || elementType === "float32" || elementType === "float16") continue;
    throw new FieldloopError(
      "manifest_invalid",
      `Prepare constant "${name}": ${elementType} cannot hold ${value}`,
    );
  }
  return { type: elementType, dims, data };
}

function textOf(name: string, value: number | boolean | string): string {
  if (typeof value === "string") return value;
  throw new FieldloopError(
    "manifest_invalid",
    `Prepare constant "${name}": ${String(value)} in a tensor of text, wanted text`,
  );
}

function numberOf(name: string, type: ElementType, value: number | boolean | string): number {
  const number = type === "bool" || typeof value !== "boolean" ? value : Number.NaN;
  if (typeof number === "string" || !Number.isFinite(Number(number))) {
    throw new FieldloopError(
      "manifest_invalid",
      `Prepare constant "${name}": ${JSON.stringify(value)} in a tensor of ${type}, wanted ${type === "bool" ? "true or false" : "a number"}`,
    );
  }
  const real = Number(number);
  if ((type === "bool" && real !== 0 && real !== 1) || (isWhole(type) && !Number.isInteger(real))) {
    throw new FieldloopError("manifest_invalid", `Prepare constant "${name}": ${type} cannot hold ${real}`);
  }
  return real;
}

function isWhole(type: ElementType): boolean {
  return type.includes("int");
}
