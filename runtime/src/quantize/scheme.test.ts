import { describe, expect, test } from "vitest";
import { foldModel } from "../node/fold.js";
import { ortNode } from "../node/ort.js";
import { GraphBuilder } from "../onnx/builder.js";
import { TensorProto_DataType } from "../onnx/generated/onnx_pb.js";
import { decodeModel, encodeModel, graphOf } from "../onnx/model.js";
import { float32Tensor, tensorToFloat32, tensorToInt64Numbers } from "../onnx/tensor.js";
import { groupBySize, inferTypes } from "./groups.js";
import { countKernels } from "./kernels.js";
import { QUANTIZE_LIMITS } from "./limits.js";
import { convNet, drawn, feedsFor, normals, outputsOf, relativeError } from "./networks.test.kit.js";
import { quantizeStatic } from "./quantize.js";
import { needsReducedRange, schemeSettings, variantCpuFlags } from "./scheme.js";
import type { QuantizeOptions } from "./types.js";
import { quantizeWeight } from "./weights.js";

const VNNI = ["avx", "avx2", "avx512f", "avx512_vnni"];
const AVX2 = ["avx", "avx2", "ssse3"];
const ARM = ["fp", "asimd", "asimddp"];

function options(
  scheme: Parameters<typeof schemeSettings>[0],
  devices: string[][] = [VNNI],
): Omit<QuantizeOptions, "calibration"> {
  return {
    backend: ortNode,
    fold: foldModel,
    ...schemeSettings(scheme, devices),
    perChannel: true,
    method: { kind: "minmax" },
  };
}

const calibration = feedsFor("image", [1, 3, 16, 16], 12, 3);

test("weights get 7 bits where one device of the fleet saturates, and only for u8s8", () => {
  expect([VNNI, AVX2, ARM, []].map(needsReducedRange)).toEqual([false, true, false, false]);
  expect(schemeSettings("u8s8", [VNNI, ARM]).reduceRange).toBe(false);
  expect(schemeSettings("u8s8", [VNNI, AVX2]).reduceRange).toBe(true);
  expect(schemeSettings("u8u8", [AVX2]).reduceRange).toBe(false);
  expect(schemeSettings("s8s8", [AVX2])).toMatchObject({ activation: "int8", symmetricActivation: true });
  expect(variantCpuFlags("u8s8", false)).not.toContain("avx2");
  expect(variantCpuFlags("u8s8", true)).toContain("avx2");
});

test("uint8 weights are int8 weights moved by 128", () => {
  const data = drawn([6, 5], normals(4));
  const request = { name: "w", data, dims: [6, 5], axis: 0, reduceRange: false };
  const signed = quantizeWeight(request);
  const unsigned = quantizeWeight({ ...request, type: "uint8" });
  expect(unsigned.zeroPoint).toBe(128);
  expect([...unsigned.values]).toEqual([...signed.values].map((level) => level + 128));
  expect(unsigned.scales).toEqual(signed.scales);
});

test("a minimum range keeps the scale of near-zero channels up", () => {
  const data = Float32Array.of(1e-7, -1e-7, 0.5, 0.25);
  const request = { name: "w", data, dims: [2, 2], axis: 0, reduceRange: false };
  expect(quantizeWeight(request).scales[0]).toBeLessThan(1e-8);
  const floored = quantizeWeight({ ...request, minimumRealRange: 1e-3 });
  expect(floored.scales[0]).toBeCloseTo(5e-4 / 127, 10);
  expect(floored.scales[1]).toBeCloseTo(0.5 / 127, 10);
});

describe("each scheme", () => {
  test.each(["u8s8", "u8u8", "s8s8"] as const)(
    "%s stays near the float model on inputs it did not see",
    async (scheme) => {
      const float = convNet(31);
      const { bytes } = await quantizeStatic(float, { ...options(scheme), calibration });
      for (const feeds of feedsFor("image", [1, 3, 16, 16], 4, 99)) {
        const reference = await outputsOf(float, feeds);
        const found = await outputsOf(bytes, feeds);
        expect(relativeError(reference["logits"]!, found["logits"]!)).toBeLessThan(0.05);
      }
    },
  );

  test("u8s8 and u8u8 run on integer kernels throughout, with Relu absorbed", async () => {
    for (const scheme of ["u8s8", "u8u8"] as const) {
      const { report } = await quantizeStatic(convNet(31), { ...options(scheme), calibration });
      expect(report.kernels).toMatchObject({ float: 0, integer: 5 });
      expect(report.kernels.operators).not.toHaveProperty("Relu");
    }
  });

  test("asymmetric int8 absorbs Relu where the backend runs int8 as it is; symmetric does not, and has zero points of 0", async () => {
    const native = { "session.qdqisint8allowed": "1" };
    const base = { ...options("s8s8"), calibration };
    const asymmetric = await quantizeStatic(convNet(31), { ...base, symmetricActivation: false });
    expect(await countKernels(ortNode, foldModel, asymmetric.bytes, native)).toMatchObject({
      float: 0,
      integer: 5,
    });
    const symmetric = await quantizeStatic(convNet(31), base);
    const zeroPoints = graphOf(decodeModel(symmetric.bytes))
      .initializer.filter(({ dataType, dims }) => dataType === TensorProto_DataType.INT8 && dims.length < 2)
      .flatMap((tensor) => tensorToInt64Numbers(tensor));
    expect(new Set(zeroPoints)).toEqual(new Set([0]));
    expect(symmetric.report.kernels.float).toBeGreaterThan(0);
    expect(symmetric.report.kernels.floatNodes!.length).toBe(symmetric.report.kernels.float);
  });

  test("7-bit weights stay within 64 levels", async () => {
    const { bytes } = await quantizeStatic(convNet(31), { ...options("u8s8", [AVX2]), calibration });
    const weights = graphOf(decodeModel(bytes)).initializer.filter(
      ({ dataType, dims }) => dataType === TensorProto_DataType.INT8 && dims.length > 1,
    );
    expect(weights).toHaveLength(4);
    for (const weight of weights) {
      const levels = tensorToInt64Numbers(weight).map(Math.abs);
      expect(Math.max(...levels)).toBe(64);
    }
  });
});

test("a node left in float keeps its exact weights, whatever the backend would make of them", async () => {
  // One channel of large weights: with a single scale for all, the others would be lost.
  const model = decodeModel(convNet(31));
  const graph = graphOf(model);
  const conv = graph.node.filter(({ opType }) => opType === "Conv")[1]!;
  const at = graph.initializer.findIndex(({ name }) => name === conv.input[1]);
  const values = tensorToFloat32(graph.initializer[at]!);
  for (let index = 0; index < 16 * 9; index++) values[index]! *= 1000;
  graph.initializer[at] = float32Tensor(graph.initializer[at]!.name, [16, 16, 3, 3], values);
  const float = encodeModel(model);
  const { bytes, report } = await quantizeStatic(float, {
    ...options("u8s8"),
    calibration,
    keepFloat: ["Conv_1"],
  });
  expect(report.kernels).toMatchObject({ float: 1, integer: 4 });
  expect(report.kernels.floatNodes![0]).toMatch(/Conv_1/);
  const exact = graphOf(decodeModel(bytes)).initializer.find(
    ({ dims }) => dims.length === 4 && dims[1] === 16n,
  )!;
  expect(exact.dataType).toBe(TensorProto_DataType.FLOAT);
});

describe("memory", () => {
  test("activations are observed in groups below the limit, with the same ranges as all at once", async () => {
    // Seven activations of 17 MB: more than the limit together.
    const normal = normals(2);
    const graph = new GraphBuilder();
    let at = graph.input("image", "float32", [1, 1, 512, 512]);
    for (let layer = 0; layer < 7; layer++) {
      const weight = graph.initializer(
        float32Tensor("", [16, layer === 0 ? 1 : 16, 1, 1], drawn([16, layer === 0 ? 1 : 16], normal, 0.3)),
      );
      at = graph.node("Conv", [at, weight])[0]!;
    }
    graph.output(at, "float32", [1, 16, 512, 512]);
    const bytes = encodeModel(graph.build({ opset: 17 }));
    const types = await inferTypes(ortNode, bytes);
    const names = [...types.keys()].filter((name) => name !== "image");
    const sizeOf = () => 16 * 512 * 512 * 4;
    const groups = groupBySize(names, sizeOf);
    expect(groups.length).toBeGreaterThan(1);
    for (const group of groups) {
      expect(group.length * sizeOf()).toBeLessThanOrEqual(QUANTIZE_LIMITS.activationBytesMax);
    }
    const images = feedsFor("image", [1, 1, 512, 512], 1, 2);
    const { report } = await quantizeStatic(bytes, { ...options("u8s8"), calibration: images });
    const outputs = await Promise.all(images.map((feeds) => outputsOf(bytes, feeds)));
    const values = outputs.map((found) => Object.values(found)[0]!);
    const low = Math.min(0, ...values.map((part) => part.reduce((a, b) => Math.min(a, b), 0)));
    const high = Math.max(...values.map((part) => part.reduce((a, b) => Math.max(a, b), 0)));
    const last = report.scales.activations[at]!;
    expect(last.scale).toBeCloseTo((high - low) / 255, 5);
  });

  test("a tensor larger than the limit has a group to itself", () => {
    expect(groupBySize(["a", "b", "c"], (name) => (name === "b" ? 500 : 10), 100)).toEqual([
      ["a"],
      ["b"],
      ["c"],
    ]);
    expect(groupBySize(["a", "b", "c"], () => 50, 100)).toEqual([["a", "b"], ["c"]]);
  });
});
