import type { FleetDevice } from "./fleet.js";
import type { DeviceEvidence, DeviceStats, GateEvidence, ShadowCounts } from "./gate-evidence.js";
import type { LiveRollout } from "./rollout-live.js";
import { heardAt } from "./rollout-reports.js";
import type { RolloutDevice, RolloutWave } from "./rollout.js";

/** What telemetry says about a device since it is watched. */
export interface EvidenceSource {
  /** Of the new version on a device that was asked, of what it runs on one that is compared with. */
  during(live: LiveRollout, entry: RolloutDevice, arm: DeviceEvidence["arm"], now: number): DeviceStats;
  shadow(live: LiveRollout, entry: RolloutDevice): ShadowCounts | null;
  /** Whether all of it was read for the look that is due; a look waits for it. Absent: always. */
  isFresh?(live: LiveRollout): boolean;
}

/**
 * Devices compared with, at most. What rests on the random draw alone (crashed and silent devices) needs several times the canaries;
 * more would not narrow an interval that matters.
 */
const COMPARED_MAX = 3_000;

/**
 * Who canaries are compared with while a wave runs: the control group, else devices whose wave has not come. Chosen when the wave
 * begins, by their place in the random order and by nothing that is measured; and online then, as a canary is when it is asked.
 */
export function chooseCompared(
  live: LiveRollout,
  wave: RolloutWave,
  deviceOf: (device: string) => FleetDevice | undefined,
): RolloutDevice[] {
  const later = live.waves.filter((one) => one.wave > wave.wave);
  const held = later.filter(({ plan }) => plan === null);
  const chosen: RolloutDevice[] = [];
  for (const { wave: number } of held.length > 0 ? held : later) {
    for (const entry of live.members[number - 1]!) {
      if (entry.state !== "waiting") continue;
      const device = deviceOf(entry.device);
      if (!device || !device.online || device.suspended) continue;
      chosen.push(entry);
      if (chosen.length >= COMPARED_MAX) return chosen;
    }
  }
  return chosen;
}

/** What the gate of a wave looks at. */
export function gatherEvidence(
  live: LiveRollout,
  wave: RolloutWave,
  source: EvidenceSource,
  deviceOf: (device: string) => FleetDevice | undefined,
  now: number,
): GateEvidence {
  const began = wave.started ?? now;
  const devices: DeviceEvidence[] = [];
  const evidence = (entry: RolloutDevice, arm: DeviceEvidence["arm"], since: number): DeviceEvidence => ({
    device: entry.device,
    arm,
    state: entry.state,
    before: entry.watch?.before ?? null,
    during: source.during(live, entry, arm, now),
    silentSeconds: Math.max(0, now - Math.max(since, deviceOf(entry.device)?.lastSeen ?? 0)) / 1000,
    shadow: arm === "canary" ? source.shadow(live, entry) : null,
  });
  for (const entry of live.watched[wave.wave - 1]!) {
    if (entry.offered === null || entry.state === "skipped") continue;
    devices.push(evidence(entry, "canary", heardAt(entry, undefined)));
  }
  for (const entry of live.compared) {
    // Watched since this wave began; a device that was watched for an earlier wave only is not.
    if (entry.wave <= wave.wave || entry.state !== "waiting") continue;
    if (!entry.watch || entry.watch.since < began) continue;
    devices.push(evidence(entry, "control", entry.watch.since));
  }
  const { active, updating, failed, silent } = live.tallies[wave.wave - 1]!;
  return {
    wave: wave.wave,
    devices,
    canaries: {
      asked: active + updating + failed + silent,
      settled: active + failed + silent,
      failed,
      silent,
    },
    earlier: earlierWaves(live, wave),
    elapsedSeconds: (now - began) / 1000,
    // Devices that take too long are given up one by one.
    waveTimedOut: false,
    look: wave.looks,
  };
}

function earlierWaves(live: LiveRollout, wave: RolloutWave): GateEvidence["earlier"] {
  let count = 0;
  let failed = 0;
  for (const { wave: number } of live.waves) {
    if (number >= wave.wave) continue;
    const tally = live.tallies[number - 1]!;
    count += tally.active + tally.updating + tally.lost + tally.silent;
    // A device may have failed within its own wave and within the allowed share; both are counted against the same share.
    failed += tally.lost;
  }
  return { count, failed };
}
