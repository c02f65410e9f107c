import { FieldloopError } from "@fieldloop/protocol";
import { DELTA_LIMITS } from "./limits.js";

/** What a delta says about itself before its coded stream. Hashes are SHA-256 in lower-case hexadecimal. */
export interface DeltaHeader {
  readonly baseBytes: number;
  readonly baseSha256: string;
  readonly targetBytes: number;
  readonly targetSha256: string;
  readonly operations: number;
}

/** "FLDELTA" and the version of the format. */
const MAGIC = Uint8Array.of(0x46, 0x4c, 0x44, 0x45, 0x4c, 0x54, 0x41, 1);
export const DELTA_HEADER_BYTES = 84;

export function encodeDeltaHeader(header: DeltaHeader): Uint8Array {
  const bytes = new Uint8Array(DELTA_HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set(MAGIC);
  view.setUint32(8, header.baseBytes, true);
  bytes.set(fromHex(header.baseSha256), 12);
  view.setUint32(44, header.targetBytes, true);
  bytes.set(fromHex(header.targetSha256), 48);
  view.setUint32(80, header.operations, true);
  return bytes;
}

/** @throws FieldloopError `delta_malformed` */
export function readDeltaHeader(delta: Uint8Array): DeltaHeader {
  if (delta.length < DELTA_HEADER_BYTES || delta.length > DELTA_LIMITS.deltaBytesMax) {
    throw malformed(`${delta.length} bytes, wanted ${DELTA_HEADER_BYTES} to ${DELTA_LIMITS.deltaBytesMax}`);
  }
  if (!MAGIC.every((byte, at) => delta[at] === byte)) throw malformed("it is none, or of another version");
  const view = new DataView(delta.buffer, delta.byteOffset, delta.byteLength);
  const header = {
    baseBytes: view.getUint32(8, true),
    baseSha256: toHex(delta.subarray(12, 44)),
    targetBytes: view.getUint32(44, true),
    targetSha256: toHex(delta.subarray(48, 80)),
    operations: view.getUint32(80, true),
  };
  const { baseBytes, targetBytes, operations } = header;
  if (Math.max(baseBytes, targetBytes) > DELTA_LIMITS.fileBytesMax) {
    throw malformed(`files of ${baseBytes} and ${targetBytes} bytes`);
  }
  if (operations > Math.min(DELTA_LIMITS.operationsMax, targetBytes)) {
    throw malformed(`${operations} operations for ${targetBytes} bytes`);
  }
  return header;
}

function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function fromHex(text: string): Uint8Array {
  return Uint8Array.from({ length: text.length / 2 }, (_, at) =>
    parseInt(text.slice(2 * at, 2 * at + 2), 16),
  );
}

function malformed(what: string): FieldloopError {
  return new FieldloopError("delta_malformed", `Read delta: ${what}`);
}
