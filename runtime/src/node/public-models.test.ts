import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Tensor } from "../backend.js";
import { checkModel } from "../onnx/check.js";
import { modelCost } from "../onnx/cost.js";
import { setBatch } from "../onnx/dims.js";
import { embeddingCandidate, splitModel } from "../onnx/extract.js";
import { decodeModel, encodeModel, graphOf } from "../onnx/model.js";
import { stripModel } from "../onnx/strip.js";
import { tidyModel } from "../onnx/tidy.js";
import { upgradeOpset } from "../onnx/upgrade.js";
import { feedsFor, inferTensors, profileIn } from "./infer.js";
import { withTrial, type TrialProcess } from "./trial.js";

/** Folder with public models; it is not part of the project. */
const dataFolder = process.env.FIELDLOOP_TEST_DATA ?? "";
const models = join(dataFolder, "models");
const hasModels = dataFolder !== "" && existsSync(models);
const reason = hasModels ? "" : " (skipped: FIELDLOOP_TEST_DATA names no folder with models)";

const files = hasModels
  ? readdirSync(models, { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".onnx"))
      // Seconds a run, and the same operators at any size: the upgrade of what is special in it is tested by itself.
      .filter((name) => !name.includes("style-transfer"))
  : [];

const wave = (at: number) => Math.sin(at * 0.61);

function feedsOf(name: string, bytes: Uint8Array): Record<string, Tensor> {
  const { inputs } = checkModel(bytes);
  const feeds = feedsFor(inputs, {}, wave);
  if (!name.includes("silero")) return feeds;
  const audio = {
    type: "float32",
    dims: [1, 576],
    data: Float32Array.from({ length: 576 }, (_, at) => wave(at)),
  } as const;
  const rate = { type: "int64", dims: [], data: BigInt64Array.of(16_000n) } as const;
  const state = { type: "float32", dims: [2, 1, 128], data: new Float32Array(256) } as const;
  const known: Record<string, Tensor> = { input: audio, state, sr: rate };
  return Object.fromEntries(inputs.map((info) => [info.name, known[info.name] ?? feeds[info.name]!]));
}

type Outputs = Readonly<Record<string, Tensor>>;

function worstDifference(actual: Outputs, expected: Outputs): number {
  let worst = 0;
  for (const [name, tensor] of Object.entries(expected)) {
    expect(actual[name]?.dims, name).toEqual(tensor.dims);
    for (let at = 0; at < tensor.data.length; at++) {
      worst = Math.max(worst, Math.abs(Number(actual[name]!.data[at]) - Number(tensor.data[at])));
    }
  }
  return worst;
}

async function runPlain(
  trial: TrialProcess,
  bytes: Uint8Array,
  feeds: Record<string, Tensor>,
): Promise<Outputs> {
  return (await trial.run(bytes, { feeds, graphOptimization: "disabled" })).results;
}

describe.skipIf(!hasModels)(`graph tools on public models${reason}`, () => {
  it.each(files)("%s: strip, upgrade, split at the embedding, cost", { timeout: 120_000 }, async (name) => {
    const bytes = new Uint8Array(readFileSync(join(models, name)));
    const feeds = feedsOf(name, bytes);
    const whole = decodeModel(bytes);
    tidyModel(whole);
    const tidied = encodeModel(whole);
    const embedding = embeddingCandidate(whole);
    const known = embedding === undefined ? undefined : await inferTensors(tidied, { feeds });
    await withTrial({}, async (trial) => {
      const expected = await runPlain(trial, bytes, feeds);
      const stripped = decodeModel(bytes);
      stripModel(stripped);
      expect(worstDifference(await runPlain(trial, encodeModel(stripped), feeds), expected)).toBe(0);
      for (const target of [13, 17, 21]) {
        const upgraded = decodeModel(bytes);
        tidyModel(upgraded);
        upgradeOpset(upgraded, target);
        expect(worstDifference(await runPlain(trial, encodeModel(upgraded), feeds), expected)).toBeLessThan(
          2e-5,
        );
      }
      const { tensors } = await profileIn(trial, tidied, feeds);
      const cost = modelCost(whole, tensors);
      expect(cost.uncounted === 0 || name.includes("silero")).toBe(true);
      console.log(
        `${name}: ${(cost.macs / 1e6).toFixed(2)} M multiply-accumulates, embedding ${embedding ?? "none"}`,
      );
      if (embedding === undefined) return;
      const { backbone, heads } = splitModel(whole, [embedding], known);
      const passed: Record<string, Tensor> = { ...feeds };
      for (const part of [backbone, ...heads]) {
        const own = Object.fromEntries(part.inputs.map((input) => [input, passed[input]!]));
        Object.assign(passed, await runPlain(trial, encodeModel(part.model), own));
      }
      expect(worstDifference(passed, expected)).toBe(0);
    });
  });

  it.each(files.filter((name) => /ultraface.*320|mnist|cifar|kws_fp32/.test(name)))(
    "%s: an open batch gives what single runs give",
    { timeout: 120_000 },
    async (name) => {
      const bytes = new Uint8Array(readFileSync(join(models, name)));
      const model = decodeModel(bytes);
      tidyModel(model);
      setBatch(model, "dynamic");
      const [info] = checkModel(bytes).inputs;
      const single = feedsOf(name, bytes)[info!.name]!;
      const data = single.data as Float32Array;
      const double = Float32Array.from([...data, ...data.map((value) => value * 0.5)]);
      await withTrial({}, async (trial) => {
        const both = await trial.run(encodeModel(model), {
          feeds: { [info!.name]: { ...single, dims: [2, ...single.dims.slice(1)], data: double } },
        });
        const first = (await trial.run(bytes, { feeds: { [info!.name]: single } })).results;
        for (const { name: output } of graphOf(model).output) {
          const wanted = first[output]!;
          const got = both.results[output]!;
          expect(got.dims, output).toEqual([2 * wanted.dims[0]!, ...wanted.dims.slice(1)]);
          const half = {
            [output]: { ...got, dims: wanted.dims, data: got.data.slice(0, wanted.data.length) } as Tensor,
          };
          expect(worstDifference(half, { [output]: wanted })).toBeLessThan(1e-4);
        }
      });
    },
  );
});
