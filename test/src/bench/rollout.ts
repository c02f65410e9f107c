import { readFileSync } from "node:fs";
import { join } from "node:path";
import { packagePath } from "@fieldloop/models";
import type { EnrolResponse, Facts, RolloutView } from "@fieldloop/protocol";
import { openPackage } from "@fieldloop/runtime/node";
import { endPrograms, scratchFolder, ServerProgram } from "../kit/fleet.js";
import { usageOf } from "../kit/processes.js";
import { progress, type Figure } from "./report.js";
import { RolloutDevice } from "./rollout-device.js";
import { runEngineSimulation } from "./rollout-engine.js";

const DEVICES = 10_000;
const SIMULATED = 100_000;
const ENROL_AT_ONCE = 32;
const OFFERS_PER_MINUTE = 12_000;
const STEP_MS = 500;
const FACTS: Facts = {
  arch: "x64",
  platform: "linux",
  cpuModel: "bench",
  cpuCount: 2,
  cpuFlags: [],
  memoryBytes: 1 << 30,
  executionProviders: ["cpu"],
  nodeVersion: "24.0.0",
  runtimeVersion: "1.30.0",
  timeZone: "UTC",
  deviceClass: "linux-x64",
  opsetMax: null,
  irVersionMax: null,
  manifestSchemaMax: 1,
};

/** A whole fleet's rollout over the real protocol against a real server process, and the engine alone on a larger one. */
export async function runRolloutSuite({ quick }: { readonly quick: boolean }): Promise<Figure[]> {
  const scratch = scratchFolder("bench-rollout");
  try {
    const figures = runEngineSimulation(quick ? SIMULATED / 10 : SIMULATED);
    return [...figures, ...(await runFleet(scratch.path, quick ? DEVICES / 10 : DEVICES))];
  } finally {
    await endPrograms();
    scratch.remove();
  }
}

async function runFleet(folder: string, count: number): Promise<Figure[]> {
  const server = await ServerProgram.start({ folder });
  const version = await server.publish(await openPackage(packagePath("parts")));
  progress(`enrolling ${count} devices`);
  const { token } = await server.client.post<{ token: string }>("/api/v1/enrolment-tokens", {
    ttlSeconds: 3600,
    uses: 10_000,
  });
  const devices: RolloutDevice[] = [];
  await inParallel(count, async (at) => {
    const body = { token, device: `d${at}`, tags: { site: `site-${at % 100}` }, facts: FACTS };
    const identity = await server.client.post<EnrolResponse>("/api/v1/enrol", body);
    devices.push(await RolloutDevice.connect(server.mqttPort, identity, FACTS));
  });
  progress("rolling out");
  const before = usageOf(server.pid);
  const begin = performance.now();
  const { rollout } = await server.client.post<RolloutView>("/api/v1/rollouts", {
    change: { kind: "package", model: version.model, version: version.version },
    target: { group: "all" },
    waves: [{ percent: 100 }],
    offersPerMinute: OFFERS_PER_MINUTE,
    gate: {
      soakSeconds: 0,
      predictionsMin: 0,
      accuracyDropMax: null,
      latencyRatioMax: null,
      silenceSeconds: 600,
    },
    forceReason: "a bench of the engine, not of the model",
  });
  let residentBytes = 0;
  while (devices.some(({ active }) => !active) && performance.now() - begin < 900_000) {
    residentBytes = Math.max(residentBytes, usageOf(server.pid).residentBytes);
    await new Promise((resolve) => setTimeout(resolve, STEP_MS));
  }
  const offeredMs = performance.now() - begin;
  const after = usageOf(server.pid);
  const view = await server.settled(rollout, 120_000);
  const metrics = await readMetrics(server);
  for (const device of devices) device.end();
  await server.stop();
  const what = (text: string): string => `${count} devices over MQTT, real server: ${text}`;
  const tick = (kind: string): number =>
    Number(
      new RegExp(`fieldloop_rollout_tick_ms\\{kind="${kind}"\\} (\\S+)`).exec(metrics)?.[1] ?? Number.NaN,
    );
  return [
    {
      id: "fleet_active",
      what: what("devices proven active"),
      value: view.counts.active,
      unit: "",
      bar: { at: "least", value: count },
    },
    {
      id: "offers_per_minute",
      what: what("offers a minute"),
      value: (count / offeredMs) * 60_000,
      unit: "",
      bar: { at: "least", value: 1_000 },
    },
    { id: "tick_p50", what: what("tick with its commit, median"), value: tick("p50"), unit: "ms" },
    {
      id: "tick_p99",
      what: what("tick with its commit, p99"),
      value: tick("p99"),
      unit: "ms",
      bar: { at: "most", value: 250 },
    },
    {
      id: "server_rss",
      what: what("server, resident at most"),
      value: residentBytes / 1e6,
      unit: "MB",
      bar: { at: "most", value: 1_000 },
    },
    {
      id: "server_cpu",
      what: what("server, of one core"),
      value: ((after.cpuMs - before.cpuMs) / offeredMs) * 100,
      unit: "%",
    },
  ];
}

async function readMetrics(server: ServerProgram): Promise<string> {
  const token = readFileSync(join(server.dataDir, "admin-token"), "utf8").trim();
  const answer = await fetch(`${server.url}/metrics`, { headers: { authorization: `Bearer ${token}` } });
  return answer.text();
}

async function inParallel(count: number, work: (at: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: ENROL_AT_ONCE }, worker));
}
