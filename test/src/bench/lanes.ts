import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { whoLeaves } from "@fieldloop/device-agent";
import type { Frame } from "@fieldloop/runtime";
import { ModelWorker, openModel, type ModelPackage } from "@fieldloop/runtime/node";
import { Random } from "@fieldloop/runtime/simulate";
import type { Shooting, Shot } from "./lanes-camera.js";
import { writeNet } from "./nets.js";
import { median, progress, type Figure } from "./report.js";

const NETS = [
  { name: "small", size: 112, channels: 18, blocks: 4 },
  { name: "large", size: 144, channels: 24, blocks: 4 },
] as const;
/** Frames a second of each lane. */
const RATES = [10, 30, 60] as const;
/** The second camera is a little slower: at some time each meets the other at every moment. */
const SECOND_SHARE = 0.93;
const SEGMENT_MS = 2_000;
const ROUNDS = 4;
const WARM_RUNS = 20;

/** Whether a lane has a thread of its own. */
type Placement = readonly [boolean, boolean];
const PLACEMENTS: readonly Placement[] = [
  [false, false],
  [false, true],
  [true, true],
];

interface Lane {
  readonly frame: Frame;
  readonly here: ModelWorker;
  readonly beside: ModelWorker;
  /** Milliseconds of a run in the host's own thread. */
  readonly runMs: number;
}

/**
 * Two lanes with a camera each, their models in the host's own thread or in threads of their own: what a frame takes from the moment at which
 * it is due, waiting for the other lane included. The placement that the host chooses against the best of all.
 */
export async function measureLanes(): Promise<Figure[]> {
  const folder = await mkdtemp(join(tmpdir(), "fieldloop-lanes-"));
  const lanes: Lane[] = [];
  try {
    for (const net of NETS) lanes.push(await openLane(await writeNet(folder, net)));
    const figures: Figure[] = [];
    for (const rate of RATES) {
      progress(`two lanes at ${rate} frames a second`);
      figures.push(await measureRate(lanes, rate));
    }
    return figures;
  } finally {
    for (const { here, beside } of lanes) {
      await here.stop();
      await beside.stop();
    }
    await rm(folder, { recursive: true, force: true });
  }
}

async function openLane({ dir, ...net }: ModelPackage): Promise<Lane> {
  const model = await openModel({ dir, ...net }, { threadCount: 1 });
  const { width, height } = model.manifest.inputs[0] as { width: number; height: number };
  const data = new Uint8Array(width * height * 3).fill(120);
  const { feeds } = await model.prepare({ kind: "pixels", data, width, height, channels: 3 });
  await model.release();
  const frame: Frame = { kind: "tensors", feeds };
  const [here, beside] = [new ModelWorker({ thread: false }), new ModelWorker()];
  const times: number[] = [];
  for (const worker of [beside, here]) {
    await worker.start();
    await worker.load("model", dir, { threadCount: 1 });
    for (let run = 0; run < WARM_RUNS; run++) {
      const begin = performance.now();
      await worker.predict("model", frame, { keep: true });
      if (worker === here) times.push(performance.now() - begin);
    }
  }
  return { frame, here, beside, runMs: median(times) };
}

async function measureRate(lanes: readonly Lane[], rate: number): Promise<Figure> {
  const rates = [rate, rate * SECOND_SHARE] as const;
  const random = new Random(rate);
  const latencies = PLACEMENTS.map((): number[] => []);
  for (let round = 0; round < ROUNDS; round++) {
    const behindMs = (random.uniform() * 1_000) / rate;
    for (const [at, placement] of PLACEMENTS.entries()) {
      latencies[at]!.push(...(await shoot(lanes, placement, { rates, forMs: SEGMENT_MS, behindMs })));
    }
  }
  const means = latencies.map((times) => times.reduce((sum, ms) => sum + ms, 0) / times.length);
  const chosen = chosenPlacement(lanes, rates);
  const runs = lanes.map(({ runMs }) => runMs.toFixed(1)).join(" and ");
  const best = Math.min(...means);
  return {
    id: `lanes_${rate}fps`,
    what: `lanes of ${runs} ms a run at ${rate} frames a second each, ${howOf(PLACEMENTS[chosen]!)} as the host does it: due → heads, mean`,
    value: means[chosen]!,
    unit: "ms",
    peer: { what: `ms ${howOf(PLACEMENTS[means.indexOf(best)]!)}, the best placement`, value: best },
    bar: { at: "most", value: 1.05 * best },
  };
}

/** One after the other leaves until nobody is worth a thread of its own. */
function chosenPlacement(lanes: readonly Lane[], rates: readonly number[]): number {
  const shares = lanes.map(({ runMs }, at) => ({ rate: rates[at]!, runMs, mayLeave: true }));
  const leaves = whoLeaves(shares);
  return PLACEMENTS.findIndex((placement) => placement.indexOf(true) === (leaves ?? -1));
}

function howOf(placement: Placement): string {
  const count = placement.filter(Boolean).length;
  return [
    "both in the host's own thread",
    "the longer in a thread of its own",
    "both in threads of their own",
  ][count]!;
}

/** Milliseconds from due to answered of each frame. */
async function shoot(lanes: readonly Lane[], placement: Placement, shooting: Shooting): Promise<number[]> {
  const camera = new Worker(new URL("./lanes-camera.js", import.meta.url), { workerData: shooting });
  const latencies: number[] = [];
  const running: Promise<void>[] = [];
  const run = async ({ lane, dueMs }: Shot): Promise<void> => {
    const { here, beside, frame } = lanes[lane]!;
    await (placement[lane] ? beside : here).predict("model", frame, { keep: true });
    latencies.push(performance.timeOrigin + performance.now() - dueMs);
  };
  await new Promise<void>((resolve, reject) => {
    camera.once("error", reject);
    camera.on("message", (shot: Shot | null) => {
      if (shot) running.push(run(shot));
      else resolve();
    });
  });
  await Promise.all(running);
  return latencies;
}
