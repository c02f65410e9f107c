import { alphaOf } from "@fieldloop/fleet-server";
import { gateSettingsSchema } from "@fieldloop/protocol";
import {
  AS_GOOD,
  labelsOfFixedTest,
  ONE_POINT_WORSE,
  type Labelled,
  type Versions,
} from "../kit/labelling.js";
import { LOOKS, PEEKED, type PeekedComparison } from "../kit/peeking.js";
import { runJobs } from "./parallel.js";
import { median, progress, tell, type Figure } from "./report.js";
import type { LABELLINGS } from "./seeded-jobs.js";

const ALPHA = 0.05;

/** The gates' statistics: false stops under daily looks, labels to see one point. */
export async function runStatisticsSuite({ quick }: { readonly quick: boolean }): Promise<Figure[]> {
  const part = quick ? 0.1 : 1;
  return [
    ...(await measurePeeking(Math.round(10_000 * part))),
    ...tell(await measureLabels(Math.round(2_000 * part))),
  ];
}

/** Runs given to a worker at a time. */
const RUNS_PER_JOB = 100;

async function measurePeeking(runs: number): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const [at, comparison] of PEEKED.entries()) {
    progress(`false stops: ${comparison.what}, ${runs} runs of ${LOOKS} daily looks`);
    figures.push(...tell(await peekingFigures(comparison, at, runs)));
  }
  return figures;
}

async function peekingFigures(comparison: PeekedComparison, at: number, runs: number): Promise<Figure[]> {
  const jobs = Array.from({ length: Math.ceil(runs / RUNS_PER_JOB) }, (_, job) => {
    const from = job * RUNS_PER_JOB;
    return { kind: "peek", at, from, to: Math.min(runs, from + RUNS_PER_JOB), alpha: ALPHA } as const;
  });
  const stops = { ours: 0, usual: 0, once: 0 };
  for (const part of await runJobs<"peek">(jobs)) {
    stops.ours += part.ours;
    stops.usual += part.usual;
    stops.once += part.once;
  }
  const percent = (count: number): number => (100 * count) / runs;
  return [
    {
      id: `peeking.${comparison.id}`,
      what: `false stops in ${LOOKS} looks: ${comparison.what}`,
      value: percent(stops.ours),
      unit: "%",
      peer: { what: "% fixed-size test at each look", value: percent(stops.usual) },
      bar: { at: "most", value: 100 * ALPHA },
    },
    {
      id: `peeking.${comparison.id}.once`,
      what: `  the fixed-size test at the last look alone`,
      value: percent(stops.once),
      unit: "%",
    },
  ];
}

async function measureLabels(runs: number): Promise<Figure[]> {
  const gateAlpha = alphaOf("shadow_labels", gateSettingsSchema.parse({}), 1);
  progress(`labels until a drop of one point is seen, ${runs} runs`);
  const paired = await drawLabels("disagreements", ONE_POINT_WORSE, ALPHA, 5_000, runs);
  const inGate = await drawLabels("disagreements", ONE_POINT_WORSE, gateAlpha, 5_000, runs);
  const pairedFalse = await drawLabels("disagreements", AS_GOOD, ALPHA, 2_000, runs);
  const naiveFalse = await drawLabels("disagreementsNaively", AS_GOOD, ALPHA, 2_000, runs);
  const unpairedRuns = Math.ceil(runs / 4);
  progress(`the same with unpaired labels, ${unpairedRuns} runs`);
  const unpaired = await drawLabels("bothArms", ONE_POINT_WORSE, ALPHA, 60_000, unpairedRuns);
  const unpairedNaive = await drawLabels("bothArmsNaively", AS_GOOD, ALPHA, 20_000, unpairedRuns);
  const stopped = (all: readonly Labelled[]): number =>
    (100 * all.filter((one) => one.stopped).length) / all.length;
  return [
    {
      id: "labels.paired",
      what: "labels to see one point lost, on disagreements alone, median",
      value: quantile(paired, 0.5),
      unit: "labels",
      peer: { what: "unpaired, valid at every look", value: quantile(unpaired, 0.5) },
      bar: { at: "most", value: 200 },
    },
    {
      id: "labels.paired.p90",
      what: "  in nine runs of ten at most",
      value: quantile(paired, 0.9),
      unit: "labels",
    },
    {
      id: "labels.paired.gate",
      what: `  at the error that the gate's first wave spends on it (${(100 * gateAlpha).toFixed(2)} %)`,
      value: quantile(inGate, 0.5),
      unit: "labels",
    },
    {
      id: "labels.unpaired.fixed",
      what: "  unpaired z-test of a size fixed in advance, power 0.8",
      value: labelsOfFixedTest(ONE_POINT_WORSE),
      unit: "labels",
    },
    {
      id: "labels.false",
      what: "false stops over 2,000 labels, each looked at, equal versions",
      value: stopped(pairedFalse),
      unit: "%",
      peer: { what: "% McNemar's test at each label", value: stopped(naiveFalse) },
      bar: { at: "most", value: 100 * ALPHA },
    },
    {
      id: "labels.unpaired.false",
      what: "  unpaired z-test looked at every 50 labels, equal versions",
      value: stopped(unpairedNaive),
      unit: "%",
    },
  ];
}

function drawLabels(
  labelling: keyof typeof LABELLINGS,
  versions: Versions,
  alpha: number,
  labelsMax: number,
  runs: number,
): Promise<Labelled[]> {
  return runJobs<"label">(
    Array.from({ length: runs }, (_, run) => ({
      kind: "label",
      labelling,
      versions,
      alpha,
      labelsMax,
      run,
    })),
  );
}

function quantile(all: readonly Labelled[], share: number): number {
  return median(
    all.map(({ labels }) => labels),
    share,
  );
}
