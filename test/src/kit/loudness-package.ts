import { encodeModel, float32Tensor, GraphBuilder, tensorToBytes } from "@fieldloop/runtime";
import { type ManifestDraft, type ModelPackage, writePackage } from "@fieldloop/runtime/node";

const LENGTH = 256;

/** A model that takes microseconds on a signal: the mean magnitude of a window as two logits. */
export async function writeLoudnessPackage(
  folder: string,
  options: { readonly version: number },
): Promise<ModelPackage> {
  const slope = 4 + options.version * 1e-4;
  const graph = new GraphBuilder();
  const window = graph.input("window", "float32", [1, LENGTH]);
  const [magnitudes] = graph.node("Abs", [window]);
  const part = (value: number): number[] => new Array<number>(LENGTH).fill(value / LENGTH);
  const weight = graph.initializer(float32Tensor("weight", [2, LENGTH], [...part(-slope), ...part(slope)]));
  const bias = graph.initializer(float32Tensor("bias", [2], [2, -2]));
  graph.node("Gemm", [magnitudes!, weight, bias], { transB: { i: 1 } }, ["logits"]);
  graph.output("logits", "float32", [1, 2]);
  const draft: ManifestDraft = {
    schema: 1,
    model: "loudness",
    version: options.version,
    created: "2026-11-20T00:00:00Z",
    task: "classification",
    licence: "Apache-2.0",
    inputs: [
      {
        kind: "window",
        name: "window",
        length: LENGTH,
        hop: LENGTH / 2,
        sampleRateHz: 2560,
        normalization: "none",
        dims: [1, LENGTH],
      },
    ],
    heads: [
      {
        kind: "classification",
        name: "class",
        output: "logits",
        labels: ["quiet", "loud"],
        values: "logits",
      },
    ],
    signals: ["entropy", "margin"],
    variants: [
      { name: "fp32", file: "fp32.onnx", precision: "fp32", opset: 17, executionProviders: ["cpu"] },
    ],
    golden: [
      {
        name: "full",
        inputs: [{ file: "golden/in.bin", name: "window", elementType: "float32", dims: [1, LENGTH] }],
        outputs: [{ file: "golden/out.bin", name: "logits", elementType: "float32", dims: [1, 2] }],
        tolerance: { fp32: { absolute: 0.1, relative: 0 } },
      },
    ],
    lineage: { base: null, snapshot: null, trainer: "by hand", settings: {}, libraries: {}, metrics: {} },
  };
  return writePackage(folder, draft, {
    "fp32.onnx": encodeModel(graph.build({ opset: 17 })),
    "golden/in.bin": tensorToBytes({
      type: "float32",
      dims: [1, LENGTH],
      data: new Float32Array(LENGTH).fill(-1),
    }),
    "golden/out.bin": tensorToBytes({ type: "float32", dims: [1, 2], data: Float32Array.from([-2, 2]) }),
  });
}
