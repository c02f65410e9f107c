import { FieldloopError } from "@fieldloop/protocol";
import { parseRow, type Frame } from "@fieldloop/runtime";

const IMAGE_TYPES = ["image/jpeg", "image/png", "image/webp"];
/** A window as raw float32 little-endian samples. */
const WINDOW_TYPES = ["application/x-fieldloop-window", "application/octet-stream"];
/** A row of a table: an object of column names and values. */
const ROW_TYPE = "application/json";

/**
 * The frame that a program pushed: an image as it is, a window as float32 little-endian samples, a row as a JSON object.
 * @param contentType of the body, with or without parameters
 * @param body owned by the caller, and not copied where that can be helped
 * @throws FieldloopError `unsupported_media_type`, `window_invalid`, `row_malformed`
 */
export function pushedFrame(contentType: string, body: Uint8Array): Frame {
  const type = contentType.split(";")[0]!.trim().toLowerCase();
  if (IMAGE_TYPES.includes(type)) return { kind: "encoded", bytes: plain(body) };
  if (WINDOW_TYPES.includes(type)) return { kind: "window", samples: samplesOf(body) };
  if (type === ROW_TYPE) return parseRow(body);
  throw new FieldloopError(
    "unsupported_media_type",
    `Push frame: "${type.slice(0, 80)}", wanted ${[...IMAGE_TYPES, ...WINDOW_TYPES, ROW_TYPE].join(", ")}`,
  );
}

/** The same bytes as no `Buffer`, which a clone to another process or thread would not keep. */
function plain({ buffer, byteOffset, byteLength }: Uint8Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

function samplesOf(body: Uint8Array): Float32Array {
  if (body.length === 0 || body.length % 4 !== 0) {
    throw new FieldloopError("window_invalid", `Push frame: ${body.length} bytes are no float32 samples`);
  }
  // A view wants its offset to be a multiple of four, which that of a part of a larger buffer may not be.
  const samples = new Float32Array(new Uint8Array(body).buffer);
  if (!samples.every((value) => Number.isFinite(value))) {
    throw new FieldloopError("window_invalid", "Push frame: a sample that is not a finite number");
  }
  return samples;
}
