import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { ortNode } from "../node/ort.js";
import { decodeModel, graphOf } from "../onnx/model.js";
import { Random } from "../simulate/random.js";
import { fit } from "./fit.js";
import { accuracyOf, runRows } from "./infer.js";
import {
  DATA_FOLDER,
  hasMnist,
  MNIST_MODEL,
  readDigits,
  scaleDigits,
  shiftDigits,
  sliceDigits,
  type Digits,
} from "./mnist.test.kit.js";
import { checkWholeNet } from "./whole-net.test.kit.js";

const reason = hasMnist
  ? ""
  : ` (skipped: FIELDLOOP_TEST_DATA="${DATA_FOLDER}" has no models/mnist-8 and sets/mnist5k)`;

describe.skipIf(!hasMnist)(`fine-tune an imported opset-7 file with baked batch 1${reason}`, () => {
  it("has the gradient of its loss, against float64, in every tensor", async () => {
    const random = new Random(1);
    const errors = await checkWholeNet({
      model: new Uint8Array(readFileSync(MNIST_MODEL)),
      loss: "cross_entropy",
      logitScale: 0.003,
      batch: 2,
      draw: () => 255 * random.uniform(),
      random,
      jitter: 0,
    });
    console.log(`mnist-8 against float64: ${JSON.stringify(errors.tensors)}`);
    expect(Object.keys(errors.tensors)).toHaveLength(6);
    expect(Math.max(...Object.values(errors.tensors))).toBeLessThan(1e-5);
  });

  it("learns a hard shift from 200 labels and keeps what it knew", async () => {
    const model = new Uint8Array(readFileSync(MNIST_MODEL));
    const backend = ortNode;
    // This file expects pixels 0..255 and has logits in the hundreds.
    const digits = scaleDigits(readDigits(), 255);
    const shifted = scaleDigits(shiftDigits(readDigits(), 1), 255);
    const accuracy = async (bytes: Uint8Array, rows: Digits) =>
      accuracyOf((await runRows({ model: bytes, backend, inputs: rows.inputs })).outputs, rows.labels);
    const [cleanTest, shiftedTest] = [sliceDigits(digits, 4000, 5000), sliceDigits(shifted, 4000, 5000)];
    const started = performance.now();
    const result = await fit({
      model,
      backend,
      data: sliceDigits(shifted, 0, 200),
      replay: sliceDigits(digits, 1000, 2000),
      settings: { steps: 150, batch: 64, rate: 0.03, relativeRate: true, seed: 1 },
    });
    const seconds = (performance.now() - started) / 1000;
    const figures = {
      before: await accuracy(model, shiftedTest),
      after: await accuracy(result.model, shiftedTest),
      clean: await accuracy(result.model, cleanTest),
    };
    console.log(
      `mnist-8, 200 labels: ${JSON.stringify(figures)}, logit scale ${result.logitScale}, ${seconds.toFixed(1)} s`,
    );
    expect(figures.after).toBeGreaterThan(0.77);
    expect(figures.clean).toBeGreaterThan(0.95);

    expect(result.trainedTensors).toHaveLength(6);
    const [before, after] = [decodeModel(model), decodeModel(result.model)];
    expect(after.opsetImport).toEqual(before.opsetImport);
    const untouched = (file: typeof before) =>
      graphOf(file).initializer.filter((tensor) => !result.trainedTensors.includes(tensor.name));
    expect(untouched(after)).toEqual(untouched(before));
    expect(graphOf(after).node).toEqual(graphOf(before).node);
  });
});
