import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AGENT_LIMITS } from "@fieldloop/device-agent";
import { packagePath } from "@fieldloop/models";
import type { ImageInput } from "@fieldloop/protocol";
import { GraphBuilder, float32Tensor, headOutputs } from "@fieldloop/runtime";
import {
  ModelWorker,
  bareDecode,
  encodeJpeg,
  openModel,
  openPackage,
  type ModelPackage,
} from "@fieldloop/runtime/node";
import { BareWorker, openBare } from "./bare-worker.js";
import { writeClassifier, writeNet } from "./nets.js";
import { median, progress, type Figure } from "./report.js";

/** Runs of each way, in turns of a block each: a machine that slows down slows all of them, and each way meets its own memory warm. */
const BLOCK_RUNS = 20;
const ROUNDS = { tiny: 150, small: 25, large: 8, heavy: 3 } as const;
const CAMERA = { width: 640, height: 480, quality: 85 } as const;
const THREADS = 1;

interface Net {
  readonly id: string;
  readonly what: string;
  readonly rounds: number;
  readonly package: ModelPackage;
}

/**
 * What the runtime adds to bare ONNX Runtime: from a tensor in this thread, from a tensor through the host's worker, and
 * from a camera's JPEG beside the decoder and the bare run one after the other. Every figure from rounds in which each way
 * has its turn.
 */
export async function measureOverhead(): Promise<Figure[]> {
  const folder = await mkdtemp(join(tmpdir(), "fieldloop-overhead-"));
  try {
    const nets: Net[] = [
      {
        id: "tiny",
        what: "a net of some 30 µs",
        rounds: ROUNDS.tiny,
        package: await writeNet(folder, { name: "tiny", size: 32, channels: 4, blocks: 1 }),
      },
      {
        id: "2ms",
        what: "a net of some 2 ms",
        rounds: ROUNDS.small,
        package: await writeNet(folder, { name: "small", size: 112, channels: 18, blocks: 4 }),
      },
      {
        id: "10ms",
        what: "a net of some 10 ms",
        rounds: ROUNDS.large,
        package: await writeNet(folder, { name: "large", size: 144, channels: 24, blocks: 4 }),
      },
      {
        id: "40ms",
        what: "a net of some 40 ms",
        rounds: ROUNDS.heavy,
        package: await writeNet(folder, { name: "heavy", size: 224, channels: 48, blocks: 5 }),
      },
      {
        id: "parts",
        what: "the shipped parts model",
        rounds: ROUNDS.small,
        package: await openPackage(packagePath("parts")),
      },
    ];
    const figures: Figure[] = [];
    for (const net of nets) {
      progress(`overhead of ${net.what}`);
      figures.push(...(await measureNet(net)));
    }
    progress("batches");
    figures.push(await measureBatch(folder));
    return figures;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

type Run = () => Promise<unknown>;
/** Of the host's. */
type Way = "here" | "hereQueued" | "worker" | "queued";
/** What a way is held against. */
interface Peer {
  readonly what: string;
  readonly ms: number;
}

async function measureNet(net: Net): Promise<Figure[]> {
  const { manifest } = net.package;
  const input = manifest.inputs[0] as ImageInput;
  const model = await openModel(net.package, { threadCount: THREADS });
  const worker = new ModelWorker();
  const here = new ModelWorker({ thread: false });
  await worker.start();
  await here.start();
  const jpeg = await cameraFrame();
  const { feeds } = await model.prepare({ kind: "encoded", bytes: jpeg });
  const bareModel = {
    path: join(net.package.dir, model.variant.file),
    threadCount: THREADS,
    executionProvider: model.executionProvider,
    feeds,
    fetches: headOutputs(manifest.heads),
  };
  const bare = await openBare(bareModel);
  const bareWorker = await BareWorker.start(bareModel);
  try {
    await worker.load("model", net.package.dir, { threadCount: THREADS });
    await here.load("model", net.package.dir, { threadCount: THREADS });
    const frame = { kind: "tensors", feeds } as const;
    const image = { kind: "encoded", bytes: jpeg } as const;
    const tensors = await interleave(net.rounds, {
      bare: bare.run,
      inProcess: () => model.predict(frame),
      here: () => here.predict("model", frame, { keep: true }),
      worker: () => worker.predict("model", frame, { keep: true }),
      hereQueued: () => here.predictBatch("model", [frame, frame]),
      queued: () => worker.predictBatch("model", [frame, frame], { keep: true }),
      bareWorker: () => bareWorker.run(1),
      bareQueued: () => bareWorker.run(2),
    });
    const camera = await interleave(Math.min(net.rounds, ROUNDS.small), {
      bare: async () => {
        await bareDecode(jpeg, input.width, input.height);
        await bare.run();
      },
      predict: () => model.predict(image),
      here: () => here.predict("model", image, { keep: true }),
      worker: () => worker.predict("model", image, { keep: true }),
      hereQueued: () => here.predictBatch("model", [image, image]),
      queued: () => worker.predictBatch("model", [image, image], { keep: true }),
    });
    // A lane alone has its model in the host's own thread up to so long a run; several share the thread while they hardly wait for one another,
    // as `lanes` shows. Frames that wait go two at a time.
    const isHere = tensors.bare < AGENT_LIMITS.loneRunMsMax;
    const isShared = tensors.bare < AGENT_LIMITS.sharedRunMsMax;
    const isQuick = tensors.bare < AGENT_LIMITS.quickRunMsMax;
    const alone = isShared ? "" : isHere ? ", one lane" : ", no lane";
    const beside = isQuick
      ? ", no lane"
      : isShared
        ? ", one of busy lanes"
        : isHere
          ? ", one of several lanes"
          : "";
    const bareRun = { what: "ms bare ONNX Runtime", ms: tensors.bare };
    const inThread = { what: "ms bare ONNX Runtime in a thread of its own", ms: tensors.bareWorker };
    const pairInThread = { what: `${inThread.what}, of two runs`, ms: tensors.bareQueued / 2 };
    // A lane that leaves the thread because others would wait longer for it has no less than a bare thread; it is compared, and `lanes` judges.
    const peerOf = (bareThread: Peer): Peer => (isHere && !isQuick ? bareThread : bareRun);
    const ways: readonly (readonly [Way, string, string, boolean, Peer])[] = [
      ["here", "here", `in the host's own thread${alone}`, isHere, bareRun],
      [
        "hereQueued",
        "here_queued",
        `in the host's own thread${alone}, per frame of a queue`,
        isHere,
        bareRun,
      ],
      ["worker", "worker", `through the host's worker${beside}`, !isShared, peerOf(inThread)],
      [
        "queued",
        "queued",
        `through the host's worker${beside}, per frame of a queue`,
        !isShared,
        peerOf(pairInThread),
      ],
    ];
    const perFrame = (times: Record<Way, number>, way: Way): number =>
      way === "hereQueued" || way === "queued" ? times[way] / 2 : times[way];
    return [
      tensorFigure(net, "in this thread", "thread", tensors.inProcess, bareRun),
      tensorFigure(
        net,
        "by nothing but a bare run in a thread of its own",
        "bare_worker",
        tensors.bareWorker,
        bareRun,
        false,
      ),
      ...ways.map(([way, id, how, isHeld, peer]) =>
        tensorFigure(net, how, id, perFrame(tensors, way), peer, isHeld),
      ),
      cameraFigure(net, "in this thread", "thread", camera.predict, camera.bare),
      ...ways.map(([way, id, how, isHeld]) =>
        cameraFigure(net, how, id, perFrame(camera, way), camera.bare, isHeld),
      ),
    ];
  } finally {
    await bare.release();
    await bareWorker.stop();
    await model.release();
    await worker.stop();
    await here.stop();
  }
}

/** The bar holds for the ways that the host takes; the others are there to be compared. */
function tensorFigure(net: Net, how: string, way: string, value: number, peer: Peer, isHeld = true): Figure {
  const base = { id: `overhead_${net.id}_${way}`, what: `${net.what}: tensor → heads ${how}` };
  // Where a run takes less than 2 ms a share says little: 60 µs is what the way to and from the host may cost.
  const most = peer.ms >= 2 ? peer.ms * 1.05 : peer.ms + 0.06;
  const bar = isHeld ? ({ bar: { at: "most", value: most } } as const) : {};
  return { ...base, value, unit: "ms", peer: { what: peer.what, value: peer.ms }, ...bar };
}

function cameraFigure(
  net: Net,
  how: string,
  way: string,
  value: number,
  bare: number,
  isHeld = true,
): Figure {
  return {
    id: `camera_${net.id}_${way}`,
    what: `${net.what}: ${CAMERA.width}×${CAMERA.height} JPEG → prediction ${how}`,
    value,
    unit: "ms",
    peer: { what: "ms sharp decode, then bare ONNX Runtime", value: bare },
    ...(isHeld ? { bar: { at: "most", value: bare * 1.1 } } : {}),
  };
}

const BATCH_FRAMES = 16;

/** A small net on rows, one by one and as a batch: where the call costs more than the work, batches pay. */
async function measureBatch(folder: string): Promise<Figure> {
  const model = await openModel(await writeRowNet(folder), { threadCount: THREADS });
  const frames = Array.from({ length: BATCH_FRAMES }, (_, at) => {
    const values = { a: at, b: at / 2, c: 1 - at, d: 3 };
    return { kind: "row", values } as const;
  });
  try {
    const { single, batch } = await interleave(ROUNDS.small, {
      single: async () => {
        for (const frame of frames) await model.predict(frame);
      },
      batch: () => model.predictBatch(frames),
    });
    return {
      id: "batch_rows",
      what: `${BATCH_FRAMES} rows of a table as one batch`,
      value: batch,
      unit: "ms",
      peer: { what: "ms one after the other", value: single },
      bar: { at: "most", value: single },
    };
  } finally {
    await model.release();
  }
}

/** Median milliseconds of each way, over rounds in which each has a block of runs; the first round warms up. */
async function interleave<Name extends string>(
  rounds: number,
  ways: Readonly<Record<Name, Run>>,
): Promise<Record<Name, number>> {
  const names = Object.keys(ways) as Name[];
  const times = new Map<Name, number[]>(names.map((name) => [name, []]));
  for (let round = -1; round < rounds; round++) {
    for (const name of names) {
      for (let run = 0; run < BLOCK_RUNS; run++) {
        const begin = performance.now();
        await ways[name]();
        if (round >= 0) times.get(name)!.push(performance.now() - begin);
      }
    }
  }
  return Object.fromEntries(names.map((name) => [name, median(times.get(name)!)])) as Record<Name, number>;
}

/** A scene with edges and noise, as a camera would send it. */
async function cameraFrame(): Promise<Uint8Array> {
  const { width, height, quality } = CAMERA;
  const data = new Uint8Array(width * height * 3);
  let noise = 1;
  for (let at = 0; at < data.length; at++) {
    noise = (Math.imul(noise, 1_664_525) + 1_013_904_223) >>> 0;
    const pixel = Math.floor(at / 3);
    const x = pixel % width;
    const y = Math.floor(pixel / width);
    const isInside = (x - width / 2) ** 2 + (y - height / 2) ** 2 < (height / 3) ** 2;
    data[at] = (isInside ? 180 : 60) + ((x + y) % 48) + (noise >>> 28);
  }
  return encodeJpeg({ kind: "pixels", data, width, height, channels: 3 }, quality);
}

/** Four columns to four classes, over a dynamic number of rows. */
async function writeRowNet(folder: string): Promise<ModelPackage> {
  const graph = new GraphBuilder();
  const rows = graph.input("rows", "float32", ["n", 4]);
  const weight = (name: string, seed: number) =>
    graph.initializer(
      float32Tensor(
        name,
        [4, 4],
        Float32Array.from({ length: 16 }, (_, at) => Math.sin(seed + at)),
      ),
    );
  const [hidden] = graph.node("MatMul", [rows, weight("first", 1)]);
  const [active] = graph.node("Relu", [hidden!]);
  graph.node("MatMul", [active!, weight("second", 2)], {}, ["logits"]);
  graph.output("logits", "float32", ["n", 4]);
  const columns = ["a", "b", "c", "d"].map((name) => ({ name, encoding: { kind: "number" } as const }));
  return writeClassifier(folder, "rows", graph, { kind: "table", name: "rows", columns, dims: [0, 4] });
}
