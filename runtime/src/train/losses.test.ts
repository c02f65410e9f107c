import { describe, expect, it } from "vitest";
import { Random } from "../simulate/random.js";
import { initializeWeights } from "./initialize.js";
import type { LossKind } from "./losses.js";
import { toyAutoencoder, toyClassifier } from "./toy.test.kit.js";
import { checkWholeNet } from "./whole-net.test.kit.js";

/** Of a whole net along its own gradient, at the better of two steps. */
const ERROR_MAX = 1e-5;

describe.each<[string, LossKind, number]>([
  ["classifier", "cross_entropy", 1],
  ["classifier", "cross_entropy", 0.3],
  ["classifier", "binary_cross_entropy", 0.5],
  ["autoencoder", "mse", 1],
])("whole %s with %s, logit scale %d", (kind, loss, logitScale) => {
  it("has the gradient of its loss in every tensor", async () => {
    const seed = 12;
    const random = new Random(seed);
    const image = kind === "classifier";
    const errors = await checkWholeNet({
      model: initializeWeights(image ? toyClassifier() : toyAutoencoder(), seed),
      output: image ? "logits" : "reconstruction",
      loss,
      logitScale,
      batch: 4,
      draw: () => random.normal(),
      random,
      jitter: 0.05,
    });
    expect(Math.abs(errors.loss.given / errors.loss.reference - 1)).toBeLessThan(1e-6);
    for (const [name, error] of Object.entries(errors.tensors)) {
      expect(error, `${name}, seed ${seed}`).toBeLessThan(ERROR_MAX);
    }
  });
});
