import { LIMITS } from "@fieldloop/protocol";
import { SERVER_LIMITS } from "../limits.js";

const BIN_MS = 1_000;
const BINS = 10;

/** Predictions per second by device over the last ten seconds, by the time of arrival: a device's clock does not matter. */
export class RateMeter {
  readonly #bins = new Map<string, { counts: number[]; last: number }>();

  add(device: string, count: number, now: number): void {
    const bin = Math.floor(now / BIN_MS);
    let entry = this.#bins.get(device);
    if (!entry) {
      if (this.#bins.size >= SERVER_LIMITS.devicesMax) return;
      entry = { counts: new Array<number>(BINS).fill(0), last: bin };
      this.#bins.set(device, entry);
    }
    advance(entry, bin);
    entry.counts[bin % BINS]! += Math.min(count, LIMITS.batchRowsMax);
  }

  rate(device: string, now: number): number {
    const entry = this.#bins.get(device);
    if (!entry) return 0;
    advance(entry, Math.floor(now / BIN_MS));
    return entry.counts.reduce((sum, count) => sum + count, 0) / ((BINS * BIN_MS) / 1_000);
  }

  total(now: number): number {
    let total = 0;
    for (const device of this.#bins.keys()) total += this.rate(device, now);
    return total;
  }
}

/** Empties the bins of the seconds in which nothing was added. A clock that went back is ignored. */
function advance(entry: { counts: number[]; last: number }, bin: number): void {
  const steps = Math.min(bin - entry.last, BINS);
  for (let step = 1; step <= steps; step++) entry.counts[(entry.last + step) % BINS] = 0;
  if (bin > entry.last) entry.last = bin;
}
