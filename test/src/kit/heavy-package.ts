import { encodeModel, float32Tensor, GraphBuilder } from "@fieldloop/runtime";
import { type ManifestDraft, type ModelPackage, writePackage } from "@fieldloop/runtime/node";
import { Random } from "@fieldloop/runtime/simulate";

const SIDE = 128;
const CHANNELS = 64;
/** 0.6 billion multiplications each: together a fifth of a second on one core of a small machine. */
const LAYERS = 8;
const LABELS = ["left", "right"];

/** An untrained stack of wide convolutions: right or wrong does not matter, it takes its time. */
export async function writeHeavyPackage(folder: string, model = "heavy"): Promise<ModelPackage> {
  const draft: ManifestDraft = {
    schema: 1,
    model,
    version: 1,
    created: "2026-11-20T00:00:00Z",
    task: "classification",
    licence: "Apache-2.0",
    inputs: [
      {
        kind: "image",
        name: "image",
        width: SIDE,
        height: SIDE,
        colour: "rgb",
        resize: "stretch",
        layout: "nchw",
        range: "unit",
      },
    ],
    heads: [{ kind: "classification", name: "class", output: "logits", labels: LABELS, values: "logits" }],
    variants: [
      { name: "fp32", file: "fp32.onnx", precision: "fp32", opset: 17, executionProviders: ["cpu"] },
    ],
    lineage: { base: null, snapshot: null, trainer: "seeded", settings: {}, libraries: {}, metrics: {} },
  };
  return writePackage(folder, draft, { "fp32.onnx": heavyModel() });
}

function heavyModel(): Uint8Array {
  const random = new Random(3);
  const graph = new GraphBuilder();
  const weights = (name: string, dims: readonly number[]): string => {
    const count = dims.reduce((product, dim) => product * dim, 1);
    const scale = Math.sqrt((2 * dims[0]!) / count);
    const values = Float32Array.from({ length: count }, () => scale * random.normal());
    return graph.initializer(float32Tensor(name, dims, values));
  };
  let at = graph.input("image", "float32", [1, 3, SIDE, SIDE]);
  for (let layer = 0; layer < LAYERS; layer++) {
    const weight = weights(`layer-${layer}`, [CHANNELS, layer === 0 ? 3 : CHANNELS, 3, 3]);
    const [convolved] = graph.node("Conv", [at, weight], {
      kernel_shape: { ints: [3, 3] },
      pads: { ints: [1, 1, 1, 1] },
    });
    [at] = graph.node("Relu", [convolved!]) as [string];
  }
  const [pooled] = graph.node("GlobalAveragePool", [at]);
  const [flat] = graph.node("Flatten", [pooled!], { axis: { i: 1 } });
  graph.node("Gemm", [flat!, weights("dense", [LABELS.length, CHANNELS])], { transB: { i: 1 } }, ["logits"]);
  graph.output("logits", "float32", [1, LABELS.length]);
  return encodeModel(graph.build({ opset: 17 }));
}
