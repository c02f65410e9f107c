import { FieldloopError } from "@fieldloop/protocol";
import { z } from "zod";

const MAGIC = "FLTRAIN1";
const PREFIX_BYTES = MAGIC.length + 8;

/** Everything that a run needs to go on as if it had never stopped, besides the model, the data and the settings. */
export interface Checkpoint {
  /** Steps done. */
  readonly step: number;
  /** Names the run that it belongs to: settings and parameter layout. */
  readonly fingerprint: string;
  /** Validation scores so far. */
  readonly validations: readonly { readonly step: number; readonly score: number }[];
  readonly losses: readonly number[];
  /** Flat arrays by name: parameters, optimizer moments, running average, best parameters. */
  readonly arrays: Readonly<Record<string, Float32Array>>;
}

const headerSchema = z.object({
  step: z.number().int().min(0),
  fingerprint: z.string(),
  validations: z.array(z.object({ step: z.number().int(), score: z.number() })),
  arrays: z.array(z.object({ name: z.string(), length: z.number().int().min(0) })).max(16),
  lossCount: z.number().int().min(0),
});

/** Bytes of a checkpoint: magic, header length, CRC-32 of the rest, JSON header, losses as float64, arrays as float32. */
export function encodeCheckpoint(checkpoint: Checkpoint): Uint8Array {
  const { arrays, losses, ...rest } = checkpoint;
  const list = Object.entries(arrays).map(([name, data]) => ({ name, length: data.length }));
  const header = { ...rest, arrays: list, lossCount: losses.length };
  const text = new TextEncoder().encode(JSON.stringify(header));
  const parts = [text, bytesOf(Float64Array.from(losses)), ...Object.values(arrays).map(bytesOf)];
  const bytes = new Uint8Array(PREFIX_BYTES + parts.reduce((sum, part) => sum + part.length, 0));
  let at = PREFIX_BYTES;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  bytes.set(new TextEncoder().encode(MAGIC));
  const view = new DataView(bytes.buffer);
  view.setUint32(MAGIC.length, text.length, true);
  view.setUint32(MAGIC.length + 4, crc32(bytes.subarray(PREFIX_BYTES)), true);
  return bytes;
}

/** Reads what {@link encodeCheckpoint} wrote. Throws `invalid_argument` on anything else, including a torn file. */
export function decodeCheckpoint(bytes: Uint8Array): Checkpoint {
  const wrong = (what: string, cause?: unknown) =>
    new FieldloopError("invalid_argument", `Read checkpoint: ${what}`, { cause });
  if (bytes.length < PREFIX_BYTES || new TextDecoder().decode(bytes.subarray(0, MAGIC.length)) !== MAGIC) {
    throw wrong("not a checkpoint of this version");
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const headerLength = view.getUint32(MAGIC.length, true);
  if (view.getUint32(MAGIC.length + 4, true) !== crc32(bytes.subarray(PREFIX_BYTES))) {
    throw wrong("its checksum does not fit: the file is damaged");
  }
  let at = PREFIX_BYTES + headerLength;
  let header: z.output<typeof headerSchema>;
  try {
    header = headerSchema.parse(JSON.parse(new TextDecoder().decode(bytes.subarray(PREFIX_BYTES, at))));
  } catch (cause) {
    throw wrong("its header is not readable", cause);
  }
  const wanted = at + header.lossCount * 8 + header.arrays.reduce((sum, array) => sum + array.length * 4, 0);
  if (wanted !== bytes.length) throw wrong(`it has ${bytes.length} bytes, its header says ${wanted}`);
  const losses = Array.from(new Float64Array(copyOf(bytes, at, header.lossCount * 8)));
  at += header.lossCount * 8;
  const arrays: Record<string, Float32Array> = {};
  for (const { name, length } of header.arrays) {
    arrays[name] = new Float32Array(copyOf(bytes, at, length * 4));
    at += length * 4;
  }
  const { step, fingerprint, validations } = header;
  return { step, fingerprint, validations, losses, arrays };
}

/** Aligned copy; `slice` would not copy a Node Buffer. */
function copyOf(bytes: Uint8Array, at: number, length: number): ArrayBuffer {
  return new Uint8Array(bytes.subarray(at, at + length)).buffer;
}

function bytesOf(array: Float32Array | Float64Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

/** CRC-32 (ISO 3309). */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) crc = CRC_TABLE[(crc ^ bytes[i]!) & 0xff]! ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
