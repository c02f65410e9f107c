import { rolloutRequestSchema, type GateSettings } from "@fieldloop/protocol";
import {
  act,
  Fleet,
  planWaves,
  RolloutEngine,
  type DeviceEvidence,
  type LiveRollout,
  type RolloutRecord,
} from "@fieldloop/fleet-server";
import { TEST_FACTS } from "./api.js";
import type { VersionEffect } from "./simulated-fleet.js";
import { LOOK_SECONDS, LOOKS, type WaveSizes } from "./simulated-gate.js";
import { SimulatedWave } from "./simulated-wave.js";

const OLD = { model: "parts", version: 1, packageSha256: "1".repeat(64) };
const NEW = { model: "parts", version: 2, packageSha256: "2".repeat(64) };
/** The soak begins when no device is at it: later in runs where one that was offline returns. */
const LOOKS_MAX = LOOKS + 15;
const BEGIN_MS = 1_800_000_000_000;

export interface EngineWave {
  readonly state: string;
  readonly look: number;
  /** Tests that failed. */
  readonly failed: readonly string[];
}

/**
 * A first wave as the rollout engine itself goes through it: its own plan, offers, reports, silence and looks, with devices that behave
 * as `SimulatedWave` draws them. @returns the wave's state in the end, and the look after which it was reached
 */
export function runEngineWave(
  seed: readonly number[],
  { canary, control }: WaveSizes,
  effect: VersionEffect,
  gate: GateSettings,
): EngineWave {
  const fleet = new Fleet();
  const count = canary + control;
  const about = { tags: {}, facts: TEST_FACTS, suspended: false, lanes: [], configId: null };
  for (let at = 0; at < count; at++)
    fleet.put({ device: `d${at}`, ...about, online: true, lastSeen: BEGIN_MS, running: OLD });
  const evidence = new Map<string, DeviceEvidence>();
  const engine = new RolloutEngine(fleet, {
    during: (_live, entry) => evidence.get(entry.device)!.during,
    shadow: () => null,
    fits: () => () => undefined,
  });
  const live = begin(engine, fleet, { canary, control }, gate);
  const simulated = new SimulatedWave({ seed, canaryDevices: canary, controlDevices: control, effect });
  // The plan drew who is canary; the simulation's devices are alike but for that.
  const names: string[] = [];
  const drawn = simulated.evidence().devices;
  const watch = (): void => {
    const { watched, compared } = live.takeJournal();
    for (const entry of [...watched, ...compared]) {
      const one = drawn[names.indexOf(entry.device)]!;
      entry.watch = { since: BEGIN_MS, before: one.before };
    }
  };
  const ordered = [...live.devices.values()].sort((a, b) => a.wave - b.wave || a.position - b.position);
  for (const { device } of ordered) names.push(device);
  for (const [at, one] of drawn.entries()) evidence.set(names[at]!, one);
  for (let step = 0; step < 10; step++) {
    engine.step(BEGIN_MS);
    watch();
  }
  for (let look = 1; look <= LOOKS_MAX; look++) {
    simulated.advance(LOOK_SECONDS);
    const now = BEGIN_MS + look * LOOK_SECONDS * 1000;
    for (const [at, one] of simulated.evidence().devices.entries()) {
      const device = names[at]!;
      evidence.set(device, one);
      fleet.seen(device, now - one.silentSeconds * 1000);
      if (one.arm === "control" || one.state === "offered") continue;
      const active = one.state === "active";
      if (active && fleet.get(device)!.running !== NEW)
        fleet.put({ device, ...about, online: true, lastSeen: 0, running: NEW });
      const errorCode = active ? null : "storage_full";
      engine.noteWord(live.id, device, 1, {
        state: active ? "active" : "failed",
        errorCode,
        errorMessage: null,
      });
    }
    while (engine.step(now));
    watch();
    const { state, verdict } = live.waves[0]!;
    const failed = verdict?.tests.filter((test) => test.verdict === "fail").map(({ test }) => test) ?? [];
    if (state === "failed" || state === "passed") return { state, look, failed };
  }
  return { state: live.waves[0]!.state, look: LOOKS_MAX, failed: [] };
}

function begin(engine: RolloutEngine, fleet: Fleet, sizes: WaveSizes, gate: GateSettings): LiveRollout {
  const request = rolloutRequestSchema.parse({
    change: { kind: "package", model: NEW.model, version: NEW.version },
    target: { group: "all" },
    waves: [{ count: sizes.canary }, { percent: 100 }],
    control: { count: sizes.control },
    offersPerMinute: 60_000,
    retries: { max: 0 },
    gate: { ...gate, soakSeconds: (LOOKS - 3) * LOOK_SECONDS, waveTimeoutSeconds: 86_400 },
  });
  const rollout = "rol_simulated";
  const { waves, devices } = planWaves(rollout, [...fleet.all()], request);
  const record: RolloutRecord = {
    ...{
      rollout,
      subject: { kind: "package", ...NEW },
      request,
      created: BEGIN_MS,
      createdBy: "bench",
      creator: "bench",
    },
    ...{ from: null, state: "draft", reason: null, started: null, finished: null, approved: null },
    ...{ current: false, supersededBy: null, revision: 1 },
  };
  const live = engine.load(record, waves, devices);
  act(live, { action: "start", reason: "" }, { name: "bench", person: null, sponsor: "bench" }, BEGIN_MS);
  return live;
}
