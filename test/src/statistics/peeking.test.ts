import { Random } from "@fieldloop/runtime/simulate";
import { describe, expect, it } from "vitest";
import {
  AS_GOOD,
  labelBothArms,
  labelDisagreements,
  labelDisagreementsNaively,
  ONE_POINT_WORSE,
  type Labelling,
  type Versions,
} from "../kit/labelling.js";
import { LOOKS, peek, PEEKED } from "../kit/peeking.js";

/** The small form of `npm run bench -- statistics`: the same draws, fewer of them, so the limits have a margin. */
const ALPHA = 0.05;

describe(`arms that do not differ, looked at ${LOOKS} times`, () => {
  it.each(PEEKED)("$what: rarely stopped, where the usual test often is", (comparison) => {
    const runs = comparison.runs;
    const stops = { ours: 0, usual: 0 };
    for (let run = 0; run < runs; run++) {
      const seen = peek(comparison, new Random(31, run), ALPHA);
      stops.ours += Number(seen.ours);
      stops.usual += Number(seen.usual);
    }
    expect(stops.ours / runs).toBeLessThanOrEqual(ALPHA);
    expect(stops.usual / runs).toBeGreaterThan(2 * ALPHA);
  });
});

describe("labels", () => {
  const draw = (labelling: Labelling, versions: Versions, labelsMax: number, runs: number) =>
    Array.from({ length: runs }, (_, run) => labelling(new Random(32, run), versions, ALPHA, labelsMax));
  const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]!;

  it("of disagreements show one lost point after 200 in the median, unpaired ones after thousands", () => {
    const paired = draw(labelDisagreements, ONE_POINT_WORSE, 3_000, 200);
    expect(median(paired.map(({ labels }) => labels))).toBeLessThanOrEqual(200);
    const unpaired = draw(labelBothArms, ONE_POINT_WORSE, 40_000, 10);
    expect(median(unpaired.map(({ labels }) => labels))).toBeGreaterThan(3_000);
  });

  it("of disagreements between equal versions stop nothing, however often they are looked at", () => {
    const share = (labelling: Labelling): number =>
      draw(labelling, AS_GOOD, 500, 200).filter(({ stopped }) => stopped).length / 200;
    expect(share(labelDisagreements)).toBeLessThanOrEqual(ALPHA);
    expect(share(labelDisagreementsNaively)).toBeGreaterThan(0.2);
  });
});
