import { describe, expect, it } from "vitest";
import { ortNode } from "../node/ort.js";
import { GraphBuilder } from "../onnx/builder.js";
import { encodeModel } from "../onnx/model.js";
import { float32Tensor, int64Tensor } from "../onnx/tensor.js";
import { Random } from "../simulate/random.js";
import { planTraining } from "./explain.js";
import { fit } from "./fit.js";
import { runRows } from "./infer.js";
import { chooseTensors, findLayers, type Trainable } from "./layers.js";
import { graphFromBytes } from "./onnx-form.js";
import { prepareGraph, type PrepareOptions } from "./prepare.js";
import { toyClassifier } from "./toy.test.kit.js";

const options: PrepareOptions = {
  backend: ortNode,
  batch: 3,
  trainable: "all",
  strip: "softmax",
  executionProvider: "cpu",
  threadCount: 1,
};

function random(builder: GraphBuilder, name: string, dims: readonly number[]): string {
  const stream = new Random(dims.length, dims[0]!);
  const size = dims.reduce((product, dim) => product * dim, 1);
  return builder.initializer(
    float32Tensor(
      name,
      dims,
      Float32Array.from({ length: size }, () => stream.normal()),
    ),
  );
}

/** Old forms of operators around one dense layer: attributes for axes and bounds, flattening Softmax, baked batch 1. */
function oldModel(): Uint8Array {
  const builder = new GraphBuilder();
  let at = builder.input("x", "float32", [1, 2, 3, 4]);
  [at = ""] = builder.node("Pad", [at], {
    pads: { ints: [0, 0, 0, 1, 0, 0, 0, 1] },
    mode: { s: "constant" },
    value: { f: 0 },
  });
  [at = ""] = builder.node("Slice", [at], {
    starts: { ints: [1] },
    ends: { ints: [5] },
    axes: { ints: [3] },
  });
  [at = ""] = builder.node("Clip", [at], { min: { f: -1 }, max: { f: 1 } });
  [at = ""] = builder.node("Unsqueeze", [at], { axes: { ints: [0] } });
  [at = ""] = builder.node("Squeeze", [at], { axes: { ints: [0] } });
  const halves = builder.node("Split", [at], { axis: { i: 1 }, split: { ints: [1, 1] } }, 2);
  [at = ""] = builder.node("Concat", halves, { axis: { i: 1 } });
  [at = ""] = builder.node("ReduceMean", [at], { axes: { ints: [1] }, keepdims: { i: 1 } });
  const shape = builder.initializer(int64Tensor("shape", [2], [1, 12]));
  [at = ""] = builder.node("Reshape", [at, shape]);
  [at = ""] = builder.node("Dropout", [at], { ratio: { f: 0.5 } });
  [at = ""] = builder.node("MatMul", [at, random(builder, "weight", [12, 3])]);
  [at = ""] = builder.node("Add", [at, random(builder, "bias", [3])]);
  builder.node("Softmax", [at], { axis: { i: 1 } }, ["probabilities"]);
  builder.output("probabilities", "float32", [1, 3]);
  return encodeModel(builder.build({ opset: 9 }));
}

describe("prepareGraph", () => {
  it("upgrades old operators, opens a baked batch and strips the Softmax", async () => {
    const model = oldModel();
    const prepared = await prepareGraph(model, options);
    expect(prepared.graph.opset).toBeGreaterThanOrEqual(20);
    expect(prepared.trained).toEqual(["weight", "bias"]);
    expect(prepared.graph.nodes.at(-1)!.op).toBe("Add");
    expect(prepared.shapes.get(prepared.output)).toEqual([3, 3]);

    const stream = new Random(1);
    const inputs = Float32Array.from({ length: 3 * 24 }, () => stream.normal());
    const { outputs } = await runRows({ model, backend: ortNode, inputs, batch: 3 });
    const session = await ortNode.openSession(model, { threadCount: 1, executionProvider: "cpu" });
    for (let row = 0; row < 3; row++) {
      const data = inputs.slice(row * 24, (row + 1) * 24);
      const single = await session.run({ x: { type: "float32", dims: [1, 2, 3, 4], data } });
      const expected = single["probabilities"]!.data as Float32Array;
      expected.forEach((value, k) => expect(outputs[row * 3 + k]).toBeCloseTo(value, 6));
    }
    await session.release();
  });

  it("keeps what is frozen as constants and folds what does not depend on the input", async () => {
    const prepared = await prepareGraph(toyClassifier(), { ...options, trainable: "head" });
    expect(prepared.trained).toEqual(["head.weight", "head.bias"]);
    expect(prepared.graph.constants.has("conv1.weight")).toBe(true);
  });

  it("trains through a normalization and an upsampling of an old opset", async () => {
    const builder = new GraphBuilder();
    let at = builder.input("x", "float32", ["n", 2, 4, 4]);
    [at = ""] = builder.node("Conv", [at, random(builder, "w", [3, 2, 3, 3])], {
      auto_pad: { s: "SAME_UPPER" },
    });
    const ones = new Float32Array(3).fill(1);
    const channel = (name: string) => builder.initializer(float32Tensor(name, [3], ones));
    [at = ""] = builder.node("BatchNormalization", [
      at,
      channel("scale"),
      channel("shift"),
      channel("mean"),
      channel("variance"),
    ]);
    [at = ""] = builder.node(
      "Upsample",
      [at, builder.initializer(float32Tensor("scales", [4], [1, 1, 2, 2]))],
      { mode: { s: "nearest" } },
    );
    [at = ""] = builder.node("GlobalAveragePool", [at], {}, ["logits"]);
    builder.output("logits", "float32");
    const model = encodeModel(builder.build({ opset: 9 }));
    const labels = [0, 1, 2, 0, 1, 2];
    // Class 0 is bright in the first channel, class 2 in the second.
    const level = (row: number, channel: number) => (labels[row] === 2 * channel ? 1 : 0);
    const inputs = Float32Array.from({ length: 6 * 32 }, (_, k) =>
      level(Math.floor(k / 32), Math.floor(k / 16) % 2),
    );
    const data = { inputs, labels };
    const result = await fit({
      model,
      backend: ortNode,
      data,
      settings: { steps: 60, batch: 6, rate: 0.02 },
    });
    expect(result.trainedTensors).toEqual(["w", "scale", "shift"]);
    expect(result.losses.at(-1)!).toBeLessThan(result.losses[0]! * 0.7);
  });

  it("trains a yes/no output through its Sigmoid", async () => {
    const builder = new GraphBuilder();
    builder.input("x", "float32", ["n", 4]);
    const [hidden = ""] = builder.node("MatMul", ["x", random(builder, "w", [4, 1])]);
    builder.node("Sigmoid", [hidden], {}, ["y"]);
    builder.output("y", "float32");
    const model = encodeModel(builder.build({ opset: 17 }));
    const stream = new Random(2);
    const inputs = Float32Array.from({ length: 64 * 4 }, () => stream.normal());
    const targets = Float32Array.from({ length: 64 }, (_, row) =>
      inputs[row * 4]! > inputs[row * 4 + 1]! ? 1 : 0,
    );
    const settings = { loss: "binary_cross_entropy", epochs: 60, batch: 16, rate: 0.05 } as const;
    const result = await fit({ model, backend: ortNode, data: { inputs, targets }, settings });
    const { outputs } = await runRows({ model: result.model, backend: ortNode, inputs });
    const right = targets.filter((target, row) => target === Math.round(outputs[row]!)).length;
    expect(right).toBeGreaterThan(58);
  });

  it("refuses by name what has no gradient", async () => {
    const builder = new GraphBuilder();
    builder.input("x", "float32", ["n", 4]);
    const [hidden = ""] = builder.node("MatMul", ["x", random(builder, "w", [4, 4])]);
    builder.node("Selu", [hidden], {}, ["y"]);
    builder.output("y", "float32");
    const model = encodeModel(builder.build({ opset: 17 }));
    const data = { inputs: new Float32Array(8), labels: [0, 1] };
    const refused = fit({ model, backend: ortNode, data, settings: { steps: 1 } });
    await expect(refused).rejects.toMatchObject({ code: "training_unsupported_op", detail: { op: "Selu" } });
  });

  it("refuses an operator that it does not know at all", () => {
    const builder = new GraphBuilder();
    builder.input("x", "float32", ["n", 4]);
    builder.node("NonZero", ["x"], {}, ["y"]);
    builder.output("y", "int64");
    const model = encodeModel(builder.build({ opset: 17 }));
    return expect(prepareGraph(model, options)).rejects.toMatchObject({ code: "training_unsupported_op" });
  });
});

describe("planTraining", () => {
  it("says what would be trained and what stands in the way", () => {
    const plan = planTraining(toyClassifier(), "head");
    expect(plan).toMatchObject({ opset: 17, trainedParameterCount: 68, blockers: [] });
    expect(plan.parameterCount).toBe(3 * 8 * 9 + 8 + 8 * 16 * 9 + 16 + 68);
    expect(plan.layers.map((layer) => layer.op)).toEqual(["Conv", "Conv", "Gemm"]);

    const builder = new GraphBuilder();
    builder.input("x", "float32", ["n", 4]);
    const [hidden = ""] = builder.node("MatMul", ["x", random(builder, "w", [4, 4])]);
    builder.node("Selu", [hidden], {}, ["y"]);
    builder.output("y", "float32");
    expect(planTraining(encodeModel(builder.build({ opset: 17 }))).blockers).toMatchObject([{ op: "Selu" }]);
  });
});

describe("chooseTensors", () => {
  const layers = findLayers(graphFromBytes(toyClassifier()));

  it.each<[Trainable, number]>([
    ["head", 2],
    ["last", 4],
    ["all", 6],
    [{ layers: 2 }, 4],
    [["conv1.bias"], 1],
  ])("%j chooses %d tensors", (trainable, count) => {
    expect(chooseTensors(layers, trainable)).toHaveLength(count);
  });

  it("refuses a tensor that is not there", () => {
    expect(() => chooseTensors(layers, ["conv9.weight"])).toThrow(
      expect.objectContaining({ code: "invalid_argument" }),
    );
  });
});
