import { FieldloopError } from "@fieldloop/protocol";
import type { Frame, RowValue } from "@fieldloop/runtime";
import { z } from "zod";
import { AGENT_LIMITS } from "./limits.js";

const IMAGE_TYPES = ["image/jpeg", "image/png", "image/webp"];
/** A window as raw float32 little-endian samples. */
const WINDOW_TYPES = ["application/x-fieldloop-window", "application/octet-stream"];
/** A row of a table: an object of column names and values. */
const ROW_TYPE = "application/json";

const rowSchema = z
  .record(z.string().max(256), z.union([z.number(), z.string().max(4096), z.boolean(), z.null()]))
  .refine((row) => Object.keys(row).length <= AGENT_LIMITS.rowColumnsMax);

/**
 * The frame that a program pushed: an image as it is, a window as float32 little-endian samples, a row as a JSON object.
 * @param contentType of the body, with or without parameters
 * @param body owned by the caller, and not copied where that can be helped
 * @throws FieldloopError `unsupported_media_type`, `window_invalid`, `row_malformed`
 */
export function pushedFrame(contentType: string, body: Uint8Array): Frame {
  const type = contentType.split(";")[0]!.trim().toLowerCase();
  if (IMAGE_TYPES.includes(type)) return { kind: "encoded", bytes: body };
  if (WINDOW_TYPES.includes(type)) return { kind: "window", samples: samplesOf(body) };
  if (type === ROW_TYPE) return { kind: "row", values: rowOf(body) };
  throw new FieldloopError(
    "unsupported_media_type",
    `Push frame: "${type.slice(0, 80)}", wanted ${[...IMAGE_TYPES, ...WINDOW_TYPES, ROW_TYPE].join(", ")}`,
  );
}

function samplesOf(body: Uint8Array): Float32Array {
  if (body.length === 0 || body.length % 4 !== 0) {
    throw new FieldloopError("window_invalid", `Push frame: ${body.length} bytes are no float32 samples`);
  }
  // A view wants its offset to be a multiple of four.
  const samples = new Float32Array(body.slice().buffer);
  if (!samples.every((value) => Number.isFinite(value))) {
    throw new FieldloopError("window_invalid", "Push frame: a sample that is not a finite number");
  }
  return samples;
}

function rowOf(body: Uint8Array): Record<string, RowValue> {
  if (body.length > AGENT_LIMITS.rowLineBytesMax) {
    throw new FieldloopError(
      "limit_exceeded",
      `Push frame: a row of ${body.length} bytes, at most ${AGENT_LIMITS.rowLineBytesMax}`,
    );
  }
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch (cause) {
    throw new FieldloopError("row_malformed", "Push frame: the row is no JSON text in UTF-8", { cause });
  }
  const parsed = rowSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new FieldloopError(
    "row_malformed",
    `Push frame: a row is an object of at most ${AGENT_LIMITS.rowColumnsMax} numbers, texts, truth values or nulls by column`,
  );
}
