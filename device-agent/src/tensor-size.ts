import type { Tensor } from "@fieldloop/runtime";

/** About how many bytes the elements of a tensor take on their way between two processes. */
export function tensorBytes(data: Tensor["data"]): number {
  if (!Array.isArray(data)) return data.byteLength;
  return data.reduce((sum, text) => sum + text.length + 8, 0);
}
