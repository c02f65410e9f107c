import { createHash } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { ortNode } from "../node/ort.js";
import { fit, type FitOptions, type FitResult } from "./fit.js";
import { accuracyOf, runRows } from "./infer.js";
import { initializeWeights } from "./initialize.js";
import type { TrainingSettingsInput } from "./settings.js";
import { toyAutoencoder, toyClassifier, toyImages, toyWindows, type ToyRows } from "./toy.test.kit.js";

const backend = ortNode;
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const train = toyImages(768, 1);
const test = toyImages(512, 2);
const settings: TrainingSettingsInput = { epochs: 6, batch: 32, rate: 5e-3, seed: 7 };

async function accuracyOn(rows: ToyRows, model: Uint8Array): Promise<number> {
  const { outputs } = await runRows({ model, backend, inputs: rows.inputs });
  return accuracyOf(outputs, rows.labels);
}

const accuracy = (model: Uint8Array) => accuracyOn(test, model);

describe("fit, classifier from scratch", () => {
  const model = initializeWeights(toyClassifier(), 3);
  let straight: FitResult;

  beforeAll(async () => {
    const started = performance.now();
    straight = await fit({ model, backend, data: train, settings });
    console.log(
      `toy classifier: ${straight.losses.length} steps in ${Math.round(performance.now() - started)} ms`,
    );
  });

  it("learns stripe directions to 95 % on unseen images", async () => {
    const before = await accuracy(model);
    const after = await accuracy(straight.model);
    console.log(`toy classifier: accuracy ${before} -> ${after}`);
    expect(after).toBeGreaterThan(0.95);
    expect(straight.losses.at(-1)!).toBeLessThan(straight.losses[0]! / 4);
  });

  it("gives the same bytes for the same seed and others for another", async () => {
    const again = await fit({ model, backend, data: train, settings });
    expect(sha256(again.model)).toBe(sha256(straight.model));
    const other = await fit({ model, backend, data: train, settings: { ...settings, epochs: 1, seed: 8 } });
    const one = await fit({ model, backend, data: train, settings: { ...settings, epochs: 1 } });
    expect(sha256(other.model)).not.toBe(sha256(one.model));
  });

  it("resumed from a checkpoint after a cancel equals the straight run", async () => {
    const abort = new AbortController();
    let checkpoint: Uint8Array | undefined;
    const options: FitOptions = { model, backend, data: train, settings };
    const cancelled = fit({
      ...options,
      signal: abort.signal,
      onProgress: ({ step }) => step === 50 && abort.abort(),
      onCheckpoint: (bytes) => void (checkpoint = bytes),
    });
    await expect(cancelled).rejects.toMatchObject({ code: "cancelled" });
    const resumed = await fit({ ...options, resume: checkpoint! });
    expect(sha256(resumed.model)).toBe(sha256(straight.model));
    expect(resumed.losses).toEqual(straight.losses);
  });

  it("refuses a checkpoint of other settings, and a damaged one", async () => {
    let checkpoint: Uint8Array | undefined;
    const short = { ...settings, steps: 4, checkpointEverySteps: 2 };
    const options: FitOptions = { model, backend, data: train, settings: short };
    await fit({ ...options, onCheckpoint: (bytes) => void (checkpoint = bytes) });
    const other = fit({ ...options, settings: { ...short, rate: 1e-4 }, resume: checkpoint! });
    await expect(other).rejects.toMatchObject({ code: "conflict" });
    const torn = checkpoint!.slice();
    torn[torn.length - 5]! ^= 1;
    await expect(fit({ ...options, resume: torn })).rejects.toMatchObject({ code: "invalid_argument" });
  });

  it("trains the head alone and leaves the other tensors as they were", async () => {
    const result = await fit({
      model,
      backend,
      data: train,
      settings: { ...settings, epochs: 1, trainable: "head" },
    });
    expect(result.trainedTensors).toEqual(["head.weight", "head.bias"]);
    expect(result.parameterCount).toBe(4 * 16 + 4);
    const last = await fit({
      model,
      backend,
      data: train,
      settings: { ...settings, steps: 1, trainable: "last" },
    });
    expect(last.trainedTensors).toEqual(["conv2.weight", "conv2.bias", "head.weight", "head.bias"]);
  });

  it("runs a frozen part once over the rows, with the same outcome as in every step", async () => {
    const tune: TrainingSettingsInput = { ...settings, epochs: 2, trainable: "head" };
    const once = await fit({ model, backend, data: train, settings: tune });
    const every = await fit({ model, backend, data: train, settings: tune, augment: () => {} });
    expect([once.featuresPrecomputed, every.featuresPrecomputed]).toEqual([true, false]);
    every.losses.forEach((loss, step) => expect(once.losses[step]).toBeCloseTo(loss, 4));
  });

  it("resumes running averages, validations and momentum too", async () => {
    const rich: TrainingSettingsInput = {
      ...settings,
      epochs: 2,
      optimizer: "sgd",
      rate: 0.02,
      clipNorm: 1,
      emaDecay: 0.9,
      weightDecay: 0.01,
      labelSmoothing: 0.1,
      warmupSteps: 5,
      validateEverySteps: 10,
      checkpointEverySteps: 17,
    };
    const checkpoints: Uint8Array[] = [];
    const options: FitOptions = {
      model,
      backend,
      data: train,
      replay: toyImages(100, 3),
      settings: rich,
      augment: (row, random) => row.forEach((value, k) => (row[k] = value + 0.01 * random.normal())),
      validate: accuracy,
    };
    const whole = await fit({ ...options, onCheckpoint: (bytes) => void checkpoints.push(bytes) });
    const resumed = await fit({ ...options, resume: checkpoints[2]! });
    expect(sha256(resumed.model)).toBe(sha256(whole.model));
    expect(resumed.validations).toEqual(whole.validations);
    expect(resumed.bestStep).toBe(whole.bestStep);
  });

  it("picks the best validated parameters and stops early", async () => {
    const scores = [0.2, 0.9, 0.1, 0.1, 0.1, 0.1];
    const result = await fit({
      model,
      backend,
      data: train,
      settings: { ...settings, patience: 2 },
      validate: () => Promise.resolve(scores.shift()!),
    });
    expect(result.bestStep).toBe(2 * 24);
    expect(result.bestScore).toBe(0.9);
    expect(result.validations).toHaveLength(4);
  });

  it("keeps what it knew by replay while it learns a shift", async () => {
    const inverted = toyImages(64, 5);
    inverted.inputs.forEach((value, index) => (inverted.inputs[index] = 3 - 2 * value));
    const shifted = toyImages(512, 6);
    shifted.inputs.forEach((value, index) => (shifted.inputs[index] = 3 - 2 * value));
    const tune: TrainingSettingsInput = { steps: 80, batch: 32, rate: 3e-3, seed: 1 };
    const { model: tuned } = await fit({
      model: straight.model,
      backend,
      data: inverted,
      replay: train,
      settings: tune,
    });
    const [before, after, clean] = await Promise.all([
      accuracyOn(shifted, straight.model),
      accuracyOn(shifted, tuned),
      accuracy(tuned),
    ]);
    console.log(`toy shift, 64 labels: ${before} -> ${after}, clean ${clean}`);
    expect(after).toBeGreaterThan(before + 0.1);
    expect(clean).toBeGreaterThan(0.93);
  });

  it("stops with training_diverged when the loss is not finite", async () => {
    const diverging = fit({
      model,
      backend,
      data: train,
      settings: { ...settings, optimizer: "sgd", rate: 1e6, schedule: "constant" },
    });
    await expect(diverging).rejects.toMatchObject({ code: "training_diverged" });
  });
});

describe("fit, autoencoder", () => {
  it("reconstructs two sines through four numbers", async () => {
    const model = initializeWeights(toyAutoencoder(), 4);
    const inputs = toyWindows(1024, 1);
    const result = await fit({
      model,
      backend,
      data: { inputs },
      settings: { loss: "mse", output: "reconstruction", epochs: 20, batch: 32, rate: 5e-3, seed: 1 },
    });
    const fresh = toyWindows(256, 9);
    const { outputs } = await runRows({
      model: result.model,
      backend,
      inputs: fresh,
      output: "reconstruction",
    });
    const error =
      outputs.reduce((sum, value, index) => sum + (value - fresh[index]!) ** 2, 0) / outputs.length;
    console.log(`toy autoencoder: loss ${result.losses[0]} -> ${result.losses.at(-1)}, unseen ${error}`);
    expect(error).toBeLessThan(0.08);
  });
});
