import { expect, test } from "vitest";
import type { Tensor } from "../backend.js";
import { ortNode } from "../node/ort.js";
import { GraphBuilder, valueInfo } from "./builder.js";
import type { ModelProto } from "./generated/onnx_pb.js";
import { producerMap } from "./graph.js";
import { decodeModel, encodeModel, graphOf, opsetVersion } from "./model.js";
import { float32Tensor, tensorToFloat32 } from "./tensor.js";
import { tidyModel } from "./tidy.js";
import { upgradeOpset } from "./upgrade.js";
import { replaceInitializers } from "./writeback.js";

const INT64_MAX = 2n ** 63n - 1n;

/** Operator set 9 with every operator whose definition changed on the way to 13. */
function oldModel(): ModelProto {
  const graph = new GraphBuilder();
  graph.input("x", "float32", [1, 2, 4, 4]);
  const constant = (name: string, values: number[]) =>
    graph.initializer(float32Tensor(name, [values.length], values));
  const norms = [
    constant("scale", [1, 2]),
    constant("shift", [0, 1]),
    constant("mean", [0.5, 0]),
    constant("var", [1, 4]),
  ];
  let [h] = graph.node("BatchNormalization", ["x", ...norms], { epsilon: { f: 1e-3 } });
  [h] = graph.node("Clip", [h!], { min: { f: -1 }, max: { f: 1.5 } });
  [h] = graph.node("Pad", [h!], { pads: { ints: [0, 0, 1, 0, 0, 0, 0, 1] }, value: { f: 2 } });
  [h] = graph.node("Slice", [h!], {
    axes: { ints: [2] },
    starts: { ints: [1] },
    ends: { ints: [INT64_MAX] },
  });
  [h] = graph.node("Upsample", [h!, constant("scales", [1, 1, 2, 2])], { mode: { s: "nearest" } });
  [h] = graph.node("Dropout", [h!], { ratio: { f: 0.3 } });
  const [left, right] = graph.node("Split", [h!], { axis: { i: 1 }, split: { ints: [1, 1] } }, 2);
  [h] = graph.node("Add", [left!, right!]);
  [h] = graph.node("Squeeze", [h!], { axes: { ints: [1] } });
  [h] = graph.node("Unsqueeze", [h!], { axes: { ints: [0, 2] } });
  [h] = graph.node("Softmax", [h!], { axis: { i: 3 } });
  graph.node("ReduceSum", [h!], { axes: { ints: [4] }, keepdims: { i: 0 } }, ["y"]);
  graph.output("y", "float32");
  return graph.build({ opset: 9, irVersion: 4 });
}

async function runOn(model: ModelProto): Promise<Tensor> {
  const session = await ortNode.openSession(encodeModel(model), { threadCount: 1, executionProvider: "cpu" });
  try {
    const data = Float32Array.from({ length: 32 }, (_, index) => Math.sin(index * 1.7) * 2);
    return (await session.run({ x: { type: "float32", dims: [1, 2, 4, 4], data } })).y!;
  } finally {
    await session.release();
  }
}

test("an old model computes the same after the upgrade to operator set 13", async () => {
  const before = await runOn(oldModel());
  const model = oldModel();
  expect(upgradeOpset(model)).toBe(true);
  expect(opsetVersion(model)).toBe(13);
  const after = await runOn(model);
  expect(after.dims).toEqual(before.dims);
  const values = after.data as Float32Array;
  for (const [index, value] of (before.data as Float32Array).entries())
    expect(values[index]).toBeCloseTo(value, 6);
  expect(upgradeOpset(model)).toBe(false);
});

/** Operator set 10, as ONNX's own `resize_downsample_scales_nearest` of that set. */
function resized(scales: readonly number[], stored: "initializer" | "node" = "initializer"): ModelProto {
  const graph = new GraphBuilder();
  graph.input("x", "float32", [1, 2, 4, 4]);
  const tensor = float32Tensor("scales", [4], scales);
  if (stored === "initializer") graph.initializer(tensor);
  else graph.node("Constant", [], { value: { t: tensor } }, ["scales"]);
  graph.node("Resize", ["x", "scales"], { mode: { s: "nearest" } }, ["y"]);
  graph.output("y", "float32");
  return graph.build({ opset: 10, irVersion: 5 });
}

test.each([[[1, 1, 0.6, 0.6]], [[1, 1, 0.3, 0.8]], [[1, 1, 1, 0.4]], [[1, 1, 1.5, 1.3]]])(
  "the nearest elements of the first Resize stay the same, scaled by %j",
  async (scales) => {
    for (const stored of ["initializer", "node"] as const) {
      const model = resized(scales, stored);
      const before = await runOn(model);
      expect(upgradeOpset(model)).toBe(true);
      expect(await runOn(model)).toEqual(before);
    }
  },
);

test("a Resize that shrinks and enlarges by the nearest element has no newer form", () => {
  expect(() => upgradeOpset(resized([1, 1, 2, 0.5]))).toThrow(/shrinks one axis and enlarges another/);
});

test("an operator that the upgrade does not know is refused by name", () => {
  const model = oldModel();
  producerMap(graphOf(model)).get("y")!.opType = "ConstantFill";
  expect(() => upgradeOpset(model)).toThrow(/operator ConstantFill/);
  model.opsetImport[0]!.version = 3n;
  expect(() => upgradeOpset(model)).toThrow(/operator set 3 is older than 7/);
});

test("tidying drops repeated inputs, doc strings and unused domains", async () => {
  const model = oldModel();
  const graph = graphOf(model);
  for (const tensor of graph.initializer) graph.input.push(valueInfo(tensor.name, "float32", [2]));
  graph.docString = "exported by hand";
  model.opsetImport.push({ ...model.opsetImport[0]!, domain: "ai.onnx.ml", version: 2n });
  const report = tidyModel(model);
  expect(report.inputsDropped).toEqual(["scale", "shift", "mean", "var", "scales"]);
  expect(report.domainsDropped).toEqual(["ai.onnx.ml"]);
  expect(report.docStringsDropped).toBe(1);
  const reread = graphOf(decodeModel(encodeModel(model)));
  expect(reread.input.map((input) => input.name)).toEqual(["x"]);
  expect((await runOn(model)).data).toEqual((await runOn(oldModel())).data);
});

test("new weights change their own bytes only", () => {
  const original = encodeModel(oldModel());
  const model = decodeModel(original);
  replaceInitializers(model, new Map([["shift", Float32Array.from([7, 8])]]));
  const changed = encodeModel(model);
  expect(changed.length).toBe(original.length);
  const differing = [...changed.keys()].filter((index) => changed[index] !== original[index]);
  expect(differing.length).toBeGreaterThan(0);
  expect(differing[differing.length - 1]! - differing[0]!).toBeLessThan(8);
  const shift = graphOf(decodeModel(changed)).initializer.find((tensor) => tensor.name === "shift")!;
  expect([...tensorToFloat32(shift)]).toEqual([7, 8]);
});

test("weights that do not fit are refused", () => {
  const replace = (name: string, values: number[]) => () =>
    replaceInitializers(oldModel(), new Map([[name, Float32Array.from(values)]]));
  expect(replace("nobody", [1])).toThrow(/the graph has none/);
  expect(replace("shift", [1])).toThrow(/1 values, 2 wanted/);
  expect(replace("shift", [1, Number.NaN])).toThrow(/not finite/);
});
