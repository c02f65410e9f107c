import type { ShadowCounts, ShadowEvent } from "@fieldloop/protocol";

/** One shadow of a deployment as the device told it last; a deployment that began its shadow anew has several. */
export type ShadowStretch = Pick<
  ShadowEvent,
  | "against"
  | "from"
  | "to"
  | "frames"
  | "compared"
  | "skipped"
  | "failed"
  | "disagreements"
  | "candidateMeanMs"
  | "activeMeanMs"
  | "cpuShare"
  | "classFlips"
>;

export type ShadowLabelled = ShadowCounts["labelled"];
export const NOTHING_LABELLED: ShadowLabelled = {
  bothRight: 0,
  onlyActiveRight: 0,
  onlyCandidateRight: 0,
  bothWrong: 0,
};

/** All stretches of one deployment together; means are over the compared frames, the share over the time. Undefined of none. */
export function combineStretches(stretches: readonly ShadowStretch[]): ShadowStretch | undefined {
  const ordered = [...stretches].sort((a, b) => a.from - b.from);
  const last = ordered.at(-1);
  if (!last) return undefined;
  const sum = (value: (stretch: ShadowStretch) => number): number =>
    ordered.reduce((total, stretch) => total + value(stretch), 0);
  const compared = sum((stretch) => stretch.compared);
  const tookMs = sum(({ from, to }) => to - from);
  const mean = (value: (stretch: ShadowStretch) => number): number =>
    compared === 0 ? 0 : sum((stretch) => value(stretch) * stretch.compared) / compared;
  return {
    against: last.against,
    from: ordered[0]!.from,
    to: Math.max(...ordered.map(({ to }) => to)),
    frames: sum(({ frames }) => frames),
    compared,
    skipped: sum(({ skipped }) => skipped),
    failed: sum(({ failed }) => failed),
    disagreements: sum(({ disagreements }) => disagreements),
    candidateMeanMs: mean(({ candidateMeanMs }) => candidateMeanMs),
    activeMeanMs: mean(({ activeMeanMs }) => activeMeanMs),
    cpuShare: tookMs === 0 ? last.cpuShare : sum(({ cpuShare, from, to }) => cpuShare * (to - from)) / tookMs,
    classFlips: mergeFlips(ordered.flatMap(({ classFlips }) => classFlips)),
  };
}

/** The most frequent first. */
function mergeFlips(flips: readonly ShadowEvent["classFlips"][number][]): ShadowEvent["classFlips"] {
  const merged = new Map<string, ShadowEvent["classFlips"][number]>();
  for (const [active, candidate, count] of flips) {
    const key = `${active}\n${candidate}`;
    merged.set(key, [active, candidate, (merged.get(key)?.[2] ?? 0) + count]);
  }
  return [...merged.values()].sort((a, b) => b[2] - a[2]);
}
