import { rowMalformed } from "./row-parser.js";

/** Smaller numbers of seconds are no date after 1973: they count from some begin. */
const EPOCH_SECONDS_MIN = 1e8;
const ISO_LENGTH_MAX = 40;

export interface RowTime {
  /** Milliseconds, since 1970 where `absolute`. */
  readonly ms: number;
  readonly absolute: boolean;
}

/** Date and time as ISO 8601, or a number: seconds, milliseconds, micro- or nanoseconds since 1970 by its size; below that, seconds. */
export function parseRowTime(value: unknown): RowTime {
  const number = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
  if (typeof number === "number" && Number.isFinite(number)) {
    const size = Math.abs(number);
    if (size < EPOCH_SECONDS_MIN) return { ms: number * 1000, absolute: false };
    if (size < EPOCH_SECONDS_MIN * 1e3) return { ms: number * 1000, absolute: true };
    if (size < EPOCH_SECONDS_MIN * 1e6) return { ms: number, absolute: true };
    if (size < EPOCH_SECONDS_MIN * 1e9) return { ms: number / 1e3, absolute: true };
    return { ms: number / 1e6, absolute: true };
  }
  if (typeof value === "string" && value.length <= ISO_LENGTH_MAX && /^\d{4}-\d{2}-\d{2}/.test(value)) {
    const ms = Date.parse(value);
    if (!Number.isNaN(ms)) return { ms, absolute: true };
  }
  throw rowMalformed(`"${String(value).slice(0, ISO_LENGTH_MAX)}" is no time`);
}
