import type { DeviceEvidence, DeviceStats, GateEvidence } from "./gate-evidence.js";
import {
  hasFailed,
  type DeviceObservation,
  type Rollout,
  type RolloutDevice,
  type VersionCounts,
} from "./rollout.js";

/** What the gate of one wave looks at: the wave's devices with their observations. Without a control group yet, plain limits judge. */
export function gatherEvidence(
  rollout: Rollout,
  wave: number,
  observations: ReadonlyMap<string, DeviceObservation>,
  waveTimedOut: boolean,
): GateEvidence {
  const earlier = rollout.devices.filter((device) => device.wave < wave);
  return {
    wave,
    devices: rollout.devices
      .filter((device) => device.wave === wave)
      .map((device) => evidenceOf(rollout, device, observations.get(device.device))),
    // A device may have failed within its own wave and within the allowed share; both are counted against the same share.
    earlier: { count: earlier.length, failed: earlier.filter(({ state }) => hasFailed(state)).length },
    elapsedSeconds: 0,
    waveTimedOut,
    look: 0,
  };
}

function evidenceOf(
  rollout: Rollout,
  { device, state }: RolloutDevice,
  observation: DeviceObservation | undefined,
): DeviceEvidence {
  return {
    device,
    arm: "canary",
    state,
    before: observation ? statsOf(observation.before) : null,
    during: statsOf(observation?.after ?? NOTHING),
    silentSeconds: state === "silent" ? rollout.gate.silenceSeconds : 0,
    shadow: null,
  };
}

const NOTHING: VersionCounts = { predictions: 0, meanLatencyMs: null, feedback: { successes: 0, count: 0 } };

function statsOf({ predictions, meanLatencyMs, feedback }: VersionCounts): DeviceStats {
  const unknown = { count: 0, mean: 0, m2: 0 };
  return {
    predictions,
    seconds: 0,
    latencyMs: meanLatencyMs === null ? unknown : { count: predictions, mean: meanLatencyMs, m2: 0 },
    confidence: unknown,
    classes: {},
    crashes: 0,
    feedback,
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
