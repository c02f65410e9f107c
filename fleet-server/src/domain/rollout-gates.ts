import type { GateSettings, GateVerdict } from "@fieldloop/protocol";
import type { DeviceEvidence, DeviceStats, GateEvidence } from "./gate-evidence.js";
import * as plain from "./gate.js";
import { hasFailed, isSettled } from "./rollout.js";

/** Sums the evidence of devices for the plain gate. */
function summed(evidence: GateEvidence): plain.GateEvidence {
  const canaries = evidence.devices.filter(({ arm }) => arm === "canary");
  const count = (test: (device: DeviceEvidence) => boolean): number => canaries.filter(test).length;
  const active = canaries.filter(({ state }) => state === "active");
  return {
    deviceCount: canaries.length,
    failedCount: count(({ state }) => hasFailed(state)),
    silentCount: count(({ state }) => state === "silent"),
    activeCount: active.length,
    unsettledCount: count(({ state }) => !isSettled(state)),
    waveTimedOut: evidence.waveTimedOut,
    earlierCount: evidence.earlier.count,
    earlierFailedCount: evidence.earlier.failed,
    predictionsLeast: Math.min(...active.map(({ during }) => during.predictions)),
    before: sum(canaries.flatMap(({ before }) => before ?? [])),
    after: sum(canaries.map(({ during }) => during)),
  };
}

function sum(parts: readonly DeviceStats[]): plain.VersionCounts {
  const add = (value: (part: DeviceStats) => number): number =>
    parts.reduce((total, part) => total + value(part), 0);
  const timed = add(({ latencyMs }) => latencyMs.count);
  return {
    predictions: add(({ predictions }) => predictions),
    meanLatencyMs: timed === 0 ? null : add(({ latencyMs }) => latencyMs.mean * latencyMs.count) / timed,
    feedback: {
      successes: add(({ feedback }) => feedback.successes),
      count: add(({ feedback }) => feedback.count),
    },
  };
}

export function judgeHealth(settings: GateSettings, evidence: GateEvidence, now: number): GateVerdict {
  return plain.judgeHealth(settings, summed(evidence), now);
}

export function judgeGate(settings: GateSettings, evidence: GateEvidence, now: number): GateVerdict {
  return plain.judgeGate(settings, summed(evidence), now);
}
