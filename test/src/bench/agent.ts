import { join } from "node:path";
import { packagePath } from "@fieldloop/models";
import type { ModelVersion } from "@fieldloop/protocol";
import { headOutputs } from "@fieldloop/runtime";
import {
  DEFAULT_SPIN_DURATION_US,
  openBareRunner,
  openModel,
  openPackage,
  type ModelPackage,
} from "@fieldloop/runtime/node";
import { createPartsScene } from "@fieldloop/runtime/simulate";
import { AgentProgram, endPrograms, scratchFolder, ServerProgram } from "../kit/fleet.js";
import { freePort } from "../kit/proxy.js";
import { commandOf, proportionalBytesOf, usageOf } from "../kit/processes.js";
import { measureSoak } from "./agent-soak.js";
import { measureSwaps } from "./agent-swap.js";
import { median, progress, SuiteUnavailable, type Figure } from "./report.js";

/** One device with its model throughout, started again with another source. */
const DEVICE = "camera";
const FPS = 30;
const EARLY_MS = 10_000;
const LATE_MS = 60_000;
/** Long enough that one collection of garbage, which takes a tenth of a second or more, is not all of it. */
const IDLE_MS = 40_000;
/** What a start leaves to do (collecting garbage, compiling what is used often) is over by then. */
const IDLE_SETTLE_MS = 15_000;
const RESTARTS = 5;
const POLL_MS = 10;
const STEP_MS = 90_000;
const BARE_RUNS = 300;

const RESIDENT_MB_MAX = 180;
const CPU_BEYOND_MODEL_MAX = 15;
const IDLE_CPU_MAX = 1;
const FIRST_PREDICTION_MS_MAX = 1200;

/** What the agent takes of a device: `fieldloop agent` as people start it, with the shipped `parts` model. */
export async function runAgentSuite({ quick }: { readonly quick: boolean }): Promise<Figure[]> {
  const scratch = scratchFolder("bench-agent");
  try {
    const folder = scratch.path;
    progress("starting a server");
    const server = await ServerProgram.start({ folder });
    const made = await openPackage(packagePath("parts"));
    const version = await server.publish(made);
    const figures = [
      ...(await measureAtRate(folder, server, made, version, quick)),
      ...(await measureIdle(folder)),
      ...(await measureSwaps({ folder, device: DEVICE, server, made, version, quick })),
    ];
    await server.stop();
    figures.push(...(await measureSoak(folder, quick)));
    return figures;
  } finally {
    await endPrograms();
    scratch.remove();
  }
}

/** Memory and processor time of both processes with a camera, and how soon they predict after a start. */
async function measureAtRate(
  folder: string,
  server: ServerProgram,
  made: ModelPackage,
  version: ModelVersion,
  quick: boolean,
): Promise<Figure[]> {
  const source = `simulator:parts?fps=${FPS}&feedback=0`;
  const agent = new AgentProgram({ folder, device: DEVICE, source });
  await agent.start({ server: server.url, token: await server.enrolmentToken() });
  const { rollout } = await server.rollOut(version, [agent.device]);
  const view = await server.settled(rollout, STEP_MS);
  if (view.state !== "succeeded") throw new Error(`Roll parts@${version.version} out: it is ${view.state}`);
  await requireBuild(agent);
  const starts = await measureStarts(agent);
  progress(`both processes at ${FPS} frames a second`);
  await sleep(EARLY_MS);
  const early = await memoryOf(agent);
  const cpuMs = await cpuMsOf(agent);
  const begin = performance.now();
  await sleep(quick ? EARLY_MS : LATE_MS - EARLY_MS);
  const share = (((await cpuMsOf(agent)) - cpuMs) / (performance.now() - begin)) * 100;
  const late = await memoryOf(agent);
  await agent.stop();
  const runMs = await bareRunMs(made);
  const modelShare = ((runMs * FPS) / 1000) * 100;
  const what = `both processes of the agent at ${FPS} fps, resident`;
  return [
    memoryFigure("agent_rss_10s", `${what}, after ${EARLY_MS / 1000} s`, early),
    memoryFigure("agent_rss_60s", `${what}, after ${quick ? 20 : 60} s`, late),
    {
      id: "agent_cpu_beyond_model",
      what: `both processes at ${FPS} fps without the model's own compute, of one core (drawing the scene included)`,
      value: share - modelShare,
      unit: "%",
      peer: { what: `% for ${FPS} bare runs a second`, value: modelShare },
      bar: { at: "most", value: CPU_BEYOND_MODEL_MAX },
    },
    {
      id: "agent_first_prediction",
      what: `from the start to the first prediction, files warm, median of ${RESTARTS}`,
      value: median(starts.predicted),
      unit: "ms",
      peer: { what: "ms until it says that it started", value: median(starts.started) },
      bar: { at: "most", value: FIRST_PREDICTION_MS_MAX },
    },
  ];
}

/** An agent that lost its own build measures something else than what is shipped. */
async function requireBuild(agent: AgentProgram): Promise<void> {
  const { hostPid } = await agent.state();
  const command = commandOf(hostPid!);
  if (command.some((word) => word.endsWith("bundle/host-main.js"))) return;
  throw new SuiteUnavailable(
    `the agent runs ${command.join(" ")}, not its own build: run npm run build, and change nothing meanwhile`,
  );
}

async function measureStarts(
  agent: AgentProgram,
): Promise<{ readonly started: number[]; readonly predicted: number[] }> {
  const started: number[] = [];
  const predicted: number[] = [];
  for (let start = 1; start <= RESTARTS; start++) {
    progress(`start ${start} of ${RESTARTS}`);
    await agent.stop();
    const begin = performance.now();
    await agent.start();
    started.push(performance.now() - begin);
    while ((await agent.state()).counters.predictions === 0) await sleep(POLL_MS);
    predicted.push(performance.now() - begin);
  }
  return { started, predicted };
}

/** Connected to the server, with a model and a source that brings nothing. */
async function measureIdle(folder: string): Promise<Figure[]> {
  const agent = new AgentProgram({ folder, device: DEVICE, source: `http:${await freePort()}` });
  await agent.start();
  progress("an agent without frames");
  await sleep(IDLE_SETTLE_MS);
  const cpuMs = await cpuMsOf(agent);
  const begin = performance.now();
  await sleep(IDLE_MS);
  const share = (((await cpuMsOf(agent)) - cpuMs) / (performance.now() - begin)) * 100;
  const memory = await memoryOf(agent);
  await agent.stop();
  return [
    {
      id: "agent_idle_cpu",
      what: "both processes without frames, of one core",
      value: share,
      unit: "%",
      bar: { at: "most", value: IDLE_CPU_MAX },
    },
    memoryFigure("agent_idle_rss", "both processes without frames, resident", memory),
  ];
}

interface Memory {
  readonly residentMb: number;
  readonly proportionalMb: number;
}

async function memoryOf(agent: AgentProgram): Promise<Memory> {
  const pids = await processesOf(agent);
  const sum = (bytesOf: (pid: number) => number): number =>
    pids.reduce((total, pid) => total + bytesOf(pid), 0) / 1e6;
  return {
    residentMb: sum((pid) => usageOf(pid).residentBytes),
    proportionalMb: sum(proportionalBytesOf),
  };
}

async function cpuMsOf(agent: AgentProgram): Promise<number> {
  return (await processesOf(agent)).reduce((total, pid) => total + usageOf(pid).cpuMs, 0);
}

async function processesOf(agent: AgentProgram): Promise<number[]> {
  const { hostPid } = await agent.state();
  return [agent.pid, hostPid!];
}

function memoryFigure(id: string, what: string, { residentMb, proportionalMb }: Memory): Figure {
  return {
    id,
    what,
    value: residentMb,
    unit: "MB",
    peer: { what: "MB when shared pages are counted once (PSS)", value: proportionalMb },
    bar: { at: "most", value: RESIDENT_MB_MAX },
  };
}

/** Milliseconds of one bare run of ONNX Runtime on the variant that the agent takes. */
async function bareRunMs(made: ModelPackage): Promise<number> {
  const model = await openModel(made, { threadCount: 1 });
  try {
    const { pixels, width, height } = createPartsScene({ seed: 5 }).next();
    const { feeds } = await model.prepare({ kind: "pixels", data: pixels, width, height, channels: 3 });
    const options = {
      threadCount: 1,
      executionProvider: model.executionProvider,
      spinDurationUs: DEFAULT_SPIN_DURATION_US,
    };
    const path = join(made.dir, model.variant.file);
    const bare = await openBareRunner(path, options, feeds, headOutputs(model.manifest.heads));
    const times: number[] = [];
    for (let run = 0; run < BARE_RUNS; run++) {
      const begin = performance.now();
      await bare.run();
      times.push(performance.now() - begin);
    }
    await bare.release();
    return median(times);
  } finally {
    await model.release();
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
