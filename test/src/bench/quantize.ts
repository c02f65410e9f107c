import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import {
  compareModels,
  measureSpeed,
  quantizeDynamic,
  quantizeInt4,
  quantizeStatic,
  type Feeds,
  type SpeedReport,
} from "@fieldloop/runtime";
import { foldModel, hostFacts, ortNode } from "@fieldloop/runtime/node";
import { bearingFigures, INT8, mnistFigures, partsFigures } from "./quantize-accuracy.js";
import { depthwiseNetwork, imageFeeds, productNetwork, residualNetwork } from "./quantize-networks.js";
import { progress, type Figure } from "./report.js";

const SPEEDUP_MIN = 2.5;
const VNNI: ReadonlySet<string> = new Set(["avx512_vnni", "avx_vnni"]);
const SECONDS_MAX = 60;
const PEAK_BYTES_MAX = 1.5 * 1024 ** 3;
const MEASURE_MS = 5_000;

const measuring = { backend: ortNode, now: () => performance.now(), durationMs: MEASURE_MS } as const;

/**
 * The quantizer against what it promises: speed of int8 in turns with fp32, time and memory of quantizing, accuracy lost, sizes. Needs
 * a quiet machine for the ratios on two threads.
 */
export async function runQuantizeSuite(): Promise<Figure[]> {
  const data = process.env.FIELDLOOP_TEST_DATA ?? "";
  const figures: Figure[] = [];
  progress("int8 against fp32 on a residual and a depthwise network");
  figures.push(...(await networkFigures("residual", "ResNet-18 form", residualNetwork())));
  figures.push(...(await networkFigures("depthwise", "MobileNetV1 form", depthwiseNetwork())));
  progress("quantizing 11.7 million parameters on 100 images in a process of its own");
  figures.push(...(await memoryFigures()));
  progress("accuracy of the shipped models");
  figures.push(...(await partsFigures()), ...(await bearingFigures()));
  const digits = await mnistFigures(data);
  if (digits) figures.push(...digits);
  else progress("mnist-8 skipped: FIELDLOOP_TEST_DATA names no folder with models/mnist-8 and sets/mnist5k");
  progress("dynamic int8 and 4-bit weights");
  const voice = await voiceFigures(data);
  if (voice) figures.push(...voice);
  else progress("silero-vad skipped: FIELDLOOP_TEST_DATA names no folder with models/silero-vad");
  figures.push(...(await productFigures()));
  return figures;
}

async function networkFigures(id: string, what: string, bytes: Uint8Array): Promise<Figure[]> {
  const { bytes: int8, report } = await quantizeStatic(bytes, {
    ...INT8,
    method: { kind: "minmax" },
    calibration: imageFeeds(16, 21),
  });
  const inputs = [...imageFeeds(2, 22)];
  const figures: Figure[] = [];
  // What is promised is promised of processors with 8-bit dot products.
  const hasDotProducts = hostFacts().cpuFlags.some((flag) => VNNI.has(flag));
  for (const threadCount of [1, 2]) {
    const speed = await measureSpeed(bytes, int8, inputs, { ...measuring, threadCount });
    figures.push(
      speedFigure(
        `${id}-${threadCount}`,
        `${what}, 224×224, ${threads(threadCount)}: int8`,
        speed,
        hasDotProducts ? SPEEDUP_MIN : undefined,
      ),
    );
  }
  return [
    ...figures,
    {
      id: `quantize-${id}-size`,
      what: `${what}: int8 file`,
      value: int8.length / 1e6,
      unit: "MB",
      peer: { what: "MB in fp32", value: bytes.length / 1e6 },
    },
    {
      id: `quantize-${id}-float`,
      what: `${what}: convolutions and products left in float`,
      value: report.kernels.float,
      unit: `of ${report.kernels.float + report.kernels.integer} kernels`,
      bar: { at: "most", value: 0 },
    },
  ];
}

function speedFigure(id: string, what: string, speed: SpeedReport, bar?: number): Figure {
  return {
    id: `quantize-${id}`,
    what,
    value: speed.floatMs / speed.variantMs,
    unit: `times as fast (${speed.variantMs.toFixed(2)} ms)`,
    peer: { what: "ms in fp32", value: speed.floatMs },
    ...(bar === undefined ? {} : { bar: { at: "least" as const, value: bar } }),
  };
}

const threads = (count: number) => `${count} thread${count === 1 ? "" : "s"}`;

async function memoryFigures(): Promise<Figure[]> {
  const entry = fileURLToPath(new URL("./quantize-memory.js", import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [entry]);
  const found = JSON.parse(stdout) as { seconds: number; peakRssBytes: number; bytesBefore: number };
  return [
    {
      id: "quantize-seconds",
      what: "quantizing 11.7 million parameters, 100 images, entropy",
      value: found.seconds,
      unit: "s",
      bar: { at: "most", value: SECONDS_MAX },
    },
    {
      id: "quantize-peak",
      what: "peak memory of that process",
      value: found.peakRssBytes / 1e6,
      unit: "MB",
      peer: { what: "MB model", value: found.bytesBefore / 1e6 },
      bar: { at: "most", value: PEAK_BYTES_MAX / 1e6 },
    },
  ];
}

/** silero-vad with its LSTM in int8: speed, size, and how far the speech probability is off on noise of growing loudness. */
async function voiceFigures(data: string): Promise<Figure[] | undefined> {
  const path = join(data, "models/silero-vad/silero_vad_16k_op15.onnx");
  if (data === "" || !existsSync(path)) return undefined;
  const bytes = new Uint8Array(readFileSync(path));
  const made = await quantizeDynamic(bytes, {
    backend: ortNode,
    fold: foldModel,
    perChannel: true,
    reduceRange: false,
  });
  const inputs = Array.from(
    { length: 24 },
    (_, at): Feeds => ({
      input: {
        type: "float32",
        dims: [1, 576],
        data: Float32Array.from(
          { length: 576 },
          (_value, sample) => (at / 40) * Math.sin(sample / (2 + (at % 9))),
        ),
      },
      state: {
        type: "float32",
        dims: [2, 1, 128],
        data: Float32Array.from({ length: 256 }, (_value, cell) => Math.tanh(Math.sin(cell * (at + 1)))),
      },
      sr: { type: "int64", dims: [], data: BigInt64Array.of(16_000n) },
    }),
  );
  const pairs = [{ reference: "output", test: "output" }];
  const compared = await compareModels(bytes, made.bytes, pairs, inputs, "fused", { backend: ortNode });
  const speed = await measureSpeed(bytes, made.bytes, inputs, { ...measuring, threadCount: 1 });
  return [
    speedFigure("silero-speed", "silero-vad, LSTM in dynamic int8", speed),
    sizeFigure("silero-size", "silero-vad, LSTM in dynamic int8: file", made.bytes, bytes),
    {
      id: "quantize-silero-cosine",
      what: "silero-vad: cosine of the speech probability to fp32",
      value: compared.get("output")!.cosine,
      unit: "",
      bar: { at: "least", value: 0.99 },
    },
  ];
}

/** Products of 512 and 2048: weights of 4 bits, and dynamic int8. */
async function productFigures(): Promise<Figure[]> {
  const bytes = productNetwork();
  const inputs = Array.from(
    { length: 4 },
    (_, at): Feeds => ({
      tokens: {
        type: "float32",
        dims: [16, 512],
        data: Float32Array.from({ length: 8192 }, (_value, cell) => Math.sin(cell * (at + 2))),
      },
    }),
  );
  const session = await ortNode.openSession(bytes, { threadCount: 1, executionProvider: "cpu" });
  const output = session.outputs[0]!.name;
  await session.release();
  const shared = { backend: ortNode, fold: foldModel };
  const made = {
    "int4-symmetric": await quantizeInt4(bytes, {
      ...shared,
      blockSize: 32,
      symmetric: true,
      accuracyLevel: 4,
    }),
    "int4-asymmetric": await quantizeInt4(bytes, {
      ...shared,
      blockSize: 32,
      symmetric: false,
      accuracyLevel: 4,
    }),
    dynamic: await quantizeDynamic(bytes, { ...shared, perChannel: true, reduceRange: false }),
  };
  const figures: Figure[] = [];
  for (const [name, { bytes: variant }] of Object.entries(made)) {
    const pairs = [{ reference: output, test: output }];
    const compared = await compareModels(bytes, variant, pairs, inputs, "fused", shared);
    const speed = await measureSpeed(bytes, variant, inputs, {
      ...measuring,
      durationMs: 2_000,
      threadCount: 1,
    });
    figures.push(
      sizeFigure(`products-${name}-size`, `8 products of 512×2048, ${name}: file`, variant, bytes),
      {
        id: `quantize-products-${name}-sqnr`,
        what: `8 products of 512×2048, ${name}: signal to noise of the output`,
        value: compared.get(output)!.sqnrDb,
        unit: "dB",
        bar: { at: "least", value: name === "dynamic" ? 30 : 15 },
      },
      speedFigure(`products-${name}`, `8 products of 512×2048, ${name}`, speed),
    );
  }
  return figures;
}

function sizeFigure(id: string, what: string, variant: Uint8Array, float: Uint8Array): Figure {
  return {
    id: `quantize-${id}`,
    what,
    value: variant.length / 1e6,
    unit: "MB",
    peer: { what: "MB in fp32", value: float.length / 1e6 },
  };
}
