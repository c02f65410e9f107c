import type { Random } from "@fieldloop/runtime/simulate";

/**
 * `FIELDLOOP_TEST_THOROUGH=1`: every kill, cut and persist point. Otherwise a part of them, drawn by the test's seed: each run takes others,
 * and together they come to all.
 */
export const isThorough = process.env["FIELDLOOP_TEST_THOROUGH"] === "1";

/** All items where tests are thorough, else about this share of them, at least one, in their order. */
export function drawn<Item>(items: readonly Item[], share: number, random: Random): Item[] {
  if (isThorough) return [...items];
  const sure = Math.floor(random.uniform() * items.length);
  return items.filter((_, at) => at === sure || random.uniform() < share);
}
