import { judgeGate, judgeHealth, type GateEvidence } from "@fieldloop/fleet-server";
import { gateSettingsSchema, type GateSettings } from "@fieldloop/protocol";
import { PlainGate, type PlainLimits } from "./plain-gate.js";
import { NO_EFFECT, type VersionEffect } from "./simulated-fleet.js";
import { SimulatedWave } from "./simulated-wave.js";

/** A rollout to a fleet of ten thousand as its gates decide it: first wave a twentieth, second a quarter, then everyone. */

export const FLEET_DEVICES = 10_000;
export const LOOKS = 30;
/** A wave is watched for a day. */
export const LOOK_SECONDS = 2880;

/** What an operator of this fleet would set: minutes of silence are normal in it, updates fail on a few devices. */
export const GATE_SETTINGS: GateSettings = gateSettingsSchema.parse({
  failedShareMax: 0.02,
  silenceSeconds: 1800,
  latencyRatioMax: 1.1,
  accuracyDropMax: 0.01,
});

/** Halfway between none and the bad versions' effects; one failed measurement ends it, as is the default. */
export const PLAIN_LIMITS: PlainLimits = {
  latencyRatioMax: 1.15,
  accuracyDropMax: 0.015,
  crashRatioMax: 2,
  silentExcessMax: 0.025,
  failedShareMax: 0.02,
  failuresAllowed: 0,
};

/** So wide that a good version is rarely stopped. */
export const WIDE_LIMITS: PlainLimits = {
  latencyRatioMax: 1.6,
  accuracyDropMax: 0.06,
  crashRatioMax: 10,
  silentExcessMax: 0.06,
  failedShareMax: 0.04,
  failuresAllowed: 3,
};

export const BAD_VERSIONS = {
  /** Each device with probability 2 % crashes once an hour under it, as often as chance has it; no other does. */
  crashing: { ...NO_EFFECT, crashingShare: 0.02, crashesPerHour: 1 },
  slower: { ...NO_EFFECT, latencyRatio: 1.3 },
  /** In the mean; some devices lose nothing, some three times that. */
  inaccurate: { ...NO_EFFECT, accuracyDrop: 0.03 },
  /** Each device with probability 5 % is never heard again from some hour after its update on. */
  silent: { ...NO_EFFECT, silentShare: 0.05 },
} as const satisfies Record<string, VersionEffect>;

export interface WaveSizes {
  readonly canary: number;
  readonly control: number;
}
export const FIRST_WAVE: WaveSizes = { canary: 500, control: 3000 };
const SECOND_WAVE: WaveSizes = { canary: 2000, control: 1000 };

export interface WaveOutcome {
  readonly verdict: "pass" | "fail" | "inconclusive";
  /** 1..LOOKS. */
  readonly look: number;
  /** Devices of the wave that run the version when it ends. */
  readonly exposed: number;
  /** Tests that failed. */
  readonly failed: readonly string[];
}

/** Looks at a gate's evidence; the last look of a wave is `final`. */
export type Judge = (evidence: GateEvidence, final: boolean) => Pick<WaveOutcome, "verdict" | "failed">;

export function judgeByEvidence(settings: GateSettings): Judge {
  return (evidence, final) => {
    const { verdict, tests } = (final ? judgeGate : judgeHealth)(settings, evidence, 0);
    const failed = tests.filter((line) => line.verdict === "fail").map(({ test }) => test);
    return { verdict, failed };
  };
}

export function judgePlainly(limits: PlainLimits): Judge {
  const gate = new PlainGate(limits);
  return (evidence) => ({ verdict: gate.stops(evidence) ? "fail" : "pass", failed: [] });
}

/** One wave as each of several gates would have ended it: all look at the same devices. */
export function runWave(
  seed: readonly number[],
  { canary, control }: WaveSizes,
  effect: VersionEffect,
  judges: readonly Judge[],
  wave = 1,
): WaveOutcome[] {
  const simulated = new SimulatedWave({ seed, canaryDevices: canary, controlDevices: control, effect, wave });
  const outcomes: WaveOutcome[] = [];
  for (let look = 1; look <= LOOKS; look++) {
    simulated.advance(LOOK_SECONDS);
    const evidence = simulated.evidence();
    for (const [at, judge] of judges.entries()) {
      if (outcomes[at] && outcomes[at].verdict === "fail") continue;
      outcomes[at] = { ...judge(evidence, look === LOOKS), look, exposed: simulated.exposed };
    }
    if (outcomes.every(({ verdict }) => verdict === "fail")) break;
  }
  return outcomes;
}

export interface RolloutOutcome {
  readonly first: WaveOutcome;
  /** Devices that run the version when the rollout is stopped, or all. */
  readonly exposed: number;
}

/** Waves until one does not pass, by each of several gates; after the second everyone has it. A judge is made for each wave. */
export function runRollout(
  seed: readonly number[],
  effect: VersionEffect,
  makeJudges: readonly (() => Judge)[],
): RolloutOutcome[] {
  const firsts = runWave(
    [...seed, 1],
    FIRST_WAVE,
    effect,
    makeJudges.map((make) => make()),
  );
  const going = makeJudges.filter((_, at) => firsts[at]!.verdict === "pass");
  const seconds =
    going.length === 0
      ? []
      : runWave(
          [...seed, 2],
          SECOND_WAVE,
          effect,
          going.map((make) => make()),
          2,
        );
  return firsts.map((first, at) => {
    if (first.verdict !== "pass") return { first, exposed: first.exposed };
    const second = seconds[going.indexOf(makeJudges[at]!)]!;
    return { first, exposed: second.verdict === "pass" ? FLEET_DEVICES : first.exposed + second.exposed };
  });
}
