import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { packagePath } from "@fieldloop/models";
import { upTopic, type ModelVersion, type Overview } from "@fieldloop/protocol";
import { openPackage, type ModelPackage } from "@fieldloop/runtime/node";
import { generate } from "mqtt-packet";
import { AgentProgram, endPrograms, scratchFolder, ServerProgram } from "../kit/fleet.js";
import { usageOf } from "../kit/processes.js";
import { measureFlatOut } from "./flat-out.js";
import { measureIngest } from "./ingest.js";
import { progress, type Figure } from "./report.js";
import { storedRows, swapGaps } from "./stored.js";

const LIVE_MS = 20_000;
const WARM_MS = 3_000;
const LIVE_FPS = 15;
const LOADED_FPS = 60;
const SWAPS = 3;
const STEP_MS = 90_000;

/** One fleet of real processes with the shipped `parts` model, measured in parts one after the other. */
export async function runLoopSuite(): Promise<Figure[]> {
  const scratch = scratchFolder("bench");
  try {
    const folder = scratch.path;
    progress("starting a server");
    const server = await ServerProgram.start({ folder });
    await server.client.patch("/api/v1/policies/default", { bytesPerHour: 0, predictionsIntervalSeconds: 2 });
    const made = await openPackage(packagePath("parts"));
    const first = await server.publish(made);
    const figures = [
      ...(await measureLive(folder, server, first)),
      ...(await measureSwaps(folder, server, made, first)),
      ...(await measureFlatOut(
        folder,
        server,
        made,
        (agent, version) => enrol(server, agent, version),
        first,
      )),
    ];
    await server.stop();
    figures.push(...(await measureIngest(folder, storedRows(server.dataDir, "live"))));
    return figures;
  } finally {
    await endPrograms();
    scratch.remove();
  }
}

/** Enrols and starts an agent and waits until it runs the version. */
async function enrol(server: ServerProgram, agent: AgentProgram, version: ModelVersion): Promise<void> {
  await agent.start({ server: server.url, token: await server.enrolmentToken() });
  await rollOut(server, agent, version);
}

async function rollOut(server: ServerProgram, agent: AgentProgram, version: ModelVersion): Promise<void> {
  const { rollout } = await server.rollOut(version, [agent.device]);
  const view = await server.settled(rollout, STEP_MS);
  if (view.state !== "succeeded")
    throw new Error(`Roll ${version.model}@${version.version} out: it is ${view.state}`);
}

/** What a camera at 15 frames a second costs: bytes on the wire, memory and processor time. */
async function measureLive(folder: string, server: ServerProgram, first: ModelVersion): Promise<Figure[]> {
  const agent = new AgentProgram({
    folder,
    device: "live",
    source: `simulator:parts?fps=${LIVE_FPS}&feedback=0`,
  });
  await enrol(server, agent, first);
  await sleep(WARM_MS);
  progress(`a camera at ${LIVE_FPS} frames a second, for ${LIVE_MS / 1000} s`);
  const { hostPid } = await agent.state();
  const before = { control: usageOf(agent.pid), host: usageOf(hostPid!) };
  const begin = performance.now();
  await sleep(LIVE_MS);
  const wallMs = performance.now() - begin;
  const after = { control: usageOf(agent.pid), host: usageOf(hostPid!) };
  await agent.stop();
  const { bytesPerPrediction } = await server.client.get<Overview>("/api/v1/overview");
  const share = (part: "control" | "host"): number =>
    ((after[part].cpuMs - before[part].cpuMs) / wallMs) * 100;
  return [
    {
      id: "bytes_per_prediction_live",
      what: `bytes a prediction at ${LIVE_FPS} fps, one message every 2 s: MQTT headers, PUBACK and ack included`,
      value: bytesPerPrediction!,
      unit: "B",
      peer: { what: "B as JSON, one message each", value: jsonBytes(server.dataDir) },
    },
    {
      id: "control_rss",
      what: "agent's control process, resident",
      value: after.control.residentBytes / 1e6,
      unit: "MB",
    },
    {
      id: "host_rss",
      what: "agent's inference host, resident",
      value: after.host.residentBytes / 1e6,
      unit: "MB",
    },
    {
      id: "control_cpu",
      what: `control at ${LIVE_FPS} fps, of one core`,
      value: share("control"),
      unit: "%",
    },
    {
      id: "host_cpu",
      what: `host at ${LIVE_FPS} fps, of one core (drawing the scene included)`,
      value: share("host"),
      unit: "%",
    },
  ];
}

/** The same predictions as objects, each a QoS 1 message of its own: PUBLISH, topic, JSON and PUBACK. */
function jsonBytes(dataDir: string): number {
  const { rows, signalNames } = storedRows(dataDir, "live");
  const topic = upTopic("live", "predictions");
  let bytes = 0;
  for (const { signals, ...row } of rows) {
    const named = Object.fromEntries(
      signalNames.map((name, index) => [name, Number(signals[index]!.toFixed(4))]),
    );
    const confidence = Number(row.confidence.toFixed(4));
    const latencyMs = Number(row.latencyMs.toFixed(2));
    const json = JSON.stringify({
      model: "parts",
      version: 1,
      ...row,
      confidence,
      latencyMs,
      signals: named,
    });
    const packet = generate({
      cmd: "publish",
      topic,
      payload: json,
      qos: 1,
      messageId: 1,
      retain: false,
      dup: false,
    });
    bytes += packet.length + generate({ cmd: "puback", messageId: 1 }).length;
  }
  return bytes / rows.length;
}

/** Swaps versions while frames come at four times the rate of a camera. */
async function measureSwaps(
  folder: string,
  server: ServerProgram,
  made: ModelPackage,
  first: ModelVersion,
): Promise<Figure[]> {
  const agent = new AgentProgram({
    folder,
    device: "swap",
    source: `simulator:parts?seed=2&fps=${LOADED_FPS}&feedback=0`,
  });
  await enrol(server, agent, first);
  let version = first;
  for (let swap = 1; swap <= SWAPS; swap++) {
    progress(`swap ${swap} of ${SWAPS} at ${LOADED_FPS} frames a second`);
    version = await server.publish(await nextVersion(folder, made, version.version + 1));
    await rollOut(server, agent, version);
    await sleep(1_000);
  }
  await agent.stop();
  const { items } = await server.client.get<{
    items: { version: number; measured: Record<string, number> }[];
  }>("/api/v1/devices/swap/deployments");
  const swaps = items.filter((item) => item.version > first.version);
  const worst = (name: string): number =>
    Math.max(...swaps.map(({ measured }) => measured[name] ?? Number.NaN));
  const gaps = swapGaps(server.dataDir, "swap");
  return [
    {
      id: "swap_gap",
      what: `longest of ${SWAPS} swaps: no frame could be taken for`,
      value: worst("swapGapMs"),
      unit: "ms",
    },
    {
      id: "swap_prediction_gap",
      what: "longest time from the last prediction of the old to the first of the new version",
      value: Math.max(...gaps.swaps),
      unit: "ms",
      peer: { what: "ms between two predictions else (99th percentile)", value: gaps.p99 },
    },
    {
      id: "swap_dropped",
      what: "frames dropped while the new version was loaded, most",
      value: worst("framesDroppedDuringSwap"),
      unit: "",
    },
    {
      id: "load_time",
      what: "loading and warming the new version beside the old one, longest",
      value: worst("loadMs"),
      unit: "ms",
    },
  ];
}

/** The same package under the next number. */
async function nextVersion(folder: string, made: ModelPackage, version: number): Promise<ModelPackage> {
  const directory = join(folder, `parts-${version}`);
  await cp(made.dir, directory, { recursive: true });
  const path = join(directory, "manifest.json");
  const manifest = JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>;
  await writeFile(path, JSON.stringify({ ...manifest, version }));
  return openPackage(directory);
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
