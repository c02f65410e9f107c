import type { DeviceEvidence, DeviceStats, GateEvidence } from "./gate-evidence.js";

/** Evidence for tests: healthy devices, changed where a test says so. */
export const HEALTHY: DeviceStats = {
  predictions: 1000,
  seconds: 3600,
  latencyMs: { count: 1000, mean: 2, m2: 100 },
  confidence: { count: 1000, mean: 0.9, m2: 10 },
  classes: { ok: 900, scratch: 100 },
  crashes: 0,
  feedback: { successes: 19, count: 20 },
};

export interface DeviceChange extends Partial<Omit<DeviceEvidence, "during" | "before">> {
  readonly during?: Partial<DeviceStats>;
  readonly before?: Partial<DeviceStats> | null;
}

export function makeDevice(device: string, change: DeviceChange = {}): DeviceEvidence {
  return {
    device,
    arm: "canary",
    state: "active",
    silentSeconds: 0,
    shadow: null,
    ...change,
    before: change.before === null ? null : { ...HEALTHY, ...change.before },
    during: { ...HEALTHY, ...change.during },
  };
}

/** `count` devices of one arm; `change` gets each one's number. */
export function makeArm(
  arm: DeviceEvidence["arm"],
  count: number,
  change: (at: number) => DeviceChange = () => ({}),
): DeviceEvidence[] {
  return Array.from({ length: count }, (_, at) => makeDevice(`${arm}-${at}`, { arm, ...change(at) }));
}

export function makeEvidence(
  devices: readonly DeviceEvidence[],
  change: Partial<GateEvidence> = {},
): GateEvidence {
  return {
    wave: 1,
    devices,
    earlier: { count: 5, failed: 0 },
    elapsedSeconds: 3600,
    waveTimedOut: false,
    look: 0,
    ...change,
  };
}
