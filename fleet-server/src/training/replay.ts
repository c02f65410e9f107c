import { createHash } from "node:crypto";
import type { DataItem } from "@fieldloop/protocol";
import type { Labelled } from "./rows.js";

/** Items of a replay set at most; old and new share it so that neither crowds out the other over many versions. */
export const REPLAY_ITEMS_MAX = 2_000;

/**
 * The replay set that travels with the new version: the old one and the new training items, within the limit each by its share
 * of what there is, at least a quarter new. Who stays is decided by the item's own hash: the same run makes the same set.
 */
export function mixReplay(
  old: readonly Labelled[],
  fresh: readonly Labelled[],
  itemsMax = REPLAY_ITEMS_MAX,
): DataItem[] {
  const total = old.length + fresh.length;
  const freshWanted =
    total <= itemsMax ? fresh.length : Math.round(itemsMax * Math.max(0.25, fresh.length / total));
  const freshCount = Math.min(fresh.length, freshWanted);
  return [...choose(old, itemsMax - freshCount), ...choose(fresh, freshCount)];
}

function choose(items: readonly Labelled[], count: number): DataItem[] {
  const ranked = items.map((item) => ({
    item,
    rank: createHash("sha256").update(item.payload).digest("hex"),
  }));
  ranked.sort((a, b) => (a.rank < b.rank ? -1 : 1));
  return ranked.slice(0, count).map(({ item: { media, label, payload } }) => ({ media, label, payload }));
}
