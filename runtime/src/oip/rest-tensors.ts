import { FieldloopError } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import { encodedFromJson, encodedFromRaw, encodedTypeOf } from "./encoded.js";
import { OIP_LIMITS } from "./limits.js";
import { RawReader, type JsonTensor } from "./rest-messages.js";
import type { OipEncodedInput } from "./service.js";
import {
  datatypeOf,
  elementTypeOfDatatype,
  parseShape,
  tensorFromJsonData,
  tensorFromRaw,
  tensorToJsonData,
  tensorToRaw,
} from "./tensors.js";

/**
 * Tensors of a request or answer, from its JSON part and the raw bytes after it.
 * @param encoded takes the inputs that are files, where those are allowed
 * @throws FieldloopError `tensor_invalid`, `invalid_body`, `limit_exceeded`
 */
export function readTensors(
  tensors: readonly JsonTensor[],
  raw: Uint8Array,
  encoded?: Map<string, OipEncodedInput>,
): Map<string, Tensor> {
  const reader = new RawReader(raw);
  const read = new Map<string, Tensor>();
  for (const { name, datatype, shape, parameters, data } of tensors) {
    if (read.has(name) || encoded?.has(name) === true)
      throw new FieldloopError("tensor_invalid", `Read tensors: "${name}" is given twice`);
    const type = elementTypeOfDatatype(datatype);
    const dims = parseShape(shape);
    const size = parameters?.["binary_data_size"];
    if (size !== undefined && Array.isArray(data) && data.length > 0)
      throw new FieldloopError("tensor_invalid", `Read tensors: "${name}" has data beside binary_data_size`);
    const contentType = encoded && encodedTypeOf(type, parameters?.["content_type"]);
    if (contentType !== undefined) {
      const bytes =
        size === undefined ? encodedFromJson(dims, data) : encodedFromRaw(dims, reader.take(size, name));
      encoded?.set(name, { contentType, bytes });
      continue;
    }
    read.set(
      name,
      size === undefined
        ? tensorFromJsonData(type, dims, data)
        : tensorFromRaw(type, dims, reader.take(size, name)),
    );
  }
  reader.end();
  return read;
}

/** A tensor as its JSON entry, and the raw bytes that follow the JSON where it has them. */
export interface WrittenTensor {
  readonly json: Record<string, unknown>;
  readonly raw: Uint8Array | undefined;
}

/**
 * @param form `json` for what has a JSON form, else raw; `only-json` never raw
 * @throws FieldloopError `tensor_invalid` where JSON alone was wanted and can't carry the values
 */
export function writeTensor(name: string, tensor: Tensor, form: "raw" | "json" | "only-json"): WrittenTensor {
  const head = { name, datatype: datatypeOf(tensor.type), shape: tensor.dims };
  if (form === "only-json" && tensor.data.length > OIP_LIMITS.jsonElementsMax) {
    throw new FieldloopError(
      "limit_exceeded",
      `Write tensor "${name}": ${tensor.data.length} elements in JSON, at most ${OIP_LIMITS.jsonElementsMax}; ask for binary data`,
    );
  }
  const data = form === "raw" ? undefined : tensorToJsonData(tensor);
  if (data !== undefined) return { json: { ...head, data }, raw: undefined };
  if (form === "only-json") {
    throw new FieldloopError(
      "tensor_invalid",
      `Write tensor "${name}": its ${head.datatype} values have no exact JSON form, ask for binary data`,
    );
  }
  const raw = tensorToRaw(tensor);
  return { json: { ...head, parameters: { binary_data_size: raw.length } }, raw };
}
