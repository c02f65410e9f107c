import { describe, expect, it } from "vitest";
import { compareOnSlice, judgeEvaluation, type JudgedInput } from "./evaluation.js";
import { isValidationSample, snapshotHash } from "./split.js";

const labels = ["bolt", "nut"];
const base = { version: 1, variant: "int8" };
const candidate = { version: 2, variant: "int8" };

/** `counts`: both right, only base right, only candidate right, both wrong. */
function slice(name: string, [both, onlyBase, onlyCandidate, neither]: [number, number, number, number]) {
  const make = (count: number, baseRight: boolean, candidateRight: boolean): JudgedInput[] =>
    Array.from({ length: count }, (_, at) => {
      const truth = at % 2;
      return { truth, base: baseRight ? truth : 1 - truth, candidate: candidateRight ? truth : 1 - truth };
    });
  const inputs = [
    ...make(both, true, true),
    ...make(onlyBase, true, false),
    ...make(onlyCandidate, false, true),
    ...make(neither, false, false),
  ];
  return compareOnSlice(name, labels, inputs, base, candidate);
}

describe("compareOnSlice", () => {
  it("counts accuracy, confusion, recall, precision and who alone was right", () => {
    const result = slice("field", [6, 1, 3, 0]);
    expect(result).toMatchObject({ onlyBaseRight: 1, onlyCandidateRight: 3 });
    expect(result.base.accuracy).toMatchObject({ successes: 7, count: 10 });
    expect(result.candidate.accuracy).toMatchObject({ successes: 9, count: 10 });
    expect(result.candidate.confusion).toEqual([
      [5, 1],
      [0, 4],
    ]);
    expect(result.candidate.perClass[0]).toMatchObject({
      recall: { successes: 5, count: 6 },
      precision: { successes: 5, count: 5 },
    });
  });

  it("counts a prediction without a label here as wrong, in no column", () => {
    const { candidate: result } = compareOnSlice(
      "field",
      labels,
      [{ truth: 0, base: 0, candidate: -1 }],
      base,
      candidate,
    );
    expect(result.accuracy).toMatchObject({ successes: 0, count: 1 });
    expect(result.confusion).toEqual([
      [0, 0],
      [0, 0],
    ]);
  });
});

describe("judgeEvaluation", () => {
  it.each([
    ["better on the field, old data kept", [40, 2, 30, 8], [190, 1, 1, 8], "passed"],
    ["equal everywhere", [70, 0, 0, 10], [190, 0, 0, 10], "passed"],
    ["fewer right on the field, but no more than chance", [60, 6, 4, 10], [190, 0, 0, 10], "passed"],
    ["worse on the field", [40, 20, 5, 15], [190, 0, 0, 10], "failed"],
    ["old data a point worse", [40, 2, 30, 8], [190, 2, 0, 8], "passed"],
    ["old data more than a point worse", [40, 2, 30, 8], [190, 3, 0, 7], "failed"],
  ] as const)("%s: %s", (_, field, old, verdict) => {
    const judged = judgeEvaluation([slice("field", [...field]), slice("old", [...old])]);
    expect(judged.verdict).toBe(verdict);
    expect(judged.reasons).toHaveLength(2);
  });

  it("fails without labelled samples that were kept out of training", () => {
    expect(judgeEvaluation([slice("old", [10, 0, 0, 0])])).toMatchObject({ verdict: "failed" });
  });
});

describe("the split and the hash of a snapshot", () => {
  it("keeps out about the share asked for, and more of it contains less of it", () => {
    const samples = Array.from({ length: 2000 }, (_, at) => `smp_${String(at).padStart(8, "0")}`);
    const fifth = samples.filter((sample) => isValidationSample(sample, 0.2));
    expect(fifth.length).toBeGreaterThan(340);
    expect(fifth.length).toBeLessThan(460);
    expect(fifth.every((sample) => isValidationSample(sample, 0.3))).toBe(true);
  });

  it("is the same for the same content in any order", () => {
    const items = [
      { sample: "smp_b", sha256: "2", label: "nut" },
      { sample: "smp_a", sha256: "1", label: "bolt" },
    ];
    expect(snapshotHash(items)).toBe(snapshotHash(items.toReversed()));
    expect(snapshotHash(items)).not.toBe(snapshotHash([items[0]!, { ...items[1]!, label: "nut" }]));
  });
});
