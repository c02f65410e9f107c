import { join } from "node:path";
import type { ManifestInput } from "@fieldloop/protocol";
import { GraphBuilder, encodeModel, float32Tensor } from "@fieldloop/runtime";
import { writePackage, type ModelPackage } from "@fieldloop/runtime/node";

export interface NetShape {
  readonly name: string;
  /** Pixels of a side. */
  readonly size: number;
  readonly channels: number;
  readonly blocks: number;
}

/** A classifier of 3×3 convolutions with ReLU and a global mean, four classes. */
export async function writeNet(folder: string, shape: NetShape): Promise<ModelPackage> {
  const { name, size, channels, blocks } = shape;
  const graph = new GraphBuilder();
  let at = graph.input("image", "float32", [1, 3, size, size]);
  for (let block = 0; block < blocks; block++) {
    const from = block === 0 ? 3 : channels;
    const weight = Float32Array.from({ length: channels * from * 9 }, (_, index) => Math.sin(index) / 9);
    const kernel = graph.initializer(float32Tensor(`w${block}`, [channels, from, 3, 3], weight));
    [at] = graph.node("Conv", [at, kernel], { pads: { ints: [1, 1, 1, 1] } }) as [string];
    [at] = graph.node("Relu", [at]) as [string];
  }
  [at] = graph.node("GlobalAveragePool", [at]) as [string];
  [at] = graph.node("Flatten", [at], { axis: { i: 1 } }) as [string];
  const dense = Float32Array.from({ length: channels * 4 }, (_, index) => Math.cos(index));
  graph.node("Gemm", [at, graph.initializer(float32Tensor("dense", [channels, 4], dense))], {}, ["logits"]);
  graph.output("logits", "float32", [1, 4]);
  const image = {
    width: size,
    height: size,
    colour: "rgb",
    resize: "stretch",
    layout: "nchw",
    range: "unit",
  } as const;
  return writeClassifier(folder, name, graph, { kind: "image", name: "image", ...image });
}

/** A package of one variant whose `logits` are four classes. */
export async function writeClassifier(
  folder: string,
  name: string,
  graph: GraphBuilder,
  input: ManifestInput["inputs"][number],
): Promise<ModelPackage> {
  return writePackage(
    join(folder, name),
    {
      schema: 1,
      model: name,
      version: 1,
      created: "2026-11-20T00:00:00Z",
      task: "classification",
      licence: "Apache-2.0",
      inputs: [input],
      heads: [
        {
          name: "class",
          kind: "classification",
          output: "logits",
          labels: ["a", "b", "c", "d"],
          values: "logits",
        },
      ],
      signals: ["margin", "entropy", "energy", "brightness", "instability"],
      variants: [
        { name: "fp32", file: "model.onnx", precision: "fp32", opset: 17, executionProviders: ["cpu"] },
      ],
      lineage: { base: null, snapshot: null, trainer: "by hand", settings: {}, libraries: {}, metrics: {} },
    },
    { "model.onnx": encodeModel(graph.build({ opset: 17 })) },
  );
}
