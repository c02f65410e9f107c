import { FieldloopError } from "@fieldloop/protocol";
import { z } from "zod";
import { OIP_LIMITS } from "./limits.js";

/** Schemas of the JSON that the REST form of the protocol carries, both ways. Unknown fields are ignored. */

/** Length of the JSON part of a body whose rest is raw tensors (binary tensor data extension). */
export const HEADER_LENGTH = "inference-header-content-length";

const nameSchema = z.string().min(1).max(OIP_LIMITS.nameLengthMax);
const parametersSchema = z.record(z.string(), z.unknown()).optional();
const shapeSchema = z.array(z.number()).max(OIP_LIMITS.rankMax);

const tensorSchema = z.object({
  name: nameSchema,
  shape: shapeSchema,
  datatype: z.string().max(16),
  parameters: parametersSchema,
  data: z.unknown().optional(),
});

export const inferRequestSchema = z.object({
  id: z.string().max(OIP_LIMITS.nameLengthMax).optional(),
  parameters: parametersSchema,
  inputs: z.array(tensorSchema).max(OIP_LIMITS.tensorsMax),
  outputs: z
    .array(z.object({ name: nameSchema, parameters: parametersSchema }))
    .max(OIP_LIMITS.tensorsMax)
    .optional(),
});

export const inferResponseSchema = z.object({
  model_name: z.string().max(OIP_LIMITS.nameLengthMax),
  model_version: z.string().max(OIP_LIMITS.nameLengthMax).optional(),
  outputs: z.array(tensorSchema).max(OIP_LIMITS.tensorsMax),
});

export const serverMetadataSchema = z.object({
  name: z.string().max(OIP_LIMITS.nameLengthMax),
  version: z.string().max(OIP_LIMITS.nameLengthMax).default(""),
  extensions: z.array(z.string()).max(256).default([]),
});

const tensorMetadataSchema = z.object({ name: nameSchema, datatype: z.string().max(16), shape: shapeSchema });
export const modelMetadataSchema = z.object({
  name: z.string().max(OIP_LIMITS.nameLengthMax),
  versions: z.array(z.string()).max(1000).default([]),
  platform: z.string().max(OIP_LIMITS.nameLengthMax).default(""),
  inputs: z.array(tensorMetadataSchema).max(OIP_LIMITS.tensorsMax),
  outputs: z.array(tensorMetadataSchema).max(OIP_LIMITS.tensorsMax),
});

export const errorSchema = z.object({ error: z.string(), code: z.string().optional() });

export type JsonTensor = z.output<typeof tensorSchema>;

/**
 * Parses one JSON text against a schema.
 * @throws FieldloopError `invalid_body`
 */
export function parseJsonBody<Schema extends z.ZodType>(
  schema: Schema,
  bytes: Uint8Array,
  what: string,
): z.output<Schema> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new FieldloopError("invalid_body", `Read ${what}: it is no JSON text in UTF-8`, { cause });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new FieldloopError(
    "invalid_body",
    `Read ${what}: ${issue?.path.join(".") || "the whole"}: ${issue?.message ?? "not as wanted"}`,
  );
}

/**
 * Splits a body into its JSON part and the raw tensors after it.
 * @param headerLength value of the header {@link HEADER_LENGTH}; undefined where all is JSON
 * @throws FieldloopError `invalid_body`, `limit_exceeded`
 */
export function splitBody(
  body: Uint8Array,
  headerLength: string | undefined,
): { json: Uint8Array; raw: Uint8Array } {
  if (headerLength === undefined) {
    if (body.length <= OIP_LIMITS.jsonBytesMax) return { json: body, raw: new Uint8Array() };
    throw new FieldloopError(
      "limit_exceeded",
      `Read tensors: ${body.length} bytes of JSON, at most ${OIP_LIMITS.jsonBytesMax}; send binary data`,
    );
  }
  const length = /^\d{1,10}$/.test(headerLength) ? Number(headerLength) : Number.NaN;
  if (!(length <= body.length)) {
    throw new FieldloopError(
      "invalid_body",
      `Read tensors: ${HEADER_LENGTH} is "${headerLength.slice(0, 32)}", the body has ${body.length} bytes`,
    );
  }
  if (length > OIP_LIMITS.headerBytesMax) {
    throw new FieldloopError(
      "limit_exceeded",
      `Read tensors: ${length} bytes of JSON before the raw data, at most ${OIP_LIMITS.headerBytesMax}`,
    );
  }
  return { json: body.subarray(0, length), raw: body.subarray(length) };
}

/** Hands out the raw bytes of one tensor after the other. */
export class RawReader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** @throws FieldloopError `invalid_body` */
  take(size: unknown, name: string): Uint8Array {
    const left = this.#bytes.length - this.#at;
    if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0 || size > left) {
      throw new FieldloopError(
        "invalid_body",
        `Read tensors: binary_data_size of "${name}" is ${String(size)}, ${left} bytes are left`,
      );
    }
    this.#at += size;
    return this.#bytes.subarray(this.#at - size, this.#at);
  }

  /** @throws FieldloopError `invalid_body` where bytes are left over */
  end(): void {
    if (this.#at === this.#bytes.length) return;
    throw new FieldloopError(
      "invalid_body",
      `Read tensors: ${this.#bytes.length - this.#at} bytes after the last tensor`,
    );
  }
}
