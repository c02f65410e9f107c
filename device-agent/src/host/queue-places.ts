import type { Manifest } from "@fieldloop/protocol";
import { AGENT_LIMITS } from "../limits.js";

/**
 * Places for frames that wait for a model: two, so that a camera never lags behind, or as many as may run together. Windows of a signal
 * follow each other more quickly than a machine with other work always wakes up: of those, as many as come in `frameQueueWindowMs`. Of rows,
 * which come as quickly and of which nobody knows the rate, `frameQueueRowsMax`.
 */
export function placesFor({ inputs }: Pick<Manifest, "inputs">, batchMax: number): number {
  const { frameQueueMax, frameQueueRowsMax, frameQueueWindowMs, frameQueueWindowsMax, laneBatchMax } =
    AGENT_LIMITS;
  const least = Math.max(frameQueueMax, Math.min(batchMax, laneBatchMax));
  if (inputs.some(({ kind }) => kind === "table")) return Math.max(least, frameQueueRowsMax);
  const window = inputs.find((input) => input.kind === "window");
  if (window?.kind !== "window") return least;
  const periodMs = (window.hop / window.sampleRateHz) * 1000;
  return Math.max(least, Math.min(Math.floor(frameQueueWindowMs / periodMs), frameQueueWindowsMax));
}
