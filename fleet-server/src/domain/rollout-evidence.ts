import type { GateEvidence, VersionCounts } from "./gate.js";
import { hasFailed, isSettled, type DeviceObservation, type Rollout } from "./rollout.js";

/** What the gate of one wave looks at, counted from the wave's devices and their observations. */
export function gatherEvidence(
  rollout: Rollout,
  wave: number,
  observations: ReadonlyMap<string, DeviceObservation>,
  waveTimedOut: boolean,
): GateEvidence {
  const devices = rollout.devices.filter((device) => device.wave === wave);
  const earlier = rollout.devices.filter((device) => device.wave < wave);
  const active = devices.filter(({ state }) => state === "active");
  const seen = devices.flatMap(({ device }) => observations.get(device) ?? []);
  return {
    deviceCount: devices.length,
    failedCount: devices.filter(({ state }) => hasFailed(state)).length,
    silentCount: devices.filter(({ state }) => state === "silent").length,
    activeCount: active.length,
    unsettledCount: devices.filter(({ state }) => !isSettled(state)).length,
    waveTimedOut,
    earlierCount: earlier.length,
    // A device may have failed within its own wave and within the allowed share; both are counted against the same share.
    earlierFailedCount: earlier.filter(({ state }) => hasFailed(state)).length,
    predictionsLeast: active.reduce(
      (least, { device }) => Math.min(least, observations.get(device)?.after.predictions ?? 0),
      Number.MAX_SAFE_INTEGER,
    ),
    before: sumCounts(seen.map(({ before }) => before)),
    after: sumCounts(seen.map(({ after }) => after)),
  };
}

/** Counts add; mean latency is weighted by predictions. */
export function sumCounts(parts: readonly VersionCounts[]): VersionCounts {
  let predictions = 0;
  let timed = 0;
  let latencySumMs = 0;
  let successes = 0;
  let count = 0;
  for (const part of parts) {
    predictions += part.predictions;
    successes += part.feedback.successes;
    count += part.feedback.count;
    if (part.meanLatencyMs === null) continue;
    timed += part.predictions;
    latencySumMs += part.meanLatencyMs * part.predictions;
  }
  return {
    predictions,
    meanLatencyMs: timed === 0 ? null : latencySumMs / timed,
    feedback: { successes, count },
  };
}
