import { sha256Hex } from "@fieldloop/protocol";

/**
 * Whether a sample is kept out of training, for the evaluation of new data. A pure function of its id: a sample that was kept
 * out once is kept out of every later run with the same or a larger share.
 */
export function isValidationSample(sample: string, share: number): boolean {
  const hash = sha256Hex(new TextEncoder().encode(`validation\n${sample}`));
  return Number.parseInt(hash.slice(0, 8), 16) / 2 ** 32 < share;
}

export interface SnapshotItem {
  readonly sample: string;
  /** SHA-256 of the payload. */
  readonly sha256: string;
  readonly label: string;
}

/** Sorted by sample id; the order in which a snapshot is hashed, stored and exported. */
export function sortItems<Item extends SnapshotItem>(items: readonly Item[]): Item[] {
  return [...items].sort((a, b) => (a.sample < b.sample ? -1 : a.sample > b.sample ? 1 : 0));
}

/** One line of a snapshot's NDJSON form, field order fixed. */
export function itemLine({ sample, sha256, label }: SnapshotItem): string {
  return `${JSON.stringify({ sample, sha256, label })}\n`;
}

/** SHA-256 over the NDJSON form of the sorted items: the same content is the same snapshot. */
export function snapshotHash(items: readonly SnapshotItem[]): string {
  return sha256Hex(new TextEncoder().encode(sortItems(items).map(itemLine).join("")));
}
