import { alphaOf } from "@fieldloop/fleet-server";
import { gateSettingsSchema } from "@fieldloop/protocol";
import { Random } from "@fieldloop/runtime/simulate";
import {
  AS_GOOD,
  labelBothArms,
  labelBothArmsNaively,
  labelDisagreements,
  labelDisagreementsNaively,
  labelsOfFixedTest,
  ONE_POINT_WORSE,
  type Labelled,
  type Labelling,
  type Versions,
} from "../kit/labelling.js";
import { LOOKS, peek, PEEKED, type PeekedComparison } from "../kit/peeking.js";
import { NO_EFFECT, type VersionEffect } from "../kit/simulated-fleet.js";
import {
  BAD_VERSIONS,
  FIRST_WAVE,
  GATE_SETTINGS,
  judgeByEvidence,
  judgePlainly,
  PLAIN_LIMITS,
  runRollout,
  runWave,
  type Judge,
  type RolloutOutcome,
  type WaveOutcome,
  WIDE_LIMITS,
} from "../kit/simulated-gate.js";
import { progress, type Figure } from "./report.js";

/** Every figure is drawn from this seed: the same numbers on every machine. */
const SEED = 20_261_101;
const ALPHA = 0.05;

/** The gates' statistics: false stops under daily looks, labels to see one point, waves of a fleet whose devices differ. */
export async function runStatisticsSuite({ quick }: { readonly quick: boolean }): Promise<Figure[]> {
  const part = quick ? 0.1 : 1;
  return [
    ...measurePeeking(Math.round(10_000 * part)),
    ...tell(measureLabels(Math.round(2_000 * part))),
    ...measureGates(Math.round(200 * part)),
  ];
}

/** The whole takes long: each figure is said as soon as it is there. */
function tell(figures: Figure[]): Figure[] {
  for (const { id, value, unit, peer } of figures) {
    progress(`  ${id}: ${value} ${unit}${peer ? `, ${peer.what} ${peer.value}` : ""}`);
  }
  return figures;
}

function measurePeeking(runs: number): Figure[] {
  return PEEKED.flatMap((comparison, at) => {
    progress(`false stops: ${comparison.what}, ${runs} runs of ${LOOKS} daily looks`);
    return tell(peekingFigures(comparison, at, runs));
  });
}

function peekingFigures(comparison: PeekedComparison, at: number, runs: number): Figure[] {
  const stops = { ours: 0, usual: 0, once: 0 };
  for (let run = 0; run < runs; run++) {
    const seen = peek(comparison, new Random(SEED, at, run), ALPHA);
    stops.ours += Number(seen.ours);
    stops.usual += Number(seen.usual);
    stops.once += Number(seen.once);
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

function measureLabels(runs: number): Figure[] {
  const gateAlpha = alphaOf("shadow_labels", gateSettingsSchema.parse({}), 1);
  progress(`labels until a drop of one point is seen, ${runs} runs`);
  const paired = drawLabels(labelDisagreements, ONE_POINT_WORSE, ALPHA, 5_000, runs);
  const inGate = drawLabels(labelDisagreements, ONE_POINT_WORSE, gateAlpha, 5_000, runs);
  const pairedFalse = drawLabels(labelDisagreements, AS_GOOD, ALPHA, 2_000, runs);
  const naiveFalse = drawLabels(labelDisagreementsNaively, AS_GOOD, ALPHA, 2_000, runs);
  const unpairedRuns = Math.ceil(runs / 4);
  progress(`the same with unpaired labels, ${unpairedRuns} runs`);
  const unpaired = drawLabels(labelBothArms, ONE_POINT_WORSE, ALPHA, 60_000, unpairedRuns);
  const unpairedNaive = drawLabels(labelBothArmsNaively, AS_GOOD, ALPHA, 20_000, unpairedRuns);
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
  labelling: Labelling,
  versions: Versions,
  alpha: number,
  labelsMax: number,
  runs: number,
): Labelled[] {
  return Array.from({ length: runs }, (_, run) =>
    labelling(new Random(SEED, 100, run), versions, alpha, labelsMax),
  );
}

function quantile(all: readonly Labelled[], share: number): number {
  return median(
    all.map(({ labels }) => labels),
    share,
  );
}

function median(values: readonly number[], share = 0.5): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}

const GATES: readonly (() => Judge)[] = [
  () => judgeByEvidence(GATE_SETTINGS),
  () => judgePlainly(PLAIN_LIMITS),
  () => judgePlainly({ ...PLAIN_LIMITS, failuresAllowed: 3 }),
  () => judgePlainly(WIDE_LIMITS),
];
const PLAIN = ["plain limits", "plain limits that forgive three measurements", "wide plain limits"] as const;

function measureGates(runs: number): Figure[] {
  const figures = tell(goodFigures(runs));
  for (const [name, effect] of Object.entries(BAD_VERSIONS)) {
    figures.push(...tell(badFigures(name, effect, runs)));
  }
  return figures;
}

function share(waves: readonly WaveOutcome[], verdict: string): number {
  return (100 * waves.filter((wave) => wave.verdict === verdict).length) / waves.length;
}

function goodFigures(runs: number): Figure[] {
  progress(`gates: a good version, ${runs} first waves of 500 devices against 3,000`);
  const waves = Array.from({ length: runs }, (_, run) =>
    runWave(
      [SEED, 200, run, 1],
      FIRST_WAVE,
      NO_EFFECT,
      GATES.map((make) => make()),
    ),
  );
  const [ours, ...plain] = GATES.map((_, at) => waves.map((outcomes) => outcomes[at]!));
  return [
    {
      id: "gate.good.stopped",
      what: `a good version stopped in its first wave, ${LOOKS} looks`,
      value: share(ours!, "fail"),
      unit: "%",
      bar: { at: "most", value: 5 },
    },
    {
      id: "gate.good.inconclusive",
      what: "  left inconclusive after a day",
      value: share(ours!, "inconclusive"),
      unit: "%",
    },
    ...plain.map(
      (outcomes, at): Figure => ({
        id: `gate.good.plain.${at}`,
        what: `  stopped by ${PLAIN[at]!}`,
        value: share(outcomes, "fail"),
        unit: "%",
      }),
    ),
  ];
}

/** Rollouts in which plain limits are tried too: they let bad versions into second waves, which take long. */
const COMPARED_RUNS = 40;

function badFigures(name: string, effect: VersionEffect, runs: number): Figure[] {
  const compared = Math.min(runs, COMPARED_RUNS);
  progress(`gates: the ${name} version, ${runs} rollouts, ${compared} of them by plain limits too`);
  const all = Array.from({ length: runs }, (_, run) =>
    runRollout([SEED, 300, run], effect, run < compared ? GATES : GATES.slice(0, 1)),
  );
  const ours = all.map((outcomes) => outcomes[0]!);
  const [, strict, , wide] = GATES.map((_, at) => all.slice(0, compared).map((outcomes) => outcomes[at]!));
  const firstOf = (outcomes: readonly RolloutOutcome[]): WaveOutcome[] => outcomes.map(({ first }) => first);
  const exposed = (outcomes: readonly RolloutOutcome[]): number => median(outcomes.map((one) => one.exposed));
  const stopping = firstOf(ours).filter(({ verdict }) => verdict === "fail");
  return [
    {
      id: `gate.${name}.stopped`,
      what: `${name} version stopped in its first wave`,
      value: share(firstOf(ours), "fail"),
      unit: "%",
      peer: { what: "% by wide plain limits", value: share(firstOf(wide!), "fail") },
      bar: { at: "least", value: 95 },
    },
    {
      id: `gate.${name}.hours`,
      what: "  after so long, median",
      value: (24 * median(stopping.map(({ look }) => look))) / LOOKS,
      unit: "h",
    },
    {
      id: `gate.${name}.exposed`,
      what: "  devices of 10,000 exposed, median",
      value: exposed(ours),
      unit: "devices",
      peer: { what: "by wide plain limits", value: exposed(wide!) },
    },
    {
      id: `gate.${name}.exposed.plain`,
      what: `  by ${PLAIN[0]}, which stop good versions too`,
      value: exposed(strict!),
      unit: "devices",
    },
  ];
}
