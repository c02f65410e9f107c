import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ModelVersion } from "@fieldloop/protocol";
import { headOutputs, type Frame } from "@fieldloop/runtime";
import {
  DEFAULT_SPIN_DURATION_US,
  encodeJpeg,
  openBareRunner,
  openModel,
  type ModelPackage,
} from "@fieldloop/runtime/node";
import { createPartsScene } from "@fieldloop/runtime/simulate";
import { AgentProgram, type ServerProgram } from "../kit/fleet.js";
import { progress, type Figure } from "./report.js";

const IMAGES = 64;
const BARE_MS = 4_000;
const AGENT_MS = 8_000;
const WARM_MS = 2_000;
/** The agent's tests and this one give one thread to an operator. */
const THREADS = 1;

/**
 * Predictions a second through the whole agent, from JPEG files to the spool, with nothing to wait for; before and after it
 * bare ONNX Runtime on the same variant and as many threads, and our own `predict`, in one process.
 */
export async function measureFlatOut(
  folder: string,
  server: ServerProgram,
  made: ModelPackage,
  enrol: (agent: AgentProgram, version: ModelVersion) => Promise<void>,
  version: ModelVersion,
): Promise<Figure[]> {
  const images = join(folder, "images");
  const written = await writeImages(images);
  const agent = new AgentProgram({
    folder,
    device: "flat-out",
    source: `folder:${images}?fps=1000&loop=1&drop=wait`,
  });
  const before = await measureBare(made, written);
  await enrol(agent, version);
  await sleep(WARM_MS);
  progress(`an agent flat out, for ${AGENT_MS / 1000} s`);
  const from = (await agent.state()).counters.predictions;
  const begin = performance.now();
  await sleep(AGENT_MS);
  const to = (await agent.state()).counters.predictions;
  const perSecond = ((to - from) / (performance.now() - begin)) * 1000;
  await agent.stop();
  const after = await measureBare(made, written);
  const stored = (await server.device("flat-out")).predictionsTotal;
  const mean = (kind: Kind): number => (before[kind] + after[kind]) / 2;
  const what = "predictions through one agent flat out, from JPEG files to the spool";
  return [
    {
      id: "agent_predictions_per_second",
      what,
      value: perSecond,
      unit: "/s",
      peer: { what: "/s bare ONNX Runtime, tensor ready", value: mean("bare") },
    },
    {
      id: "agent_beside_decoding",
      what,
      value: perSecond,
      unit: "/s",
      peer: { what: "/s JPEG decoded, then bare ONNX Runtime, in one loop", value: mean("decoded") },
    },
    {
      id: "predict_per_second",
      what: "predict() from pixels, with signals",
      value: mean("predict"),
      unit: "/s",
      peer: { what: "/s bare ONNX Runtime, tensor ready", value: mean("bare") },
    },
    {
      id: "flat_out_stored",
      what: "predictions of that agent stored at the server",
      value: stored,
      unit: "",
    },
  ];
}

interface Images {
  readonly jpegs: readonly Frame[];
  readonly pixels: readonly Frame[];
}

async function writeImages(folder: string): Promise<Images> {
  await mkdir(folder, { recursive: true });
  const scene = createPartsScene({ seed: 5 });
  const jpegs: Frame[] = [];
  const pixels: Frame[] = [];
  for (let index = 0; index < IMAGES; index++) {
    const { pixels: data, width, height } = scene.next();
    const frame = { kind: "pixels", data, width, height, channels: 3 } as const;
    const bytes = await encodeJpeg(frame, 92);
    await writeFile(join(folder, `${String(index).padStart(3, "0")}.jpg`), bytes);
    jpegs.push({ kind: "encoded", bytes });
    pixels.push(frame);
  }
  return { jpegs, pixels };
}

type Kind = "bare" | "decoded" | "predict";

/** Runs of each kind a second in this process, in turns of 50 ms so that all meet the same state of the machine. */
async function measureBare(made: ModelPackage, images: Images): Promise<Record<Kind, number>> {
  progress(`bare ONNX Runtime and predict(), for ${BARE_MS / 1000} s`);
  const model = await openModel(made, { threadCount: THREADS });
  try {
    const { feeds } = await model.prepare(images.jpegs[0]!);
    const options = {
      threadCount: THREADS,
      executionProvider: model.executionProvider,
      spinDurationUs: DEFAULT_SPIN_DURATION_US,
    };
    const path = join(made.dir, model.variant.file);
    const bare = await openBareRunner(path, options, feeds, headOutputs(model.manifest.heads));
    let at = 0;
    const runs: Record<Kind, () => Promise<unknown>> = {
      bare: bare.run,
      decoded: async () => {
        await model.prepare(images.jpegs[at++ % IMAGES]!);
        await bare.run();
      },
      predict: () => model.predict(images.pixels[at++ % IMAGES]!),
    };
    try {
      return await takeTurns(runs);
    } finally {
      await bare.release();
    }
  } finally {
    await model.release();
  }
}

async function takeTurns(runs: Record<Kind, () => Promise<unknown>>): Promise<Record<Kind, number>> {
  const counts = { bare: newCount(), decoded: newCount(), predict: newCount() };
  const kinds = ["bare", "decoded", "predict"] as const;
  for (const kind of kinds) await runs[kind]();
  const end = performance.now() + BARE_MS;
  while (performance.now() < end) for (const kind of kinds) await block(runs[kind], counts[kind]);
  const rate = (kind: Kind): number => (counts[kind].runs / counts[kind].ms) * 1000;
  return { bare: rate("bare"), decoded: rate("decoded"), predict: rate("predict") };
}

function newCount(): { runs: number; ms: number } {
  return { runs: 0, ms: 0 };
}

async function block(run: () => Promise<unknown>, count: { runs: number; ms: number }): Promise<void> {
  const begin = performance.now();
  do {
    await run();
    count.runs++;
  } while (performance.now() - begin < 50);
  count.ms += performance.now() - begin;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
