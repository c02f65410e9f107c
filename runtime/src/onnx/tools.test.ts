import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import type { Tensor } from "../backend.js";
import { foldModel } from "../node/fold.js";
import { ortNode } from "../node/ort.js";
import { GraphBuilder, valueInfo } from "./builder.js";
import { checkModel } from "./check.js";
import { modelCost } from "./cost.js";
import { fixDims, setBatch } from "./dims.js";
import { inlineExternalData } from "./external.js";
import { embeddingCandidate, exposeTensor, extractModel, splitModel } from "./extract.js";
import { GraphProtoSchema, StringStringEntryProtoSchema, type ModelProto } from "./generated/onnx_pb.js";
import { makeNode } from "./graph.js";
import { decodeModel, encodeModel, graphOf, opsetVersion } from "./model.js";
import { nameNodes } from "./names.js";
import { stripModel } from "./strip.js";
import { boolTensor, float32Tensor, int64Tensor } from "./tensor.js";
import { upgradeOpset } from "./upgrade.js";

/** Two heads on a shared layer: class scores through two layers, and a size. Fixed batch of 1, as exporters write it. */
function twoHeads(): ModelProto {
  const graph = new GraphBuilder();
  const wave = (count: number, at: number) =>
    Float32Array.from({ length: count }, (_, i) => Math.sin(i * 1.3 + at));
  graph.input("image", "float32", [1, 2, 4, 4]);
  const kernel = graph.initializer(float32Tensor("kernel", [3, 2, 3, 3], wave(54, 0)));
  graph.node("Conv", ["image", kernel], { pads: { ints: [1, 1, 1, 1] } }, ["conv"]);
  graph.node("Relu", ["conv"], {}, ["features"]);
  const flatShape = graph.initializer(int64Tensor("flatShape", [2], [1, 48]));
  graph.node("Reshape", ["features", flatShape], {}, ["flat"]);
  const first = graph.initializer(float32Tensor("first", [48, 5], wave(240, 1)));
  graph.node("MatMul", ["flat", first], {}, ["hidden"]);
  graph.node("Dropout", ["hidden"], {}, ["kept"]);
  graph.node("Tanh", ["kept"], {}, ["embedded"]);
  const second = graph.initializer(float32Tensor("second", [5, 3], wave(15, 2)));
  graph.node("MatMul", ["embedded", second], {}, ["logits"]);
  graph.node("Softmax", ["logits"], { axis: { i: -1 } }, ["scores"]);
  const third = graph.initializer(float32Tensor("third", [48, 1], wave(48, 3)));
  graph.node("MatMul", ["flat", third], {}, ["size"]);
  graph.output("scores", "float32", [1, 3]);
  graph.output("size", "float32", [1, 1]);
  return graph.build({ opset: 17 });
}

const image = (batch: number, from = 0): Tensor => ({
  type: "float32",
  dims: [batch, 2, 4, 4],
  data: Float32Array.from({ length: 32 * batch }, (_, at) => Math.cos((at + from) * 0.7)),
});

async function run(model: ModelProto, feeds: Record<string, Tensor>): Promise<Record<string, Tensor>> {
  const session = await ortNode.openSession(encodeModel(model), {
    threadCount: 1,
    executionProvider: "cpu",
    graphOptimization: "disabled",
  });
  try {
    return await session.run(feeds);
  } finally {
    await session.release();
  }
}

test("a backbone and its heads compose to the whole, bit for bit", async () => {
  const model = twoHeads();
  const before = encodeModel(model);
  const known = new Map([["flat", { name: "flat", type: "float32", dims: [1, 48] } as const]]);
  const { backbone, heads } = splitModel(model, ["flat"], known);
  expect(encodeModel(model)).toEqual(before);
  expect([backbone.inputs, backbone.outputs]).toEqual([["image"], ["flat"]]);
  expect(heads.map((head) => [head.inputs, head.outputs])).toEqual([
    [["flat"], ["scores"]],
    [["flat"], ["size"]],
  ]);
  expect(graphOf(heads[1]!.model).initializer.map((tensor) => tensor.name)).toEqual(["third"]);
  for (const part of [backbone, ...heads]) checkModel(encodeModel(part.model));

  const whole = await run(twoHeads(), { image: image(1) });
  const { flat } = await run(backbone.model, { image: image(1) });
  for (const head of heads) {
    const outputs = await run(head.model, { flat: flat! });
    for (const [name, tensor] of Object.entries(outputs)) expect(tensor).toEqual(whole[name]);
  }
});

test("outputs that share a node behind the cut share a head, and outputs before it stay with the backbone", () => {
  const model = twoHeads();
  for (const name of ["conv", "embedded"]) exposeTensor(model, name);
  const known = new Map([["hidden", { name: "hidden", type: "float32", dims: [1, 5] } as const]]);
  const { backbone, heads } = splitModel(model, ["hidden"], known);
  expect(backbone.outputs).toEqual(["hidden", "size", "conv"]);
  expect(heads.map((head) => head.outputs)).toEqual([["scores", "embedded"]]);
  expect(() => splitModel(model, ["nothing"])).toThrow(/"nothing": no node of the graph writes it/);
  expect(() => splitModel(model, ["scores"])).toThrow(/no output lies behind it/);
  expect(() => splitModel(model, ["hidden"])).toThrow(/does not state type and shape of "hidden"/);
  expect(() => extractModel(model, { inputs: [], outputs: ["ghost"] })).toThrow(/no tensor "ghost"/);
});

test("the embedding is what the last weighted layer reads", async () => {
  const model = twoHeads();
  expect(embeddingCandidate(model)).toBe("embedded");
  expect(embeddingCandidate(model, "size")).toBe("flat");
  exposeTensor(model, "embedded");
  exposeTensor(model, "embedded");
  expect(graphOf(model).output.map((output) => output.name)).toEqual(["scores", "size", "embedded"]);
  expect((await run(model, { image: image(1) })).embedded!.dims).toEqual([1, 5]);
  expect(() => exposeTensor(model, "ghost")).toThrow(/"ghost": no node of the graph writes it/);
});

test("a fixed batch becomes open, and stored shapes follow", async () => {
  const model = twoHeads();
  expect(setBatch(model, "dynamic")).toEqual({ changed: ["image", "scores", "size"], reshaped: ["Reshape"] });
  const both = await run(model, { image: image(2) });
  const halves = await Promise.all([0, 32].map((from) => run(twoHeads(), { image: image(1, from) })));
  expect([...both.scores!.data]).toEqual(halves.flatMap((half) => [...(half.scores!.data as Float32Array)]));
  expect([...both.size!.data]).toEqual(halves.flatMap((half) => [...(half.size!.data as Float32Array)]));
  setBatch(model, 4);
  expect(checkModel(encodeModel(model)).inputs[0]!.dims).toEqual([4, 2, 4, 4]);
});

test("symbolic dimensions take sizes by name, or by place where they have none", () => {
  const graph = new GraphBuilder();
  graph.input("x", "float32", ["n", "time"]);
  graph.node("Relu", ["x"], {}, ["y"]);
  graph.output("y", "float32", ["n", "time"]);
  const model = graph.build({ opset: 17 });
  fixDims(model, { n: 2, "x:1": 8 });
  const facts = checkModel(encodeModel(model));
  expect([facts.inputs[0]!.dims, facts.outputs[0]!.dims]).toEqual([
    [2, 8],
    [2, "time"],
  ]);
  expect(() => fixDims(model, { "x:0": 3 })).toThrow(/the file says 2, not 3/);
  expect(() => fixDims(model, { m: 3 })).toThrow(/"m": no input has it, there are none that are open/);
  expect(() => fixDims(model, { n: 0 })).toThrow(/0, wanted an integer of 1 and more/);
});

test("stripping leaves what running needs", async () => {
  const model = twoHeads();
  const graph = graphOf(model);
  graph.node.push(makeNode("Identity", ["logits"], ["same"]), makeNode("Exp", ["same"], ["unread"]));
  graph.node.find((node) => node.opType === "Softmax")!.output[0] = "raw";
  graph.node.push(makeNode("Identity", ["raw"], ["scores"]));
  graph.initializer.push(float32Tensor("spare", [1000], new Float32Array(1000)));
  model.metadataProps = [create(StringStringEntryProtoSchema, { key: "author", value: "somebody" })];
  graph.docString = "how it was made";
  const before = await run(decodeModel(encodeModel(model)), { image: image(1) });
  const report = stripModel(model);
  expect(report.passThroughDropped).toHaveLength(3);
  expect(report).toMatchObject({
    deadNodesDropped: 1,
    initializersDropped: 1,
    metadataDropped: 1,
    docStringsDropped: 1,
  });
  expect(graph.node.map((node) => node.opType)).not.toContain("Dropout");
  checkModel(encodeModel(model));
  expect(await run(model, { image: image(1) })).toEqual(before);
});

test("stripping leaves a copy alone whose name a body has for a tensor of its own", () => {
  const graph = new GraphBuilder();
  graph.input("x", "float32", [1]);
  const flag = graph.initializer(boolTensor("flag", [], [true]));
  graph.node("Relu", ["x"], {}, ["a"]);
  graph.node("Identity", ["a"], {}, ["copy"]);
  const body = create(GraphProtoSchema, {
    name: "body",
    node: [makeNode("Neg", ["copy"], ["a"]), makeNode("Neg", ["a"], ["out"])],
    output: [valueInfo("out", "float32", [1])],
  });
  graph.node("If", [flag], { then_branch: { g: body }, else_branch: { g: body } }, ["y"]);
  graph.output("y", "float32", [1]);
  const model = graph.build({ opset: 17 });
  expect(stripModel(model).passThroughDropped).toEqual([]);
  expect(graphOf(model).node.map((node) => node.opType)).toEqual(["Relu", "Identity", "If"]);
});

test("a part keeps what its bodies read from outside", async () => {
  const graph = new GraphBuilder();
  graph.input("x", "float32", [1]);
  const flag = graph.initializer(boolTensor("flag", [], [true]));
  const outer = graph.initializer(float32Tensor("outer", [1], [3]));
  graph.node("Abs", ["x"], {}, ["far"]);
  graph.node("Neg", ["far"], {}, ["near"]);
  const body = create(GraphProtoSchema, {
    name: "body",
    node: [makeNode("Mul", ["far", outer], ["scaled"]), makeNode("Add", ["scaled", "near"], ["out"])],
    output: [valueInfo("out", "float32", [1])],
  });
  graph.node("If", [flag], { then_branch: { g: body }, else_branch: { g: body } }, ["y"]);
  graph.output("y", "float32", [1]);
  const model = graph.build({ opset: 17 });
  const known = new Map(["far", "near"].map((name) => [name, { name, type: "float32", dims: [1] } as const]));
  const { backbone, heads } = splitModel(model, ["near", "far"], known);
  expect(heads[0]!.inputs.toSorted()).toEqual(["far", "near"]);
  const x: Tensor = { type: "float32", dims: [1], data: Float32Array.of(-2) };
  const inner = await run(backbone.model, { x });
  expect(await run(heads[0]!.model, inner)).toEqual(await run(model, { x }));
});

test("multiply-accumulates, parameters and activations follow from shapes", () => {
  const shapes = new Map(
    Object.entries({
      image: [1, 2, 4, 4],
      conv: [1, 3, 4, 4],
      features: [1, 3, 4, 4],
      flat: [1, 48],
      hidden: [1, 5],
      kept: [1, 5],
      embedded: [1, 5],
      logits: [1, 3],
      scores: [1, 3],
      size: [1, 1],
    }).map(([name, dims]) => [name, { dims }]),
  );
  const cost = modelCost(twoHeads(), shapes);
  const conv = 3 * 16 * 2 * 9;
  const dense = 48 * 5 + 5 * 3 + 48;
  expect(cost.macs).toBe(conv + dense);
  expect(cost.flops).toBe(2 * (conv + dense) + 48 + 5 + 3);
  expect(cost.operators.find(({ operator }) => operator === "Conv")).toEqual({
    operator: "Conv",
    nodes: 1,
    macs: conv,
    parameters: 54,
    outputElements: 48,
  });
  // The Relu's input and output are alive together: 2 · 48 elements.
  expect(cost).toMatchObject({ activationBytesPeak: 4 * 96, activationBytesMax: 4 * 48, uncounted: 0 });
});

test("external data comes in through a reader, within its limit", async () => {
  const model = twoHeads();
  const tensor = graphOf(model).initializer.find(({ name }) => name === "third")!;
  const bytes = tensor.rawData;
  Object.assign(tensor, { dataLocation: 1, rawData: new Uint8Array(0) });
  tensor.externalData = Object.entries({ location: "weights.bin", offset: "64", length: "192" }).map(
    ([key, value]) => create(StringStringEntryProtoSchema, { key, value }),
  );
  expect(() => checkModel(encodeModel(model))).toThrow(
    /"third" has its data in another file; .* --inline-data/,
  );
  const read = (data: unknown) => {
    expect(data).toEqual({ location: "weights.bin", offset: 64, length: 192 });
    return Promise.resolve(bytes);
  };
  await expect(inlineExternalData(decodeModel(encodeModel(model)), read, 100)).rejects.toThrow(
    /more than 100 bytes/,
  );
  expect(await inlineExternalData(model, read, 1000)).toEqual({ tensors: 1, bytes: 192 });
  expect(encodeModel(model)).toEqual(encodeModel(twoHeads()));
});

test("every node gets a name of its own", () => {
  const model = twoHeads();
  for (const node of graphOf(model).node) node.name = "";
  expect(nameNodes(model)).toBe(9);
  const names = graphOf(model).node.map((node) => node.name);
  expect(names.slice(0, 2)).toEqual(["Conv:conv", "Relu:features"]);
  expect(new Set(names).size).toBe(9);
  expect(nameNodes(model)).toBe(0);
});

test("an old model with operators that left the standard is written in today's", async () => {
  const graph = new GraphBuilder();
  graph.input("image", "float32", [1, 2, 4, 4]);
  graph.node("ImageScaler", ["image"], { scale: { f: 0.5 }, bias: { floats: [0.25, -1] } }, ["scaled"]);
  graph.node("Crop", ["scaled"], { border: { ints: [1, 0, 0, 2] } }, ["cropped"]);
  graph.node("Affine", ["cropped"], { alpha: { f: 3 }, beta: { f: 1 } }, ["moved"]);
  graph.node("ReduceMean", ["moved"], { axes: { ints: [1] }, keepdims: { i: 0 } }, ["mean"]);
  graph.node("Split", ["mean"], { axis: { i: 1 } }, ["left", "right"]);
  graph.node("Sub", ["left", "right"], {}, ["y"]);
  graph.output("y", "float32");
  const bytes = encodeModel(graph.build({ opset: 7, irVersion: 3 }));
  const build = () => decodeModel(bytes);
  const before = await run(build(), { image: image(1) });
  for (const target of [13, 18, 21]) {
    const model = build();
    expect(upgradeOpset(model, target)).toBe(true);
    expect(opsetVersion(model)).toBe(target);
    expect(await run(model, { image: image(1) })).toEqual(before);
  }
  expect(() => upgradeOpset(build(), 9)).toThrow(/wanted 13 to 21/);
});

test("bodies are upgraded with the graph around them", async () => {
  const graph = new GraphBuilder();
  graph.input("image", "float32", [1, 2, 4, 4]);
  const flag = graph.initializer(boolTensor("flag", [], [true]));
  const body = (operator: string, name: string) =>
    create(GraphProtoSchema, {
      name,
      node: [makeNode(operator, ["image"], [name], { axes: { ints: [3] }, keepdims: { i: 0 } })],
      output: [valueInfo(name, "float32")],
    });
  graph.node(
    "If",
    [flag],
    { then_branch: { g: body("ReduceMax", "a") }, else_branch: { g: body("ReduceSum", "b") } },
    ["y"],
  );
  graph.output("y", "float32");
  const model = graph.build({ opset: 11, irVersion: 6 });
  const before = await run(model, { image: image(1) });
  const upgraded = decodeModel(encodeModel(model));
  upgradeOpset(upgraded, 21);
  expect(await run(upgraded, { image: image(1) })).toEqual(before);
});

test("folding does not write out what a few numbers make, and computes the same", async () => {
  const graph = new GraphBuilder();
  const side = 400;
  graph.input("x", "float32", [side, side]);
  const shape = graph.initializer(int64Tensor("shape", [2], [side, side]));
  const one = graph.initializer(float32Tensor("one", [1, 1], [-2]));
  const wide = graph.initializer(float32Tensor("wide", [side, 8], wave(side * 8)));
  // A causal mask, as exporters write it; a bias that is small stays folded, and so do weights that were only turned.
  const [square] = graph.node("Expand", [one, shape]);
  const [mask] = graph.node("Trilu", [square!], { upper: { i: 1 } });
  const [masked] = graph.node("Add", ["x", mask!]);
  const [turned] = graph.node("Transpose", [wide], { perm: { ints: [1, 0] } });
  const [negative] = graph.node("Neg", [turned!]);
  const [product] = graph.node("MatMul", [negative!, masked!]);
  const [bias] = graph.node("Exp", [one]);
  graph.node("Add", [product!, bias!], {}, ["y"]);
  graph.output("y", "float32", [8, side]);
  const bytes = encodeModel(graph.build({ opset: 17 }));
  const folded = decodeModel(await foldModel(ortNode, bytes, "basic"));
  expect(encodeModel(folded).length).toBeLessThan(bytes.length + 1024);
  expect(graphOf(folded).node.map(({ opType }) => opType)).toEqual([
    "Expand",
    "Trilu",
    "Add",
    "MatMul",
    "Add",
  ]);
  const feeds = { x: { type: "float32" as const, dims: [side, side], data: wave(side * side) } };
  expect((await run(folded, feeds)).y).toEqual((await run(decodeModel(bytes), feeds)).y);
});

function wave(count: number): Float32Array {
  return Float32Array.from({ length: count }, (_, at) => Math.sin(at * 0.7));
}
