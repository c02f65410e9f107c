/** Bytes `from` to `to`, exclusive. */
export interface ByteRange {
  readonly from: number;
  readonly to: number;
}

/**
 * The one range that a request asks for. A header that is absent, malformed, of several ranges, or made for another representation
 * means the whole (RFC 9110 sections 13.1.5 and 14.2).
 */
export function rangeOf(
  range: string | undefined,
  ifRange: string | undefined,
  etag: string,
  bytes: number,
): ByteRange | "unsatisfiable" | undefined {
  if (range === undefined || (ifRange !== undefined && ifRange !== etag)) return undefined;
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(range.trim());
  if (!match || (match[1] === "" && match[2] === "")) return undefined;
  if (match[1] === "") {
    // The last n bytes.
    const length = Number(match[2]);
    return length === 0 || bytes === 0 ? "unsatisfiable" : { from: Math.max(0, bytes - length), to: bytes };
  }
  const from = Number(match[1]);
  const last = match[2] === "" ? bytes - 1 : Number(match[2]);
  if (last < from && match[2] !== "") return undefined;
  return from >= bytes ? "unsatisfiable" : { from, to: Math.min(last + 1, bytes) };
}
