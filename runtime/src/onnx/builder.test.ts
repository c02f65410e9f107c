import { expect, test } from "vitest";
import { ortNode } from "../node/ort.js";
import { GraphBuilder } from "./builder.js";
import { attribute, initializerMap, pruneDead, renameTensor } from "./graph.js";
import { decodeModel, encodeModel, graphOf, opsetVersion } from "./model.js";
import { float32Tensor, int64Tensor, tensorToFloat32, tensorToInt64Numbers } from "./tensor.js";

function tinyNetwork() {
  const graph = new GraphBuilder();
  const image = graph.input("image", "float32", ["n", 1, 3, 3]);
  const kernel = graph.initializer(float32Tensor("kernel", [2, 1, 2, 2], [1, 0, 0, 1, 0, -1, -1, 0]));
  const bias = graph.initializer(float32Tensor("bias", [2], [0.5, 0.25]));
  const [conv] = graph.node("Conv", [image, kernel, bias], { kernel_shape: { ints: [2, 2] } });
  const [relu] = graph.node("Relu", [conv!]);
  const [flat] = graph.node("Flatten", [relu!], { axis: { i: 1 } });
  const weight = graph.initializer(float32Tensor("weight", [1, 8], [1, 1, 1, 1, 2, 2, 2, 2]));
  graph.node("Gemm", [flat!, weight], { alpha: { f: 2 }, transB: { i: 1 } }, ["score"]);
  graph.output("score", "float32", ["n", 1]);
  return graph.build({ opset: 17 });
}

test("a built Conv, Relu, Gemm graph survives encoding and runs in ONNX Runtime", async () => {
  const bytes = encodeModel(tinyNetwork());
  const model = decodeModel(bytes);
  expect(encodeModel(model)).toEqual(bytes);
  expect(opsetVersion(model)).toBe(17);
  const gemm = graphOf(model).node.find((node) => node.opType === "Gemm")!;
  expect(attribute(gemm, "alpha")!.f).toBe(2);

  const session = await ortNode.openSession(bytes, { threadCount: 1, executionProvider: "cpu" });
  try {
    expect(session.inputs[0]).toMatchObject({ name: "image", type: "float32" });
    const data = Float32Array.from([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    const { score } = await session.run({ image: { type: "float32", dims: [1, 1, 3, 3], data } });
    // Channel 0 sums the diagonal of each 2x2 window plus 0.5; channel 1 is negative everywhere, so Relu gives 0.
    const windows = [1 + 5, 2 + 6, 4 + 8, 5 + 9].map((sum) => sum + 0.5);
    expect(score!.data[0]).toBeCloseTo(2 * windows.reduce((a, b) => a + b), 5);
  } finally {
    await session.release();
  }
});

test("tensor data is read from unaligned raw bytes and from typed fields", () => {
  const graph = graphOf(decodeModel(encodeModel(tinyNetwork())));
  const initializers = initializerMap(graph);
  expect([...tensorToFloat32(initializers.get("bias")!)]).toEqual([0.5, 0.25]);
  const bias = initializers.get("bias")!;
  bias.floatData = [3, 4];
  delete (bias as { rawData?: Uint8Array }).rawData;
  expect([...tensorToFloat32(bias)]).toEqual([3, 4]);
  bias.dims = [3n];
  expect(() => tensorToFloat32(bias)).toThrow(/2 values for dimensions \[3\]/);
  const ends = int64Tensor("ends", [2], [5, Number.MAX_SAFE_INTEGER]);
  new BigInt64Array(ends.rawData.buffer as ArrayBuffer)[1] = 2n ** 63n - 1n;
  expect(tensorToInt64Numbers(ends)).toEqual([5, Number.MAX_SAFE_INTEGER]);
});

test("dead nodes and their initializers go, renamed tensors stay connected", () => {
  const graph = graphOf(tinyNetwork());
  graph.output[0]!.name = "Relu_out";
  pruneDead(graph);
  expect(graph.node.map((node) => node.opType)).toEqual(["Conv", "Relu"]);
  expect(graph.initializer.map((tensor) => tensor.name)).toEqual(["kernel", "bias"]);
  renameTensor(graph, "Relu_out", "features");
  expect(graph.output[0]!.name).toBe("features");
  expect(graph.node[1]!.output).toEqual(["features"]);
});

test("a name is given once", () => {
  const graph = new GraphBuilder();
  graph.input("x", "float32", [1]);
  expect(() => graph.initializer(float32Tensor("x", [1], [0]))).toThrow(/"x" is taken/);
  expect(graph.unique("x")).not.toBe("x");
});
