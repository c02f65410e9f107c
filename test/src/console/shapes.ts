import { encodeDataFile, type DataItem } from "@fieldloop/protocol";
import { encodeModel, float32Tensor, GraphBuilder } from "@fieldloop/runtime";
import { encodeJpeg, ortNode, writePackage, type ModelPackage } from "@fieldloop/runtime/node";
import { Random } from "@fieldloop/runtime/simulate";
import { fit, initializeWeights } from "@fieldloop/runtime/train";

/** A real, very small classifier of three drawn shapes: trained here in about a second, and trainable further by the server. */
export const SHAPES = ["bar", "ring", "cross"] as const;
const SIDE = 16;
const PIXELS = SIDE * SIDE;
const HIDDEN = 24;

/** `night` turns the contrast over: what the first version has never seen. */
export type Light = "day" | "night";

function drawShape(shape: number, light: Light, random: Random): Uint8Array {
  const [midX, midY] = [random.range(6, 9), random.range(6, 9)];
  const [ground, figure] = light === "day" ? [50, 210] : [90, 15];
  return Uint8Array.from({ length: PIXELS }, (_, at) => {
    const x = Math.abs((at % SIDE) - midX);
    const y = Math.abs(Math.floor(at / SIDE) - midY);
    const far = Math.hypot(x, y);
    const upright = x < 1.4 && y < 5.5;
    const hit = shape === 0 ? upright : shape === 1 ? far > 3 && far < 5.2 : upright || (y < 1.4 && x < 5.5);
    return Math.max(0, Math.min(255, (hit ? figure : ground) + 10 * random.normal()));
  });
}

/** Labelled images, the shapes in turn. */
export async function drawItems(count: number, light: Light, seed: number): Promise<DataItem[]> {
  return Promise.all(
    Array.from({ length: count }, async (_, at) => {
      const shape = at % SHAPES.length;
      const gray = drawShape(shape, light, new Random(seed, at));
      const data = Uint8Array.from({ length: PIXELS * 3 }, (_unused, byte) => gray[Math.floor(byte / 3)]!);
      const payload = await encodeJpeg({ kind: "pixels", data, width: SIDE, height: SIDE, channels: 3 }, 92);
      return { media: "image/jpeg" as const, label: SHAPES[shape]!, payload: Uint8Array.from(payload) };
    }),
  );
}

function buildNet(): Uint8Array {
  const graph = new GraphBuilder();
  const empty = (name: string, dims: readonly number[]) =>
    graph.initializer(float32Tensor(name, dims, new Float32Array(dims.reduce((size, dim) => size * dim, 1))));
  const dense = (from: string, name: string, width: number, to: number, result: string) =>
    graph.node(
      "Gemm",
      [from, empty(`${name}.weight`, [to, width]), empty(`${name}.bias`, [to])],
      { transB: { i: 1 } },
      [result],
    );
  const image = graph.input("image", "float32", ["batch", 1, SIDE, SIDE]);
  const [flat] = graph.node("Flatten", [image], { axis: { i: 1 } });
  dense(flat!, "hidden", PIXELS, HIDDEN, "before");
  graph.node("Relu", ["before"], {}, ["embedding"]);
  dense("embedding", "head", HIDDEN, SHAPES.length, "logits");
  graph.output("logits", "float32", ["batch", SHAPES.length]);
  graph.output("embedding", "float32", ["batch", HIDDEN]);
  return encodeModel(graph.build({ opset: 17, graphName: "shapes" }));
}

/** Trains `shapes@1` on daylight and writes it as a package with replay and holdout. */
export async function makeShapes(dir: string): Promise<ModelPackage> {
  const labels = Array.from({ length: 450 }, (_, at) => at % SHAPES.length);
  const inputs = new Float32Array(labels.length * PIXELS);
  labels.forEach((label, at) => {
    inputs.set(Float32Array.from(drawShape(label, "day", new Random(1, at)), scale), at * PIXELS);
  });
  const { model } = await fit({
    model: initializeWeights(buildNet(), 3),
    backend: ortNode,
    data: { inputs, labels },
    settings: { steps: 150, rate: 4e-3, batch: 32 },
  });
  return writePackage(
    dir,
    {
      schema: 1,
      model: "shapes",
      version: 1,
      created: "2026-11-01T00:00:00.000Z",
      task: "classification",
      description: "Three drawn shapes in daylight",
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
          mean: [0.5],
          std: [0.25],
        },
      ],
      heads: [
        { name: "shape", kind: "classification", output: "logits", labels: [...SHAPES], values: "logits" },
        { name: "embedding", kind: "embedding", output: "embedding", length: HIDDEN },
      ],
      signals: ["entropy", "margin"],
      variants: [
        { name: "fp32", file: "fp32.onnx", precision: "fp32", opset: 17, executionProviders: ["cpu"] },
      ],
      replay: { file: "replay.bin", count: 150, format: "fieldloop-samples-1" },
      holdout: { file: "holdout.bin", count: 90, format: "fieldloop-samples-1" },
      lineage: { base: null, snapshot: null, trainer: "test", settings: {}, libraries: {}, metrics: {} },
    },
    {
      "fp32.onnx": model,
      "replay.bin": encodeDataFile(await drawItems(150, "day", 2)),
      "holdout.bin": encodeDataFile(await drawItems(90, "day", 4)),
    },
  );
}

const scale = (level: number) => (level / 255 - 0.5) / 0.25;
