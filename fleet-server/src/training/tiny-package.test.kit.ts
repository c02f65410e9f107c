import { deflateSync } from "node:zlib";
import { crc32 } from "node:zlib";
import { encodeDataFile, type DataItem } from "@fieldloop/protocol";
import {
  encodeBaseline,
  encodeModel,
  float32Tensor,
  GraphBuilder,
  quantizeStatic,
  tensorToBytes,
} from "@fieldloop/runtime";
import { foldModel, ortNode, writePackage, type ModelPackage } from "@fieldloop/runtime/node";
import { Random } from "@fieldloop/runtime/simulate";
import { fit, initializeWeights } from "@fieldloop/runtime/train";

/** A real small classifier for tests: three shapes in 16 × 16 gray images, trained here in about a second. */
export const SHAPES = ["bar", "ring", "cross"] as const;
const SIDE = 16;

/** `dark` is what happens in the field: the light goes and the contrast turns over. */
export type Light = "bright" | "dark";

export function drawShape(label: number, light: Light, random: Random): Uint8Array {
  const pixels = new Uint8Array(SIDE * SIDE);
  const centreX = 7.5 + random.range(-2, 2);
  const centreY = 7.5 + random.range(-2, 2);
  for (let y = 0; y < SIDE; y++) {
    for (let x = 0; x < SIDE; x++) {
      const dx = Math.abs(x - centreX);
      const dy = Math.abs(y - centreY);
      const distance = Math.hypot(dx, dy);
      const inside = [
        dx < 1.5 && dy < 6,
        distance > 3 && distance < 5.5,
        (dx < 1.2 || dy < 1.2) && dx < 5 && dy < 5,
      ][label];
      const level = light === "bright" ? (inside ? 200 : 60) : inside ? 20 : 75;
      pixels[y * SIDE + x] = Math.max(0, Math.min(255, Math.round(level + 12 * random.normal())));
    }
  }
  return pixels;
}

/** A gray PNG file (ISO/IEC 15948), filter 0. */
export function encodePng(pixels: Uint8Array): Uint8Array<ArrayBuffer> {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(SIDE, 0);
  header.writeUInt32BE(SIDE, 4);
  header[8] = 8;
  const rows = Buffer.alloc(SIDE * (SIDE + 1));
  for (let y = 0; y < SIDE; y++) rows.set(pixels.subarray(y * SIDE, (y + 1) * SIDE), y * (SIDE + 1) + 1);
  const chunk = (type: string, data: Buffer): Buffer => {
    const body = Buffer.concat([Buffer.from(type), data]);
    const frame = Buffer.alloc(body.length + 8);
    frame.writeUInt32BE(data.length, 0);
    frame.set(body, 4);
    frame.writeUInt32BE(crc32(body), body.length + 4);
    return frame;
  };
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return new Uint8Array(
    Buffer.concat([
      signature,
      chunk("IHDR", header),
      chunk("IDAT", deflateSync(rows)),
      chunk("IEND", Buffer.alloc(0)),
    ]),
  );
}

export function drawItems(count: number, light: Light, seed: number): DataItem[] {
  return Array.from({ length: count }, (_, at) => {
    const random = new Random(seed, at);
    const label = at % SHAPES.length;
    return { media: "image/png", label: SHAPES[label]!, payload: encodePng(drawShape(label, light, random)) };
  });
}

function drawRows(count: number, seed: number): { inputs: Float32Array; labels: number[] } {
  const inputs = new Float32Array(count * SIDE * SIDE);
  const labels = Array.from({ length: count }, (_, at) => at % SHAPES.length);
  labels.forEach((label, at) => {
    const pixels = drawShape(label, "bright", new Random(seed, at));
    inputs.set(
      Float32Array.from(pixels, (value) => (value / 255 - 0.4) / 0.25),
      at * SIDE * SIDE,
    );
  });
  return { inputs, labels };
}

function buildNet(): Uint8Array {
  const builder = new GraphBuilder();
  const zeros = (name: string, dims: readonly number[]): string =>
    builder.initializer(
      float32Tensor(name, dims, new Float32Array(dims.reduce((product, dim) => product * dim, 1))),
    );
  let at = builder.input("image", "float32", ["batch", 1, SIDE, SIDE]);
  let channels = 1;
  for (const [index, wide] of [8, 16].entries()) {
    const weights = [
      zeros(`conv${index}.weight`, [wide, channels, 3, 3]),
      zeros(`conv${index}.bias`, [wide]),
    ];
    const [convolved] = builder.node("Conv", [at, ...weights], {
      kernel_shape: { ints: [3, 3] },
      strides: { ints: [2, 2] },
      pads: { ints: [1, 1, 1, 1] },
    });
    [at] = builder.node("Relu", [convolved!]) as [string];
    channels = wide;
  }
  const [flat] = builder.node("Flatten", [at], { axis: { i: 1 } });
  const dense = (input: string, name: string, from: number, to: number, outputs: string[] | number): string =>
    builder.node(
      "Gemm",
      [input, zeros(`${name}.weight`, [to, from]), zeros(`${name}.bias`, [to])],
      { transB: { i: 1 } },
      outputs,
    )[0]!;
  const hidden = dense(flat!, "embed", channels * 16, 16, 1);
  builder.node("Relu", [hidden], {}, ["embedding"]);
  dense("embedding", "head", 16, SHAPES.length, ["logits"]);
  builder.output("logits", "float32", ["batch", SHAPES.length]);
  builder.output("embedding", "float32", ["batch", 16]);
  return encodeModel(builder.build({ opset: 17, producer: "fieldloop", graphName: "shapes" }));
}

/** Trains, quantizes and packs version 1 of `shapes`, with replay, holdout, golden case and baseline. */
export async function makeTinyPackage(dir: string): Promise<ModelPackage> {
  const rows = drawRows(600, 1);
  const { model } = await fit({
    model: initializeWeights(buildNet(), 7),
    backend: ortNode,
    data: rows,
    settings: { steps: 150, rate: 5e-3, batch: 32 },
  });
  const dims = [1, 1, SIDE, SIDE];
  const row = (at: number) => ({
    type: "float32" as const,
    dims,
    data: rows.inputs.slice(at * SIDE * SIDE, (at + 1) * SIDE * SIDE),
  });
  const { bytes: int8 } = await quantizeStatic(model, {
    backend: ortNode,
    fold: foldModel,
    calibration: Array.from({ length: 100 }, (_, at) => ({ image: row(at) })),
    activation: "uint8",
    weight: "int8",
    perChannel: true,
    reduceRange: false,
    method: { kind: "minmax" },
  });
  const session = await ortNode.openSession(model, { threadCount: 1, executionProvider: "cpu" });
  const outputs = await session.run({ image: row(0) });
  await session.release();
  const zeros = new Array<number>(64).fill(0);
  const statistics = {
    count: 0,
    classes: [],
    confidence: zeros,
    latency: zeros,
    signals: {},
    confidenceSum: 0,
    confidenceSquareSum: 0,
  };
  const novelty = { centroids: new Float32Array(4 * 16).fill(0.25), count: 4, length: 16, median: 0.5 };
  const variant = { opset: 17, executionProviders: ["cpu"] };
  return writePackage(
    dir,
    {
      schema: 1,
      model: "shapes",
      version: 1,
      created: "2026-11-01T00:00:00.000Z",
      task: "classification",
      licence: "Apache-2.0",
      inputs: [
        {
          kind: "image",
          name: "image",
          width: SIDE,
          height: SIDE,
          colour: "gray",
          resize: "stretch",
          layout: "nchw",
          range: "unit",
          mean: [0.4],
          std: [0.25],
        },
      ],
      heads: [
        { name: "shape", kind: "classification", output: "logits", labels: [...SHAPES], values: "logits" },
        { name: "embedding", kind: "embedding", output: "embedding", length: 16 },
      ],
      signals: ["entropy", "margin", "novelty"],
      variants: [
        { ...variant, name: "fp32", file: "fp32.onnx", precision: "fp32" },
        { ...variant, name: "int8-u8s8", file: "int8.onnx", precision: "int8" },
      ],
      golden: [
        {
          name: "first",
          inputs: [{ file: "golden/in.bin", name: "image", elementType: "float32", dims }],
          outputs: [{ file: "golden/out.bin", name: "logits", elementType: "float32", dims: [1, 3] }],
          tolerance: { fp32: { absolute: 1e-3, relative: 1e-3 }, int8: { absolute: 1, relative: 0.1 } },
        },
      ],
      baseline: { file: "baseline.cbor" },
      replay: { file: "replay.bin", count: 300, format: "fieldloop-samples-1" },
      holdout: { file: "holdout.bin", count: 200, format: "fieldloop-samples-1" },
      lineage: { base: null, snapshot: null, trainer: "test", settings: {}, libraries: {}, metrics: {} },
    },
    {
      "fp32.onnx": model,
      "int8.onnx": int8,
      "golden/in.bin": tensorToBytes(row(0)),
      "golden/out.bin": tensorToBytes(outputs["logits"]!),
      "baseline.cbor": encodeBaseline({ statistics, novelty }),
      "replay.bin": encodeDataFile(drawItems(300, "bright", 2)),
      "holdout.bin": encodeDataFile(drawItems(200, "bright", 3)),
    },
  );
}
