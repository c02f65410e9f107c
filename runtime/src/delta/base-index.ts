import { DELTA_LIMITS } from "./limits.js";

/** A piece of the target that lies in the base as well. */
export interface Match {
  readonly from: number;
  readonly at: number;
  readonly bytes: number;
}

const WINDOW = 8;
const TABLE_BITS = 18;

/** Finds pieces of a file by their content: every `stride`-th place of some stretches is known by the 8 bytes from there on. */
export class BaseIndex {
  readonly #bytes: Uint8Array;
  readonly #heads = new Int32Array(1 << TABLE_BITS).fill(-1);
  /** By the number of the place: where it is, and the place before it with the same hash. */
  readonly #places: Int32Array;
  readonly #links: Int32Array;

  constructor(bytes: Uint8Array, stretches: readonly { readonly start: number; readonly end: number }[]) {
    this.#bytes = bytes;
    const total = stretches.reduce((sum, { start, end }) => sum + end - start, 0);
    const stride = Math.max(1, Math.ceil((total * 8) / DELTA_LIMITS.indexedBytesMax));
    const places: number[] = [];
    for (const { start, end } of stretches) {
      for (let at = start; at + WINDOW <= end; at += stride) places.push(at);
    }
    this.#places = Int32Array.from(places);
    this.#links = new Int32Array(places.length);
    for (let place = 0; place < places.length; place++) {
      const slot = hashAt(bytes, places[place]!);
      this.#links[place] = this.#heads[slot]!;
      this.#heads[slot] = place;
    }
  }

  /** The longest piece of `target` around `at`, within `start` and `end`, that lies in the base; undefined where it is short. */
  find(target: Uint8Array, at: number, start: number, end: number): Match | undefined {
    if (at + WINDOW > end) return undefined;
    let best: Match | undefined;
    let place = this.#heads[hashAt(target, at)]!;
    for (let tries = 0; place >= 0 && tries < DELTA_LIMITS.matchTriesMax; tries++) {
      const match = this.extend(this.#places[place]!, target, at, start, end);
      if (match.bytes > (best?.bytes ?? DELTA_LIMITS.matchBytesMin - 1)) best = match;
      place = this.#links[place]!;
    }
    return best;
  }

  /** How far base and target agree around `from` and `at`. */
  extend(from: number, target: Uint8Array, at: number, start: number, end: number): Match {
    const bytes = this.#bytes;
    let ahead = 0;
    while (at + ahead < end && from + ahead < bytes.length && bytes[from + ahead] === target[at + ahead])
      ahead++;
    let back = 0;
    while (at - back > start && from - back > 0 && bytes[from - back - 1] === target[at - back - 1]) back++;
    return { from: from - back, at: at - back, bytes: ahead + back };
  }
}

function hashAt(bytes: Uint8Array, at: number): number {
  const low = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
  const high = bytes[at + 4]! | (bytes[at + 5]! << 8) | (bytes[at + 6]! << 16) | (bytes[at + 7]! << 24);
  return (Math.imul(low ^ Math.imul(high, 0x85ebca6b), 0x9e3779b1) >>> (32 - TABLE_BITS)) >>> 0;
}
