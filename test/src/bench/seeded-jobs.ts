import { Random } from "@fieldloop/runtime/simulate";
import {
  labelBothArms,
  labelBothArmsNaively,
  labelDisagreements,
  labelDisagreementsNaively,
  type Labelled,
  type Labelling,
  type Versions,
} from "../kit/labelling.js";
import { peek, PEEKED } from "../kit/peeking.js";
import { runEngineWave, type EngineWave } from "../kit/engine-wave.js";
import { NO_EFFECT, type VersionEffect } from "../kit/simulated-fleet.js";
import {
  BAD_VERSIONS,
  FIRST_WAVE,
  GATE_SETTINGS,
  judgeByEvidence,
  judgePlainly,
  PLAIN_LIMITS,
  runRollout,
  type Judge,
  type RolloutOutcome,
  WIDE_LIMITS,
} from "../kit/simulated-gate.js";

/** Every figure is drawn from this seed: the same numbers on every machine, however many cores share the runs. */
export const SEED = 20_261_101;

export const LABELLINGS = {
  disagreements: labelDisagreements,
  disagreementsNaively: labelDisagreementsNaively,
  bothArms: labelBothArms,
  bothArmsNaively: labelBothArmsNaively,
} as const satisfies Record<string, Labelling>;

/** Gates that are looked at by the same waves: ours first. */
export const GATES: readonly (() => Judge)[] = [
  () => judgeByEvidence(GATE_SETTINGS),
  () => judgePlainly(PLAIN_LIMITS),
  () => judgePlainly({ ...PLAIN_LIMITS, failuresAllowed: 3 }),
  () => judgePlainly(WIDE_LIMITS),
];

/** A run, or some, that need nothing but their numbers: what workers are given. */
export type SeededJob =
  | {
      readonly kind: "peek";
      readonly at: number;
      readonly from: number;
      readonly to: number;
      readonly alpha: number;
    }
  | {
      readonly kind: "label";
      readonly labelling: keyof typeof LABELLINGS;
      readonly versions: Versions;
      readonly alpha: number;
      readonly labelsMax: number;
      readonly run: number;
    }
  | {
      readonly kind: "rollout";
      /** Null: as good as the one before. */
      readonly version: keyof typeof BAD_VERSIONS | null;
      readonly run: number;
      /** How many of `GATES` judge it. */
      readonly gates: number;
      /** Only the first wave. */
      readonly firstOnly: boolean;
    }
  | { readonly kind: "engine"; readonly version: keyof typeof BAD_VERSIONS | null; readonly run: number };

export interface SeededResults {
  readonly peek: { readonly ours: number; readonly usual: number; readonly once: number };
  readonly label: Labelled;
  readonly rollout: readonly RolloutOutcome[];
  readonly engine: EngineWave;
}

export function runSeeded(job: SeededJob): SeededResults[SeededJob["kind"]] {
  switch (job.kind) {
    case "peek": {
      const stops = { ours: 0, usual: 0, once: 0 };
      for (let run = job.from; run < job.to; run++) {
        const seen = peek(PEEKED[job.at]!, new Random(SEED, job.at, run), job.alpha);
        stops.ours += Number(seen.ours);
        stops.usual += Number(seen.usual);
        stops.once += Number(seen.once);
      }
      return stops;
    }
    case "label":
      return LABELLINGS[job.labelling](
        new Random(SEED, 100, job.run),
        job.versions,
        job.alpha,
        job.labelsMax,
      );
    case "rollout":
      return runRollout(seedOf(job), effectOf(job), GATES.slice(0, job.gates), job.firstOnly);
    case "engine":
      return runEngineWave([...seedOf(job), 1], FIRST_WAVE, effectOf(job), GATE_SETTINGS);
  }
}

interface Versioned {
  readonly version: keyof typeof BAD_VERSIONS | null;
  readonly run: number;
}

function seedOf({ version, run }: Versioned): number[] {
  return [SEED, version === null ? 200 : 300, run];
}

function effectOf({ version }: Versioned): VersionEffect {
  return version === null ? NO_EFFECT : BAD_VERSIONS[version];
}
