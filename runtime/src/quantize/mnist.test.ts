import { existsSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { foldModel } from "../node/fold.js";
import { ortNode } from "../node/ort.js";
import { quantizeStatic } from "./quantize.js";
import type { Feeds } from "./types.js";

/** Folder with public models and data sets; it is not part of the project. */
const DATA = process.env.FIELDLOOP_TEST_DATA ?? "";
const MODEL = `${DATA}/models/mnist-8/mnist.onnx`;
const SET = `${DATA}/sets/mnist5k`;
const present = DATA !== "" && existsSync(MODEL) && existsSync(SET);
const title = present
  ? ""
  : " (skipped: FIELDLOOP_TEST_DATA names no folder with models/mnist-8 and sets/mnist5k)";

test.skipIf(!present)(`int8 digits stay within a point of fp32${title}`, async () => {
  const images = gunzipSync(readFileSync(`${SET}/images-idx3-ubyte.gz`)).subarray(16);
  const labels = gunzipSync(readFileSync(`${SET}/labels-idx1-ubyte.gz`)).subarray(8);
  const feeds = (index: number): Feeds => ({
    Input3: {
      type: "float32",
      dims: [1, 1, 28, 28],
      data: Float32Array.from(images.subarray(index * 784, (index + 1) * 784)),
    },
  });
  const accuracy = async (bytes: Uint8Array) => {
    const session = await ortNode.openSession(bytes, { threadCount: 1, executionProvider: "cpu" });
    let right = 0;
    for (let index = 0; index < labels.length; index++) {
      const scores = [...((await session.run(feeds(index))).Plus214_Output_0!.data as Float32Array)];
      if (scores.indexOf(Math.max(...scores)) === labels[index]) right++;
    }
    await session.release();
    return (100 * right) / labels.length;
  };
  const bytes = new Uint8Array(readFileSync(MODEL));
  const { bytes: quantized, report } = await quantizeStatic(bytes, {
    backend: ortNode,
    fold: foldModel,
    calibration: Array.from({ length: 200 }, (_, index) => feeds(index)),
    activation: "uint8",
    weight: "int8",
    perChannel: true,
    reduceRange: false,
    method: { kind: "minmax" },
  });
  expect(await accuracy(bytes)).toBeCloseTo(98.3, 1);
  expect(await accuracy(quantized)).toBeGreaterThan(97.3);
  expect(report.kernels).toMatchObject({ integer: 3, float: 0 });
  expect(quantized.length).toBeLessThan(bytes.length / 2);
});
