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
const BARE_MS = 2_000;
const AGENT_MS = 8_000;
const WARM_MS = 2_000;
/** The agent's tests and this one give one thread to an operator. */
const THREADS = 1;

/**
 * Predictions a second through the whole agent, from JPEG files to the spool, with nothing to wait for; before and after it
 * bare ONNX Runtime on the same variant, tensor ready, and our own `predict` in one process.
 */
export async function measureFlatOut(
  folder: string,
  server: ServerProgram,
  made: ModelPackage,
  enrol: (agent: AgentProgram, version: ModelVersion) => Promise<void>,
  version: ModelVersion,
): Promise<Figure[]> {
  const images = join(folder, "images");
  const frames = await writeImages(images);
  const agent = new AgentProgram({
    folder,
    device: "flat-out",
    source: `folder:${images}?fps=1000&loop=1&drop=wait`,
  });
  const before = await measureBare(made, frames[0]!);
  await enrol(agent, version);
  await sleep(WARM_MS);
  progress(`an agent flat out, for ${AGENT_MS / 1000} s`);
  const from = (await agent.state()).counters.predictions;
  const begin = performance.now();
  await sleep(AGENT_MS);
  const to = (await agent.state()).counters.predictions;
  const perSecond = ((to - from) / (performance.now() - begin)) * 1000;
  await agent.stop();
  const after = await measureBare(made, frames[0]!);
  const stored = (await server.device("flat-out")).predictionsTotal;
  const bare = (before.bare + after.bare) / 2;
  return [
    {
      id: "agent_predictions_per_second",
      what: "predictions through one agent flat out, JPEG files decoded",
      value: perSecond,
      unit: "/s",
      peer: { what: "/s bare ONNX Runtime", value: bare },
    },
    {
      id: "predict_per_second",
      what: "predict() in one process, the same JPEG decoded",
      value: (before.predict + after.predict) / 2,
      unit: "/s",
      peer: { what: "/s bare ONNX Runtime", value: bare },
    },
    {
      id: "flat_out_stored",
      what: "predictions of that agent stored at the server",
      value: stored,
      unit: "",
    },
  ];
}

async function writeImages(folder: string): Promise<Frame[]> {
  await mkdir(folder, { recursive: true });
  const scene = createPartsScene({ seed: 5 });
  const frames: Frame[] = [];
  for (let index = 0; index < IMAGES; index++) {
    const { pixels, width, height } = scene.next();
    const bytes = await encodeJpeg({ kind: "pixels", data: pixels, width, height, channels: 3 }, 92);
    await writeFile(join(folder, `${String(index).padStart(3, "0")}.jpg`), bytes);
    frames.push({ kind: "encoded", bytes });
  }
  return frames;
}

/** Runs a second of each in this process, in turns of 50 ms so that both meet the same state of the machine. */
async function measureBare(made: ModelPackage, frame: Frame): Promise<{ bare: number; predict: number }> {
  progress(`bare ONNX Runtime and predict(), for ${(2 * BARE_MS) / 1000} s`);
  const model = await openModel(made, { threadCount: THREADS });
  try {
    const { feeds } = await model.prepare(frame);
    const options = {
      threadCount: THREADS,
      executionProvider: model.executionProvider,
      spinDurationUs: DEFAULT_SPIN_DURATION_US,
    };
    const bare = await openBareRunner(
      join(made.dir, model.variant.file),
      options,
      feeds,
      headOutputs(model.manifest.heads),
    );
    try {
      const counts = { bare: { runs: 0, ms: 0 }, predict: { runs: 0, ms: 0 } };
      await Promise.all([bare.run(), model.predict(frame)]);
      const end = performance.now() + 2 * BARE_MS;
      while (performance.now() < end) {
        await block(bare.run, counts.bare);
        await block(() => model.predict(frame), counts.predict);
      }
      const rate = ({ runs, ms }: { runs: number; ms: number }): number => (runs / ms) * 1000;
      return { bare: rate(counts.bare), predict: rate(counts.predict) };
    } finally {
      await bare.release();
    }
  } finally {
    await model.release();
  }
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
