import { crc32 } from "node:zlib";
import { AGENT_LIMITS } from "../../limits.js";

/**
 * One record of a segment file, little-endian:
 * `magic u32 | payload bytes u32 | crc32 u32 of all that follows | flags u32 | worth f32 | boot f64 | seq f64 | group f64 | payload`.
 * A float64 holds every safe integer. CRC-32 is that of IEEE 802.3, as `node:zlib` computes it.
 */
export interface SpoolRecord {
  readonly boot: number;
  readonly seq: number;
  /** Sequence number of the first record of those that only make sense together (the parts of a sample). */
  readonly group: number;
  /** Never evicted. */
  readonly protected: boolean;
  /** What it is worth to keep, 0..1. */
  readonly worth: number;
  readonly payload: Uint8Array;
}

export const RECORD_HEADER_BYTES = 44;
const MAGIC = 0x31534c46;
const FLAG_PROTECTED = 1;

export function encodeRecord(record: SpoolRecord): Buffer {
  const bytes = Buffer.allocUnsafe(RECORD_HEADER_BYTES + record.payload.length);
  bytes.writeUInt32LE(MAGIC, 0);
  bytes.writeUInt32LE(record.payload.length, 4);
  bytes.writeUInt32LE(record.protected ? FLAG_PROTECTED : 0, 12);
  bytes.writeFloatLE(record.worth, 16);
  bytes.writeDoubleLE(record.boot, 20);
  bytes.writeDoubleLE(record.seq, 28);
  bytes.writeDoubleLE(record.group, 36);
  bytes.set(record.payload, RECORD_HEADER_BYTES);
  bytes.writeUInt32LE(crc32(bytes.subarray(12)), 8);
  return bytes;
}

/** The record at `offset`, or undefined where its bytes are not whole and unharmed. Never throws. */
export function decodeRecord(bytes: Buffer, offset: number): SpoolRecord | undefined {
  if (bytes.length - offset < RECORD_HEADER_BYTES || bytes.readUInt32LE(offset) !== MAGIC) return undefined;
  const length = bytes.readUInt32LE(offset + 4);
  const end = offset + RECORD_HEADER_BYTES + length;
  if (length > AGENT_LIMITS.spoolRecordBytesMax || end > bytes.length) return undefined;
  if (crc32(bytes.subarray(offset + 12, end)) !== bytes.readUInt32LE(offset + 8)) return undefined;
  return {
    boot: bytes.readDoubleLE(offset + 20),
    seq: bytes.readDoubleLE(offset + 28),
    group: bytes.readDoubleLE(offset + 36),
    protected: (bytes.readUInt32LE(offset + 12) & FLAG_PROTECTED) !== 0,
    worth: bytes.readFloatLE(offset + 16),
    payload: bytes.subarray(offset + RECORD_HEADER_BYTES, end),
  };
}

/** All records up to the first harmed one; `goodBytes` is where a torn tail is cut. */
export function scanRecords(bytes: Buffer): {
  records: { record: SpoolRecord; offset: number }[];
  goodBytes: number;
} {
  const records: { record: SpoolRecord; offset: number }[] = [];
  let offset = 0;
  for (;;) {
    const record = decodeRecord(bytes, offset);
    if (!record) return { records, goodBytes: offset };
    records.push({ record, offset });
    offset += RECORD_HEADER_BYTES + record.payload.length;
  }
}
