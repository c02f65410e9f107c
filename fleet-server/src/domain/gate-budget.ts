import type { GateSettings } from "@fieldloop/protocol";

/**
 * How a gate's `falseStopMax` is spent. Each test of evidence has a fixed share of it, and each is valid at all looks at once, so by
 * the union bound the probability that any of them, at any look, stops a version which is no worse than its limits stays below it.
 * Shares are fixed before the rollout begins: moved towards what the numbers show, they would bound nothing.
 */
export const FALSE_STOP_WEIGHTS = {
  failed_share: 0.08,
  earlier_waves: 0.02,
  silence: 0.15,
  crashed_devices: 0.1,
  crash_rate: 0.1,
  latency: 0.1,
  accuracy: 0.15,
  confidence: 0.04,
  class_mix: 0.04,
  shadow_disagreement: 0.02,
  shadow_labels: 0.2,
} as const;
export type EvidenceTest = keyof typeof FALSE_STOP_WEIGHTS;

/** The setting that is null where a test is left out; its share then goes to the others. */
const SETTING_OF: Partial<Record<EvidenceTest, keyof GateSettings>> = {
  silence: "silentExcessMax",
  crashed_devices: "crashRatioMax",
  crash_rate: "crashRatioMax",
  latency: "latencyRatioMax",
  accuracy: "accuracyDropMax",
  confidence: "confidenceDropMax",
  class_mix: "classShiftMax",
  shadow_disagreement: "shadowDisagreementMax",
  shadow_labels: "shadowDropMax",
};

/**
 * The error that one test may spend in one wave, over all its looks. Waves share too: the first has a half, wave k has
 * 1 / (k (k + 1)), which sums to 1 however many there are.
 */
export function alphaOf(test: EvidenceTest, settings: GateSettings, wave: number): number {
  const tests = Object.keys(FALSE_STOP_WEIGHTS) as EvidenceTest[];
  const judged = tests.filter((one) => {
    const setting = SETTING_OF[one];
    return setting === undefined || settings[setting] !== null;
  });
  const weights = judged.reduce((sum, one) => sum + FALSE_STOP_WEIGHTS[one], 0);
  return (settings.falseStopMax * FALSE_STOP_WEIGHTS[test]) / weights / (wave * (wave + 1));
}
