import { z } from "zod";
import { countSchema, timeSchema } from "../names.js";

const shareSchema = z.number().min(0).max(1);
const daysOfSeconds = (days: number): number => days * 86_400;

/**
 * What a gate tolerates after each wave. A test fails where harm beyond its limit is proven, passes where it is excluded or where
 * nothing speaks for it after the minimum, and is inconclusive between. A limit of null leaves its test out. docs/gates.md holds
 * each test's question, unit and formula.
 */
export const gateSettingsSchema = z.object({
  /** Failed, rolled-back and timed-out devices of the wave, at most, 0..1. */
  failedShareMax: shareSchema.default(0),
  /** A device that sent nothing for longer is silent. */
  silenceSeconds: z.number().min(1).max(daysOfSeconds(1)).default(60),
  /** Share of the wave that is silent above that of the control group, at most. Null, or where the control group is too small to tell: a silent device is a failed one. */
  silentExcessMax: shareSchema.nullable().default(0.01),
  /** A wave not complete after this long: devices that talk and are not done count as failed. */
  waveTimeoutSeconds: z.number().min(1).max(daysOfSeconds(7)).default(600),
  /** How long the wave is watched after its last device committed. */
  soakSeconds: z.number().min(0).max(daysOfSeconds(7)).default(10),
  /** Predictions of the new version needed from each of nine devices in ten before a verdict. */
  predictionsMin: countSchema.default(50),
  /** Probability, over all tests, looks and waves of a rollout, that a version which is no worse than its limits is stopped. */
  falseStopMax: z.number().min(0.0001).max(0.5).default(0.05),
  /** Whether the tests of latency, accuracy, confidence, classes and shadow pass only once harm beyond their limit is excluded by their interval. */
  passByProof: z.boolean().default(false),
  /** Crashes per device-hour over those of the control group, at most. */
  crashRatioMax: z.number().min(1).nullable().default(2),
  /** Accuracy from feedback may be lower than that of the version before by at most this, 0..1. */
  accuracyDropMax: shareSchema.nullable().default(0.02),
  /** Mean latency of a device over its own before, against the control group's, at most. */
  latencyRatioMax: z.number().positive().nullable().default(1.25),
  /** The same where the wave or its control group is too small to tell the version from chance: a plain limit. */
  latencyRatioSmallWaveMax: z.number().positive().default(3),
  /** Mean confidence of a device may fall against the control group's by at most this, 0..1. */
  confidenceDropMax: shareSchema.nullable().default(0.1),
  /** Share of any one class may move against the control group's by at most this, 0..1. */
  classShiftMax: shareSchema.nullable().default(0.2),
  /** Share of shadowed frames on which candidate and active version disagree, at most. */
  shadowDisagreementMax: shareSchema.nullable().default(null),
  /** Accuracy by labelled disagreements may be lower than the active version's by at most this, 0..1. */
  shadowDropMax: shareSchema.nullable().default(0),
  /** Labelled disagreements wanted before a verdict, where there are that many disagreements. */
  shadowLabelsMin: countSchema.default(0),
});
export type GateSettings = z.output<typeof gateSettingsSchema>;

/** What one arm of a comparison counted: `count` of `of` on `devices`, e.g. 7 crashes of 41 device-hours on 12 devices. */
export const armCountsSchema = z.object({
  devices: countSchema,
  count: z.number().nonnegative(),
  of: z.number().nonnegative(),
});
export type ArmCounts = z.output<typeof armCountsSchema>;

export const GATE_VERDICTS = ["pass", "fail", "inconclusive"] as const;

export const gateTestSchema = z.object({
  test: z.string(),
  verdict: z.enum(GATE_VERDICTS),
  /** What was estimated, in the unit of `limit`; null where there was nothing to estimate from. */
  value: z.number().nullable(),
  limit: z.number().nullable(),
  /** Confidence sequence of `value`: it holds the truth at every look at once, each side with `confidence`. Null: unbounded, or a plain rule. */
  low: z.number().nullable(),
  high: z.number().nullable(),
  /** 1 - the share of `falseStopMax` that this test may spend; null for a plain rule. */
  confidence: z.number().nullable(),
  /** Evidence against "harm within the limit" as an e-value: by chance at most 1 in mean; `fail` from 1 / (1 - confidence). Null for a plain rule. */
  eValue: z.number().nonnegative().nullable(),
  canary: armCountsSchema.nullable(),
  control: armCountsSchema.nullable(),
  detail: z.string(),
});
export type GateTest = z.output<typeof gateTestSchema>;

export const gateVerdictSchema = z.object({
  verdict: z.enum(GATE_VERDICTS),
  time: timeSchema,
  /** One line per test, with the numbers that decided. */
  tests: z.array(gateTestSchema),
});
export type GateVerdict = z.output<typeof gateVerdictSchema>;
