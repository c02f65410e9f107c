import { existsSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { decodeDataFile, type Manifest } from "@fieldloop/protocol";
import { packagePath } from "@fieldloop/models";
import {
  argmax,
  FramePreparer,
  Predictor,
  quantizeStatic,
  type CalibrationMethod,
  type Feeds,
  type Frame,
} from "@fieldloop/runtime";
import { foldModel, openPackage, ortNode, prepareImage } from "@fieldloop/runtime/node";
import {
  bearingFaults,
  bearingSampling,
  createBearingSignal,
  createPartsScene,
  partsFrameSize,
} from "@fieldloop/runtime/simulate";
import type { Figure } from "./report.js";

export const METHODS: readonly (readonly [string, CalibrationMethod])[] = [
  ["minmax", { kind: "minmax" }],
  ["percentile 99.99", { kind: "percentile", percentile: 99.99 }],
  ["entropy", { kind: "entropy" }],
];

/** Cameras and machines that no training, calibration or holdout data come from. */
const TEST_SEED = 8100;

interface Shipped {
  readonly manifest: Manifest;
  readonly fp32: Uint8Array;
  readonly int8: Uint8Array;
  readonly replay: readonly Frame[];
}

async function openShipped(name: string): Promise<Shipped> {
  const pkg = await openPackage(packagePath(name));
  const read = async (file: string) => new Uint8Array(await readFile(join(pkg.dir, file)));
  const { variants, replay } = pkg.manifest;
  const fileOf = (precision: string) => variants.find((variant) => variant.precision === precision)!.file;
  const items = decodeDataFile(await read(replay!.file));
  return {
    manifest: pkg.manifest,
    fp32: await read(fileOf("fp32")),
    int8: await read(fileOf("int8")),
    replay: items.slice(0, 200).map(({ media, payload }) => toFrame(media, payload)),
  };
}

function toFrame(media: string, payload: Uint8Array): Frame {
  if (media !== "application/x-fieldloop-window") return { kind: "encoded", bytes: payload };
  return { kind: "window", samples: new Float32Array(payload.slice().buffer) };
}

async function* feedsOf(manifest: Manifest, frames: readonly Frame[]): AsyncGenerator<Feeds> {
  const preparer = new FramePreparer(manifest, prepareImage);
  for (const frame of frames) yield (await preparer.prepare(frame)).feeds;
}

export async function quantizeShipped(shipped: Shipped, method: CalibrationMethod): Promise<Uint8Array> {
  const { bytes } = await quantizeStatic(shipped.fp32, {
    ...INT8,
    method,
    calibration: feedsOf(shipped.manifest, shipped.replay),
  });
  return bytes;
}

export const INT8 = {
  backend: ortNode,
  fold: foldModel,
  activation: "uint8",
  weight: "int8",
  perChannel: true,
  reduceRange: false,
} as const;

/** `parts` under normal light, frames of cameras of their own: share of right answers, percent. */
export async function partsFigures(): Promise<Figure[]> {
  const shipped = await openShipped("parts");
  const frames: { frame: Frame; label: number }[] = [];
  for (let camera = 0; camera < 12; camera++) {
    const scene = createPartsScene({ seed: TEST_SEED + camera, condition: "normal" });
    for (let index = 0; index < 100; index++) {
      const { pixels, truth } = scene.next();
      const size = { width: partsFrameSize, height: partsFrameSize, channels: 3 } as const;
      // The scene may use its memory again.
      frames.push({ frame: { kind: "pixels", data: pixels.slice(), ...size }, label: truth.labelIndex });
    }
  }
  const accuracy = async (bytes: Uint8Array): Promise<number> => {
    const session = await ortNode.openSession(bytes, { threadCount: 1, executionProvider: "cpu" });
    const predictor = new Predictor({
      manifest: shipped.manifest,
      session,
      sizeImage: prepareImage,
      now: () => performance.now(),
    });
    let right = 0;
    for (const { frame, label } of frames) if ((await predictor.predict(frame)).class === label) right++;
    await session.release();
    return (100 * right) / frames.length;
  };
  const float = await accuracy(shipped.fp32);
  const figures = [
    lossFigure(
      "parts-shipped",
      "parts, normal light, shipped int8: accuracy lost",
      float,
      await accuracy(shipped.int8),
    ),
  ];
  for (const [name, method] of METHODS) {
    const variant = await accuracy(await quantizeShipped(shipped, method));
    figures.push(
      lossFigure(`parts-${method.kind}`, `parts, calibrated by ${name}: accuracy lost`, float, variant),
    );
  }
  return figures;
}

/** `bearing`: area under the ROC curve of faults from severity 0.5 on against sound machines, percent. */
export async function bearingFigures(): Promise<Figure[]> {
  const shipped = await openShipped("bearing");
  const windowsOf = (fault: (typeof bearingFaults)[number], severity: number): Float32Array[] =>
    Array.from({ length: 8 }, (_, machine) => {
      const signal = createBearingSignal({ seed: TEST_SEED + machine, condition: { fault, severity } });
      return Array.from({ length: 30 }, (_window, index) => signal.at(index * 7).samples.slice());
    }).flat();
  const sound = windowsOf("none", 0);
  const faulty = bearingFaults
    .filter((fault) => fault !== "none")
    .flatMap((fault) => [0.5, 0.75, 1].flatMap((severity) => windowsOf(fault, severity)));
  const auroc = async (bytes: Uint8Array): Promise<number> => {
    const session = await ortNode.openSession(bytes, { threadCount: 1, executionProvider: "cpu" });
    const errors = async (windows: readonly Float32Array[]): Promise<number[]> => {
      const found: number[] = [];
      for await (const feeds of feedsOf(
        shipped.manifest,
        windows.map((samples) => ({ kind: "window", samples })),
      )) {
        const { reconstruction } = await session.run(feeds);
        const input = feeds["window"]!.data as Float32Array;
        const restored = reconstruction!.data as Float32Array;
        found.push(input.reduce((sum, value, at) => sum + (value - restored[at]!) ** 2, 0));
      }
      return found;
    };
    const area = areaUnderRoc(await errors(faulty), await errors(sound));
    await session.release();
    return 100 * area;
  };
  const float = await auroc(shipped.fp32);
  const fresh = await quantizeShipped(shipped, { kind: "minmax" });
  return [
    lossFigure("bearing-shipped", "bearing, shipped int8: AUROC lost", float, await auroc(shipped.int8)),
    lossFigure(
      "bearing-minmax",
      `bearing, windows of ${bearingSampling.windowLength}, calibrated by minmax: AUROC lost`,
      float,
      await auroc(fresh),
    ),
  ];
}

/** Share of pairs that are ordered right (Mann-Whitney), ties counting half. */
function areaUnderRoc(positive: readonly number[], negative: readonly number[]): number {
  const sorted = [...negative].sort((a, b) => a - b);
  const below = (value: number, orEqual: boolean): number => {
    let [low, high] = [0, sorted.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle]! < value || (orEqual && sorted[middle]! === value)) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  const wins = positive.reduce((sum, value) => sum + (below(value, false) + below(value, true)) / 2, 0);
  return wins / (positive.length * negative.length);
}

/** mnist-8 on 5,000 digits, the first 200 of which calibrate; undefined where the data are not at hand. */
export async function mnistFigures(data: string): Promise<Figure[] | undefined> {
  const model = join(data, "models/mnist-8/mnist.onnx");
  const set = join(data, "sets/mnist5k");
  if (data === "" || !existsSync(model) || !existsSync(set)) return undefined;
  const images = gunzipSync(readFileSync(join(set, "images-idx3-ubyte.gz"))).subarray(16);
  const labels = gunzipSync(readFileSync(join(set, "labels-idx1-ubyte.gz"))).subarray(8);
  const feeds = (at: number): Feeds => ({
    Input3: {
      type: "float32",
      dims: [1, 1, 28, 28],
      data: Float32Array.from(images.subarray(at * 784, (at + 1) * 784)),
    },
  });
  const accuracy = async (bytes: Uint8Array): Promise<number> => {
    const session = await ortNode.openSession(bytes, { threadCount: 1, executionProvider: "cpu" });
    let right = 0;
    for (let at = 200; at < labels.length; at++) {
      const { data: scores } = (await session.run(feeds(at)))["Plus214_Output_0"]!;
      if (argmax(scores as Float32Array) === labels[at]) right++;
    }
    await session.release();
    return (100 * right) / (labels.length - 200);
  };
  const bytes = new Uint8Array(readFileSync(model));
  const float = await accuracy(bytes);
  const figures: Figure[] = [];
  for (const [name, method] of METHODS) {
    const calibration = Array.from({ length: 200 }, (_, at) => feeds(at));
    const made = await quantizeStatic(bytes, { ...INT8, method, calibration });
    figures.push(
      lossFigure(
        `mnist-${method.kind}`,
        `mnist-8, calibrated by ${name}: accuracy lost`,
        float,
        await accuracy(made.bytes),
      ),
    );
  }
  return figures;
}

function lossFigure(id: string, what: string, float: number, variant: number): Figure {
  return {
    id: `quantize-${id}`,
    what,
    value: Number((float - variant).toFixed(3)),
    unit: `points (${variant.toFixed(2)} %)`,
    peer: { what: "% in fp32", value: float },
    bar: { at: "most", value: 1 },
  };
}
