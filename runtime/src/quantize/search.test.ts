import { expect, test } from "vitest";
import { foldModel } from "../node/fold.js";
import { ortNode } from "../node/ort.js";
import { decodeModel, encodeModel, graphOf } from "../onnx/model.js";
import { float32Tensor, tensorDims, tensorToFloat32 } from "../onnx/tensor.js";
import { openStaticQuantizer } from "./quantize.js";
import { convNet, feedsFor, outputsOf, relativeError } from "./networks.test.kit.js";
import { searchFloatNodes } from "./search.js";

const settings = {
  backend: ortNode,
  fold: foldModel,
  activation: "uint8",
  weight: "int8",
  perChannel: false,
  reduceRange: false,
  method: { kind: "minmax" },
} as const;

/** One layer has a channel that is a thousand times the others: with one scale for all, 8 bits lose the others. */
function brittleNet(): Uint8Array {
  const model = decodeModel(convNet(21));
  const graph = graphOf(model);
  const second = graph.node.filter(({ opType }) => opType === "Conv")[1]!;
  const at = graph.initializer.findIndex(({ name }) => name === second.input[1]);
  const tensor = graph.initializer[at]!;
  const values = tensorToFloat32(tensor);
  const size = values.length / tensorDims(tensor)[0]!;
  for (let index = 0; index < size; index++) values[index]! *= index === 0 ? 1500 : 0;
  graph.initializer[at] = float32Tensor(tensor.name, tensorDims(tensor), values);
  return encodeModel(model);
}

async function openSearch() {
  const float = brittleNet();
  const quantizer = await openStaticQuantizer(float, {
    ...settings,
    calibration: feedsFor("image", [1, 3, 16, 16], 12, 3),
  });
  const held = feedsFor("image", [1, 3, 16, 16], 6, 77);
  let evaluated = 0;
  const evaluate = async (bytes: Uint8Array): Promise<number> => {
    evaluated++;
    let worst = 0;
    for (const feeds of held) {
      const [reference, test] = [await outputsOf(float, feeds), await outputsOf(bytes, feeds)];
      worst = Math.max(worst, relativeError(reference["logits"]!, test["logits"]!));
    }
    return 1 - worst;
  };
  return { quantizer, evaluate, evaluated: () => evaluated };
}

test("finds the layer that costs accuracy and leaves it alone in float", async () => {
  const { quantizer, evaluate, evaluated } = await openSearch();
  const all = await evaluate(quantizer.rewrite([]));
  const without = await evaluate(quantizer.rewrite(["Conv_1"]));
  expect(without - all).toBeGreaterThan(0.02);
  const before = evaluated();
  const found = await searchFloatNodes(quantizer, {
    backend: ortNode,
    evaluate,
    accuracyMin: (all + without) / 2,
    evaluationsMax: 12,
  });
  expect(found.found).toBe(true);
  expect(found.keepFloat).toEqual(["Conv_1"]);
  expect(found.accuracy).toBeGreaterThanOrEqual((all + without) / 2);
  expect(found.sensitivities[0]!.node).toBe("Conv_1");
  expect(found.evaluations).toBe(evaluated() - before);
  expect(found.evaluations).toBeLessThanOrEqual(12);
  const { report } = await quantizer.quantize(found.keepFloat);
  expect(report.kernels).toMatchObject({ float: 1, integer: 4 });
});

test("stops at its number of evaluations and says that the bound was not reached", async () => {
  const { quantizer, evaluate, evaluated } = await openSearch();
  const progress: number[] = [];
  const found = await searchFloatNodes(quantizer, {
    backend: ortNode,
    evaluate,
    accuracyMin: 2,
    evaluationsMax: 3,
    onProgress: ({ done }) => progress.push(done),
  });
  expect(found.found).toBe(false);
  expect(found.evaluations).toBe(3);
  expect(evaluated()).toBe(3);
  expect(progress.length).toBeGreaterThan(3);
});

test("nothing is left in float where nothing needs to be", async () => {
  const { quantizer, evaluate, evaluated } = await openSearch();
  const found = await searchFloatNodes(quantizer, { backend: ortNode, evaluate, accuracyMin: -1 });
  expect(found).toMatchObject({ found: true, keepFloat: [], evaluations: 1 });
  expect(evaluated()).toBe(1);
});
