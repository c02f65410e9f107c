import { describe, expect, test } from "vitest";
import { foldModel } from "../node/fold.js";
import { ortNode } from "../node/ort.js";
import { GraphBuilder } from "../onnx/builder.js";
import { checkModel } from "../onnx/check.js";
import { inspectModel } from "../onnx/inspect.js";
import { decodeModel, encodeModel, graphOf } from "../onnx/model.js";
import { float32Tensor, tensorToFloat32 } from "../onnx/tensor.js";
import { quantizeDynamic } from "./dynamic.js";
import { convertToFloat16 } from "./fp16.js";
import { packInt4, quantizeInt4, unpackInt4 } from "./int4.js";
import { countKernels } from "./kernels.js";
import {
  convNet,
  drawn,
  feedsFor,
  normals,
  outputsOf,
  productNet,
  recurrentNet,
  relativeError,
} from "./networks.test.kit.js";

const shared = { backend: ortNode, fold: foldModel } as const;
const dynamic = { ...shared, perChannel: true, reduceRange: false } as const;

async function errorsOf(
  float: Uint8Array,
  variant: Uint8Array,
  name: string,
  dims: number[],
): Promise<number[]> {
  expect(checkModel(variant).inputs).toEqual(checkModel(float).inputs);
  const [feeds] = feedsFor(name, dims, 1, 5);
  const reference = await outputsOf(float, feeds!);
  const found = await outputsOf(variant, feeds!);
  return Object.keys(reference).map((output) => relativeError(reference[output]!, found[output]!));
}

describe("dynamic int8", () => {
  test("products stay near the float ones and run on integer kernels", async () => {
    const float = productNet(3);
    for (const options of [dynamic, { ...dynamic, perChannel: false }, { ...dynamic, reduceRange: true }]) {
      const { bytes, converted } = await quantizeDynamic(float, options);
      expect(converted).toHaveLength(2);
      expect(Math.max(...(await errorsOf(float, bytes, "x", [4, 72])))).toBeLessThan(0.03);
      expect(await countKernels(ortNode, foldModel, bytes)).toMatchObject({ integer: 2, float: 0 });
    }
  });

  test("a product with nothing in it stays float beside others", async () => {
    const graph = new GraphBuilder();
    graph.input("x", "float32", [4, 72]);
    const none = graph.initializer(float32Tensor("none", [72, 0], []));
    const some = graph.initializer(float32Tensor("some", [72, 3], drawn([72, 3], normals(9))));
    const parts = [none, some].map((weight) => graph.node("MatMul", ["x", weight])[0]!);
    graph.node("Concat", parts, { axis: { i: 1 } }, ["y"]);
    graph.output("y", "float32", [4, 3]);
    const float = encodeModel(graph.build({ opset: 17 }));
    const { bytes, converted } = await quantizeDynamic(float, dynamic);
    expect(converted).toHaveLength(1);
    expect(Math.max(...(await errorsOf(float, bytes, "x", [4, 72])))).toBeLessThan(0.03);
  });

  test("an LSTM of both directions stays near the float one", async () => {
    const float = recurrentNet(4, "LSTM");
    for (const perChannel of [true, false]) {
      const { bytes } = await quantizeDynamic(float, { ...dynamic, perChannel });
      expect(Math.max(...(await errorsOf(float, bytes, "x", [6, 2, 12])))).toBeLessThan(0.04);
      expect(inspectModel(bytes).operators["com.microsoft:DynamicQuantizeLSTM"]).toBe(1);
      expect(bytes.length).toBeLessThan(float.length / 2);
    }
  });

  test("a GRU is left in float, with the reason", async () => {
    await expect(quantizeDynamic(recurrentNet(4, "GRU"), dynamic)).rejects.toThrow(
      /"GRU" has no 8-bit kernel/,
    );
  });

  test("named nodes stay float", async () => {
    const { converted, left } = await quantizeDynamic(productNet(3), { ...dynamic, keepFloat: ["y"] });
    expect(converted).toEqual(["MatMul"]);
    expect(left).toMatchObject([{ node: "Gemm", reason: "asked for" }]);
  });
});

describe("float16", () => {
  test("computes near the float model, whose inputs and outputs it keeps", async () => {
    const float = convNet(6);
    const { bytes, converted, left } = await convertToFloat16(float, { ...shared, mode: "compute" });
    expect(left).toEqual([]);
    expect(converted.length).toBe(9);
    expect(bytes.length).toBeLessThan(float.length * 0.6);
    expect(Math.max(...(await errorsOf(float, bytes, "image", [1, 3, 16, 16])))).toBeLessThan(2e-3);
    expect(inspectModel(bytes).operators.Cast).toBe(2);
  });

  test("operators that read the bits of a float32, or know no float16, stay float32", async () => {
    const graph = new GraphBuilder();
    graph.input("x", "float32", [2, 2]);
    const weight = graph.initializer(float32Tensor("weight", [2, 2], [1, 2, 3, 4]));
    const [product] = graph.node("MatMul", ["x", weight]);
    graph.node("Celu", [product!], {}, ["y"]);
    graph.output("y", "float32", [2, 2]);
    const float = encodeModel(graph.build({ opset: 17 }));
    const { bytes, left } = await convertToFloat16(float, { ...shared, mode: "compute" });
    expect(left.map(({ operator }) => operator)).toEqual(["Celu"]);
    expect(Math.max(...(await errorsOf(float, bytes, "x", [2, 2])))).toBeLessThan(0.01);
  });

  test("stored weights come back as the nearest float16", async () => {
    const float = convNet(6);
    const { bytes } = await convertToFloat16(float, { ...shared, mode: "storage" });
    expect(bytes.length).toBeLessThan(float.length * 0.6);
    expect(Math.max(...(await errorsOf(float, bytes, "image", [1, 3, 16, 16])))).toBeLessThan(2e-3);
    const before = graphOf(decodeModel(float)).initializer.find(({ dims }) => dims.length === 4)!;
    const after = graphOf(decodeModel(bytes)).initializer.find(({ name }) => name === `${before.name}/half`)!;
    const exact = tensorToFloat32(before);
    tensorToFloat32(after).forEach((value, at) => {
      expect(Math.abs(value - exact[at]!)).toBeLessThanOrEqual(Math.abs(exact[at]!) * 2 ** -11 + 2 ** -25);
    });
  });

  test("weights beyond 65504 are clipped with a warning, and operators that overflow stay float32", async () => {
    const graph = new GraphBuilder();
    const weight = graph.initializer(float32Tensor("w", [2, 2], [1e6, 1, -1e6, 2]));
    const product = graph.node("MatMul", [graph.input("x", "float32", [1, 2]), weight])[0]!;
    const axes = graph.initializer(float32Tensor("two", [], [2]));
    graph.node("Pow", [product, axes], {}, ["y"]);
    graph.output("y", "float32", [1, 2]);
    const { warnings, left } = await convertToFloat16(encodeModel(graph.build({ opset: 17 })), {
      ...shared,
      mode: "compute",
    });
    expect(warnings).toEqual(['weight "w": 2 values beyond 65504 were clipped to it']);
    expect(left).toMatchObject([{ operator: "Pow" }]);
  });

  test("a value that nodes of both kinds read, and that is an output, comes in both forms", async () => {
    const graph = new GraphBuilder();
    const normal = normals(2);
    const weight = (dims: number[]) => graph.initializer(float32Tensor("", dims, drawn(dims, normal, 0.3)));
    const [inner] = graph.node("MatMul", [graph.input("x", "float32", [3, 8]), weight([8, 8])], {}, [
      "inner",
    ]);
    const power = graph.node("Softplus", [inner!])[0]!;
    graph.node("Add", [power, graph.node("MatMul", [inner!, weight([8, 8])])[0]!], {}, ["y"]);
    graph.output("y", "float32", [3, 8]);
    graph.output("inner", "float32", [3, 8]);
    const float = encodeModel(graph.build({ opset: 17 }));
    const { bytes, left } = await convertToFloat16(float, { ...shared, mode: "compute" });
    expect(left.map(({ operator }) => operator)).toEqual(["Softplus"]);
    expect(Math.max(...(await errorsOf(float, bytes, "x", [3, 8])))).toBeLessThan(2e-3);
  });
});

describe("4-bit weights", () => {
  test("each weight is within half a step of its block, and packing is undone exactly", () => {
    const values = drawn([5, 72], normals(9));
    for (const symmetric of [true, false]) {
      const matrix = packInt4(values, 5, 72, 32, symmetric);
      const back = unpackInt4(matrix, 5, 72, 32);
      back.forEach((value, at) => {
        const scale = Math.abs(matrix.scales[Math.floor(at / 72) * 3 + Math.floor((at % 72) / 32)]!);
        // The end opposite to the extreme of a symmetric block lies one step outside.
        expect(Math.abs(value - values[at]!)).toBeLessThanOrEqual(scale * (symmetric ? 1.001 : 1.001));
      });
      expect(packInt4(back, 5, 72, 32, symmetric).packed).toEqual(matrix.packed);
    }
  });

  test("the backend's kernel computes with the very values that unpacking gives", async () => {
    const weights = drawn([24, 72], normals(11));
    for (const blockSize of [16, 32, 64, 128]) {
      for (const symmetric of [true, false]) {
        const graph = new GraphBuilder();
        const flipped = graph.initializer(float32Tensor("w", [24, 72], weights));
        graph.node("Gemm", [graph.input("x", "float32", [72, 72]), flipped], { transB: { i: 1 } }, ["y"]);
        graph.output("y", "float32", [72, 24]);
        const { bytes } = await quantizeInt4(encodeModel(graph.build({ opset: 17 })), {
          ...shared,
          blockSize,
          symmetric,
          accuracyLevel: 1,
        });
        const identity = Float32Array.from({ length: 72 * 72 }, (_, at) =>
          Number(Math.floor(at / 72) === at % 72),
        );
        const { y } = await outputsOf(bytes, { x: { type: "float32", dims: [72, 72], data: identity } });
        const expected = unpackInt4(packInt4(weights, 24, 72, blockSize, symmetric), 24, 72, blockSize);
        y!.forEach((value, at) => {
          const [inner, output] = [Math.floor(at / 24), at % 24];
          expect(value).toBeCloseTo(expected[output * 72 + inner]!, 5);
        });
      }
    }
  });

  test("a model of products stays near the float one, small weights stay float", async () => {
    const float = productNet(3);
    for (const symmetric of [true, false]) {
      const options = { ...shared, blockSize: 32, symmetric, accuracyLevel: 4 } as const;
      const { bytes, converted, left } = await quantizeInt4(float, { ...options, elementsMin: 2_000 });
      expect([converted, left.map(({ reason }) => reason)]).toEqual([["MatMul"], ["is small"]]);
      expect(Math.max(...(await errorsOf(float, bytes, "x", [4, 72])))).toBeLessThan(0.15);
    }
    await expect(
      quantizeInt4(float, { ...shared, blockSize: 24, symmetric: true, accuracyLevel: 0 }),
    ).rejects.toMatchObject({ code: "invalid_argument" });
  });
});
