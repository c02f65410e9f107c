import { encodeDataFile } from "@fieldloop/protocol";
import {
  type Backend,
  type Baseline,
  encodeBaseline,
  decodeModel,
  fitNovelty,
  type NoveltyReference,
  opsetVersion,
  quantizeStatic,
  requireQuality,
  type Tensor,
} from "@fieldloop/runtime";
import { foldModel } from "@fieldloop/runtime/node";
import { newPartClass, partsFrameSize, Random } from "@fieldloop/runtime/simulate";
import { fit, fitTemperature, initializeWeights } from "@fieldloop/runtime/train";
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
import { measureBaseline } from "./baseline.js";
import {
  drawFrames,
  frameBytes,
  fromDataItems,
  type PartsFrames,
  partsSeeds,
  pickFrames,
  toDataItems,
  toRows,
} from "./data.js";
import { rowOf, runParts } from "./evaluate.js";
import { createPartsFeed } from "./feed.js";
import { partsManifest } from "./manifest.js";
import { buildPartsNet, embeddingLength } from "./net.js";
import { measureRecovery, type Recovery } from "./recover.js";
import { measureNewPart, measureParts, summarize } from "./report.js";
import { percent } from "../summary.js";

/** Training settings of the shipped version; lineage holds them. */
export const partsSettings = {
  epochs: 16,
  batch: 64,
  rate: 4e-3,
  warmupSteps: 50,
  weightDecay: 1e-3,
} as const;

const centroidCount = 16;
const calibrationFrames = 200;
const replayFrames = 600;

interface PartsData {
  readonly train: PartsFrames;
  readonly validation: PartsFrames;
  readonly holdout: PartsFrames;
}

/** Trains, quantizes, measures and packages the `parts` model. Takes about three minutes on one core. */
export async function makeParts(options: RecipeOptions): Promise<void> {
  const { backend, log, seed } = options;
  const started = performance.now();
  log("parts: drawing 9,000 frames");
  const data = await drawData();
  const fp32 = await trainParts(options, data.train);
  const outputs = await runParts(fp32, backend, data.validation);
  const temperature = round(fitTemperature(outputs.logits, data.validation.labels));
  const int8 = await quantizeParts(backend, fp32, data.train);
  const novelty = await fitPartsNovelty(backend, fp32, data, seed);
  log("parts: baseline, replay and golden cases");
  const baseline = await measureBaseline({ backend, fp32, temperature, novelty, frames: data.validation });
  const replay = await toDataItems(pickFrames(data.train, everyNth(data.train.labels.length, replayFrames)));
  const golden = await makeGolden(backend, { fp32, int8 }, await goldenInputs());
  const measured = await measureParts({ backend, fp32, int8, temperature, baseline });
  log(
    `parts: normal ${percent(measured.normal.fp32.overall)}, degraded ${percent(measured.degraded.fp32.overall)}`,
  );
  const files = {
    "fp32.onnx": fp32,
    "int8-u8s8.onnx": int8,
    "baseline.cbor": encodeBaseline(baseline),
    "replay.bin": encodeDataFile(replay),
    "holdout.bin": encodeDataFile(await toDataItems(data.holdout)),
    ...golden.files,
  };
  const snapshot = sha256Of(data.train.pixels, data.train.labels);
  const draft = partsManifest({
    temperature,
    golden: golden.cases,
    replayCount: replay.length,
    holdoutCount: data.holdout.labels.length,
    snapshot,
    backend,
    opset: { fp32: opsetOf(fp32), int8: opsetOf(int8) },
    // `augment` tells a trainer that fine-tunes this version how its inputs may be changed, too.
    settings: { ...partsSettings, augment: "turn", seed, threads: recipeThreads },
    metrics: {
      accuracyNormalFp32: round(measured.normal.fp32.overall),
      accuracyNormalInt8: round(measured.normal.int8.overall),
      accuracyDegradedFp32: round(measured.degraded.fp32.overall),
      temperature,
    },
  });
  const written = await replacePackage(options.outDir, "parts", draft, files);
  const recovery = await measureRecoveries(options, {
    fp32,
    temperature,
    baseline,
    replay,
    holdout: data.holdout,
  });
  const feeds = { image: imageTensor(data.validation, 0) };
  const latency = {
    fp32: await measureLatency(backend, fp32, feeds),
    int8: await measureLatency(backend, int8, feeds),
  };
  const newPart = await measureNewPart({ backend, fp32, temperature, baseline, label: newPartClass });
  await writeResults(options.outDir, "parts", {
    model: "parts",
    seed,
    measuredOn: measuredOn(backend),
    package: { sha256: written.sha256, bytes: written.bytes },
    files: Object.fromEntries(Object.entries(files).map(([name, bytes]) => [name, bytes.length])),
    temperature,
    accuracy: measured,
    newPart,
    latency,
    recovery,
    summary: summarize({ measured, newPart, latency, recovery, bytes: written.bytes }),
    seconds: round((performance.now() - started) / 1000, 0),
  });
  log(`parts: package of ${written.bytes} bytes in ${written.dir}`);
}

async function drawData(): Promise<PartsData> {
  const condition = "normal";
  return {
    train: await drawFrames({ seed: partsSeeds.train, devices: 60, perDevice: 120, condition, jpeg: "half" }),
    validation: await drawFrames({
      seed: partsSeeds.validation,
      devices: 12,
      perDevice: 100,
      condition,
      jpeg: "all",
    }),
    holdout: await drawFrames({
      seed: partsSeeds.holdout,
      devices: 20,
      perDevice: 30,
      condition,
      jpeg: "all",
    }),
  };
}

/** Fits the network from a random start. */
async function trainParts(options: RecipeOptions, train: PartsFrames): Promise<Uint8Array> {
  const { backend, seed, log } = options;
  const { model } = await fit({
    model: initializeWeights(buildPartsNet(), seed),
    backend,
    data: createPartsFeed(train, seed, partsSettings.batch),
    settings: {
      ...partsSettings,
      output: "logits",
      logitScale: 1,
      seed,
      threadCount: recipeThreads,
      progressEverySteps: 100,
    },
    onProgress: ({ step, steps, loss }) => log(`parts: step ${step} of ${steps}, loss ${loss.toFixed(3)}`),
  });
  return model;
}

async function quantizeParts(backend: Backend, fp32: Uint8Array, train: PartsFrames): Promise<Uint8Array> {
  const places = everyNth(train.labels.length, calibrationFrames);
  const { bytes, report } = await quantizeStatic(fp32, {
    backend,
    fold: foldModel,
    calibration: places.map((place) => ({ image: imageTensor(train, place) })),
    activation: "uint8",
    weight: "int8",
    perChannel: true,
    reduceRange: false,
    method: { kind: "percentile", percentile: 99.99 },
  });
  requireQuality(report, { cosineMin: 0.99, topOneAgreementMin: 0.97 });
  return bytes;
}

async function fitPartsNovelty(
  backend: Backend,
  fp32: Uint8Array,
  data: PartsData,
  seed: number,
): Promise<NoveltyReference> {
  const embeddings = async (frames: PartsFrames): Promise<Float32Array[]> => {
    const outputs = await runParts(fp32, backend, frames);
    return Array.from(frames.labels, (_, row) => rowOf(outputs.embeddings, row, embeddingLength));
  };
  const random = new Random(seed);
  return fitNovelty({
    training: await embeddings(pickFrames(data.train, everyNth(data.train.labels.length, 2400))),
    validation: await embeddings(data.validation),
    centroidCount,
    random: () => random.uniform(),
  });
}

async function measureRecoveries(
  options: RecipeOptions,
  made: {
    readonly fp32: Uint8Array;
    readonly temperature: number;
    readonly baseline: Baseline;
    readonly replay: Parameters<typeof fromDataItems>[0];
    readonly holdout: PartsFrames;
  },
): Promise<Recovery[]> {
  const replay = await fromDataItems(made.replay);
  const recoveries: Recovery[] = [];
  for (const seed of [7000, 7100, 7200]) {
    const { fp32: model, temperature, baseline, holdout } = made;
    const found = await measureRecovery({
      model,
      backend: options.backend,
      temperature,
      baseline,
      replay,
      holdout,
      seed,
    });
    options.log(
      `parts: cameras ${seed}: normal ${percent(found.normal)}, degraded ${percent(found.degraded)}, recovered ${percent(found.recovered)}`,
    );
    recoveries.push(found);
  }
  return recoveries;
}

/** Two frames as in training and one in bad light, so that a self test sees more than easy inputs. */
async function goldenInputs(): Promise<{ name: string; input: string; tensor: Tensor }[]> {
  const draw = { seed: partsSeeds.test - 1, devices: 1, perDevice: 2, jpeg: "all" } as const;
  const normal = await drawFrames({ ...draw, condition: "normal" });
  const degraded = await drawFrames({ ...draw, condition: "degraded", firstIndex: 2 });
  return [
    { name: "normal-1", input: "image", tensor: imageTensor(normal, 0) },
    { name: "normal-2", input: "image", tensor: imageTensor(normal, 1) },
    { name: "degraded-1", input: "image", tensor: imageTensor(degraded, 0) },
  ];
}

function imageTensor(frames: PartsFrames, place: number): Tensor {
  const pixels = frames.pixels.subarray(place * frameBytes, (place + 1) * frameBytes);
  return { type: "float32", dims: [1, 3, partsFrameSize, partsFrameSize], data: toRows(pixels) };
}

/** `wanted` places spread evenly over `count`, each at another offset, so that both raw and stored frames are among them. */
function everyNth(count: number, wanted: number): number[] {
  const step = Math.max(1, Math.floor(count / wanted));
  return Array.from({ length: wanted }, (_, index) => (index * step + (index % step)) % count);
}

const opsetOf = (model: Uint8Array): number => opsetVersion(decodeModel(model));
