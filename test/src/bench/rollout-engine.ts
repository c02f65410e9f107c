import { rolloutRequestSchema, type Facts } from "@fieldloop/protocol";
import {
  act,
  Fleet,
  planWaves,
  RolloutEngine,
  type DeviceStats,
  type LiveRollout,
  type RolloutRecord,
} from "@fieldloop/fleet-server";
import { progress, type Figure } from "./report.js";

const FACTS: Facts = {
  arch: "x64",
  platform: "linux",
  cpuModel: "simulated",
  cpuCount: 2,
  cpuFlags: [],
  memoryBytes: 1 << 30,
  executionProviders: ["cpu"],
  nodeVersion: "24.0.0",
  runtimeVersion: "1.30.0",
  timeZone: "UTC",
  deviceClass: "linux-x64",
  opsetMax: 21,
  irVersionMax: 10,
  manifestSchemaMax: 1,
};
const OLD = { model: "parts", version: 1, packageSha256: "1".repeat(64) };
const NEW = { model: "parts", version: 2, packageSha256: "2".repeat(64) };
/** An offer takes a device this long, seconds of the simulation. */
const UPDATE_S = 20;

/** The engine alone over a whole rollout, time running as fast as it steps: devices that do what they are told. */
export function runEngineSimulation(count: number): Figure[] {
  progress(`${count} devices in an accelerated simulation of the engine`);
  const heapBefore = process.memoryUsage().heapUsed;
  let now = 1_800_000_000_000;
  const fleet = new Fleet();
  const put = (at: number, running: typeof OLD): void => {
    const tags = { site: `site-${at % 200}` };
    const about = {
      tags,
      facts: FACTS,
      suspended: false,
      online: true,
      lastSeen: now,
      lanes: [],
      configId: null,
    };
    fleet.put({ device: `d${at}`, ...about, running });
  };
  for (let at = 0; at < count; at++) put(at, OLD);
  const engine = new RolloutEngine(fleet, { during: stats, shadow: () => null, fits: () => () => undefined });
  const planned = performance.now();
  const live = createRollout(engine, fleet, now);
  const planMs = performance.now() - planned;
  const times: number[] = [];
  const due = new Map<number, { device: string; attempt: number }[]>();
  for (let second = 0; live.state === "running" && second < 20_000; second++) {
    now += 1000;
    for (const { device, attempt } of due.get(second) ?? []) {
      put(Number(device.slice(1)), NEW);
      engine.noteWord(live.id, device, attempt, { state: "active", errorCode: null, errorMessage: null });
    }
    due.delete(second);
    if (second % 20 === 0) for (let at = 0; at < count; at++) fleet.seen(`d${at}`, now);
    const begin = performance.now();
    engine.step(now);
    times.push(performance.now() - begin);
    const { offers, compared } = live.takeJournal();
    for (const entry of [...offers, ...compared]) entry.watch = { since: now, before: null };
    due.set(
      second + UPDATE_S,
      offers.map(({ device, attempt }) => ({ device, attempt })),
    );
  }
  const sorted = times.toSorted((a, b) => a - b);
  const quantile = (share: number): number => sorted[Math.floor(sorted.length * share)]!;
  const active = [...live.devices.values()].filter(({ state }) => state === "active").length;
  const id = (name: string): string => `engine_${count}_${name}`;
  const what = (text: string): string => `${count} devices, engine alone: ${text}`;
  return [
    {
      id: id("active"),
      what: what("devices that run the new version at the end"),
      value: active,
      unit: "",
      bar: { at: "least", value: count },
    },
    { id: id("plan"), what: what("planned and loaded"), value: planMs, unit: "ms" },
    { id: id("p50"), what: what("step, median"), value: quantile(0.5), unit: "ms" },
    {
      id: id("p99"),
      what: what("step, p99"),
      value: quantile(0.99),
      unit: "ms",
      bar: { at: "most", value: 250 },
    },
    {
      id: id("heap"),
      what: what("heap"),
      value: (process.memoryUsage().heapUsed - heapBefore) / 1e6,
      unit: "MB",
    },
  ];
}

function createRollout(engine: RolloutEngine, fleet: Fleet, now: number): LiveRollout {
  const request = rolloutRequestSchema.parse({
    change: { kind: "package", model: "parts", version: 2 },
    target: { group: "all" },
    waves: [{ percent: 1 }, { percent: 10 }, { percent: 100 }],
    control: { share: 0.02 },
    budgets: [{ tag: "site", maxUnavailable: { percent: 50 } }],
    offersPerMinute: 30_000,
    gate: { soakSeconds: 30, predictionsMin: 0 },
  });
  const rollout = "rol_bench";
  const { waves, devices } = planWaves(rollout, [...fleet.all()], request);
  const record: RolloutRecord = {
    ...{
      rollout,
      subject: { kind: "package", ...NEW },
      request,
      created: now,
      createdBy: "bench",
      creator: "bench",
      from: null,
    },
    ...{ state: "draft", reason: null, started: null, finished: null, approved: null },
    ...{ current: false, supersededBy: null, revision: 1 },
  };
  const live = engine.load(record, waves, devices);
  act(live, { action: "start", reason: "" }, { name: "bench", person: null, sponsor: "bench" }, now);
  return live;
}

function stats(
  _live: LiveRollout,
  entry: { watch: { since: number } | null },
  _arm: string,
  now: number,
): DeviceStats {
  const seconds = Math.max(0, now - (entry.watch?.since ?? now)) / 1000;
  const count = Math.round(seconds);
  return {
    predictions: count,
    seconds,
    latencyMs: { count, mean: 5, m2: count },
    confidence: { count, mean: 0.9, m2: count / 100 },
    classes: { bar: count },
    crashes: 0,
    feedback: { successes: 0, count: 0 },
  };
}
