import { encodeDataFile, HISTOGRAM_BINS, type Manifest } from "@fieldloop/protocol";
import {
  type Backend,
  type Baseline,
  decodeModel,
  encodeBaseline,
  opsetVersion,
  Predictor,
  ProfileAccumulator,
  quantizeStatic,
  requireQuality,
  type Tensor,
} from "@fieldloop/runtime";
import { foldModel, prepareImage } from "@fieldloop/runtime/node";
import { bearingSampling } from "@fieldloop/runtime/simulate";
import { fit, initializeWeights, runRows } from "@fieldloop/runtime/train";
import {
  makeGolden,
  measuredOn,
  measureLatency,
  recipeThreads,
  type RecipeOptions,
  replacePackage,
  round,
  sha256Of,
  writeResults,
} from "../recipe.js";
import { bearingSeeds, drawWindows, sound, toBearingRows, toWindowItems } from "./data.js";
import { errorsOf, measureBearing } from "./evaluate.js";
import { bearingInterface, bearingManifest } from "./manifest.js";
import { boundCode, buildBearingNet } from "./net.js";
import { percent, type SummaryRow } from "../summary.js";

/** Training settings of the shipped version; lineage holds them. */
export const bearingSettings = { epochs: 40, batch: 64, rate: 2e-3, warmupSteps: 50 } as const;

/** One window in this many of a sound machine may cross the threshold. */
const falseAlarmShare = 0.002;

/** Trains, quantizes, measures and packages the `bearing` model. Takes about a minute on one core. */
export async function makeBearing(options: RecipeOptions): Promise<void> {
  const { backend, log, seed } = options;
  const started = performance.now();
  log("bearing: making windows of sound machines");
  const train = drawWindows({ seed: bearingSeeds.train, machines: 120, perMachine: 75, condition: sound });
  const validation = drawWindows({
    seed: bearingSeeds.validation,
    machines: 30,
    perMachine: 100,
    condition: sound,
  });
  const holdout = drawWindows({ seed: bearingSeeds.holdout, machines: 20, perMachine: 10, condition: sound });
  const rows = toBearingRows(train);
  const { model: free } = await fit({
    model: initializeWeights(buildBearingNet(), seed),
    backend,
    data: { inputs: rows },
    settings: {
      ...bearingSettings,
      loss: "mse",
      output: "reconstruction",
      seed,
      threadCount: recipeThreads,
      progressEverySteps: 500,
    },
    onProgress: ({ step, steps, loss }) => log(`bearing: step ${step} of ${steps}, loss ${loss.toFixed(4)}`),
  });
  const codes = await runRows({ model: free, backend, inputs: rows, output: "embedding" });
  const fp32 = boundCode(free, codes.outputs);
  const int8 = await quantizeBearing(backend, fp32, rows);
  const errors = [...(await errorsOf(fp32, backend, validation))].sort((a, b) => a - b);
  const threshold = round(errors[Math.floor(errors.length * (1 - falseAlarmShare))], 5);
  const baseline = await measureBaseline(backend, fp32, threshold, validation, rows);
  const golden = await makeGolden(backend, { fp32, int8 }, goldenInputs());
  const measured = await measureBearing({ backend, fp32, int8, threshold });
  log(`bearing: threshold ${threshold}, AUROC ${measured.fp32.auroc} (fp32), ${measured.int8.auroc} (int8)`);
  const replay = toWindowItems(everyNth(train, 400), "normal");
  const kept = toWindowItems(holdout, "normal");
  const files = {
    "fp32.onnx": fp32,
    "int8-u8s8.onnx": int8,
    "baseline.cbor": encodeBaseline(baseline),
    "replay.bin": encodeDataFile(replay),
    "holdout.bin": encodeDataFile(kept),
    ...golden.files,
  };
  const draft = bearingManifest({
    threshold,
    golden: golden.cases,
    replayCount: replay.length,
    holdoutCount: kept.length,
    snapshot: sha256Of(new Uint8Array(train.buffer)),
    backend,
    opset: { fp32: opsetVersion(decodeModel(fp32)), int8: opsetVersion(decodeModel(int8)) },
    settings: { ...bearingSettings, augment: "none", seed, threads: recipeThreads },
    metrics: { aurocFp32: measured.fp32.auroc, aurocInt8: measured.int8.auroc, threshold },
  });
  const written = await replacePackage(options.outDir, "bearing", draft, files);
  const feeds = { window: windowTensor(validation) };
  const latency = {
    fp32: await measureLatency(backend, fp32, feeds),
    int8: await measureLatency(backend, int8, feeds),
  };
  await writeResults(options.outDir, "bearing", {
    model: "bearing",
    seed,
    measuredOn: measuredOn(backend),
    package: { sha256: written.sha256, bytes: written.bytes },
    files: Object.fromEntries(Object.entries(files).map(([name, bytes]) => [name, bytes.length])),
    threshold,
    ...measured,
    latency,
    summary: summaryOf(measured, latency, written.bytes),
    seconds: round((performance.now() - started) / 1000, 0),
  });
  log(`bearing: package of ${written.bytes} bytes in ${written.dir}`);
}

function summaryOf(
  { fp32, int8 }: Awaited<ReturnType<typeof measureBearing>>,
  latency: Readonly<Record<"fp32" | "int8", { readonly p50Ms: number }>>,
  bytes: number,
): SummaryRow[] {
  const detected = (severity: string) =>
    Object.entries(int8.detected)
      .map(([fault, shares]) => `${fault} ${percent(shares[severity])}`)
      .join(", ");
  return [
    ["AUROC, faults of severity 0.5 and more (fp32 / int8)", `${fp32.auroc} / ${int8.auroc}`],
    [
      "sound windows called faulty (fp32 / int8)",
      `${percent(fp32.falseAlarms)} / ${percent(int8.falseAlarms)}`,
    ],
    ["windows found at severity 0.3 (int8)", detected("0.3")],
    ["windows found at severity 0.5 (int8)", detected("0.5")],
    ["one window, median (fp32 / int8)", `${latency.fp32.p50Ms} / ${latency.int8.p50Ms} ms`],
    ["package", `${bytes} bytes`],
  ];
}

async function quantizeBearing(backend: Backend, fp32: Uint8Array, rows: Float32Array): Promise<Uint8Array> {
  const calibration = everyNth(rows, 300);
  const { windowLength } = bearingSampling;
  const { bytes, report } = await quantizeStatic(fp32, {
    backend,
    fold: foldModel,
    calibration: Array.from({ length: 300 }, (_, index) => ({
      window: toTensor(calibration.slice(index * windowLength, (index + 1) * windowLength)),
    })),
    activation: "uint8",
    weight: "int8",
    perChannel: true,
    reduceRange: false,
    method: { kind: "minmax" },
  });
  requireQuality(report, { cosineMin: 0.99 });
  return bytes;
}

/** The profile of a sound machine, by the code that a device runs; latency is left empty, it belongs to the device. */
async function measureBaseline(
  backend: Backend,
  fp32: Uint8Array,
  threshold: number,
  windows: Float32Array,
  trainingRows: Float32Array,
): Promise<Baseline> {
  const session = await backend.openSession(fp32, { threadCount: recipeThreads, executionProvider: "cpu" });
  const profile = new ProfileAccumulator();
  const predictor = new Predictor({
    manifest: bearingInterface(threshold) as Manifest,
    session,
    sizeImage: prepareImage,
    now: () => performance.now(),
  });
  try {
    for (let at = 0; at < windows.length; at += bearingSampling.windowLength) {
      const samples = windows.subarray(at, at + bearingSampling.windowLength);
      profile.add(await predictor.predict({ kind: "window", samples }));
    }
  } finally {
    await session.release();
  }
  let [min, max] = [Infinity, -Infinity];
  for (const value of trainingRows) {
    min = Math.min(min, value);
    max = Math.max(max, value);
  }
  const latency = new Array<number>(HISTOGRAM_BINS).fill(0);
  return { statistics: { ...profile.snapshot(), latency }, inputRange: { min, max } };
}

function goldenInputs(): { name: string; input: string; tensor: Tensor }[] {
  const draw = { seed: bearingSeeds.test - 1, machines: 1, perMachine: 1 };
  const outer = { fault: "outer-race", severity: 0.6 } as const;
  return [
    { name: "sound-1", input: "window", tensor: windowTensor(drawWindows({ ...draw, condition: sound })) },
    {
      name: "outer-race-1",
      input: "window",
      tensor: windowTensor(drawWindows({ ...draw, condition: outer })),
    },
  ];
}

/** The first window as the network's input. */
function windowTensor(windows: Float32Array): Tensor {
  return toTensor(toBearingRows(windows.slice(0, bearingSampling.windowLength)));
}

function toTensor(row: Float32Array): Tensor {
  return { type: "float32", dims: [1, row.length], data: row };
}

/** `wanted` windows spread evenly. */
function everyNth(windows: Float32Array, wanted: number): Float32Array {
  const { windowLength } = bearingSampling;
  const step = Math.floor(windows.length / windowLength / wanted);
  const picked = new Float32Array(wanted * windowLength);
  for (let index = 0; index < wanted; index++) {
    const from = index * step * windowLength;
    picked.set(windows.subarray(from, from + windowLength), index * windowLength);
  }
  return picked;
}
