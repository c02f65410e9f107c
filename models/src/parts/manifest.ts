import type { Backend } from "@fieldloop/runtime";
import type { ManifestDraft } from "@fieldloop/runtime/node";
import { partClasses, partsFrameSize } from "@fieldloop/runtime/simulate";
import { type GoldenSet, recipeCreated } from "../recipe.js";
import { embeddingLength, partsNormalization } from "./net.js";

/** What of the manifest depends on the run. */
export interface PartsManifestFacts {
  readonly temperature: number;
  readonly golden: GoldenSet["cases"];
  readonly replayCount: number;
  readonly holdoutCount: number;
  readonly snapshot: string;
  readonly backend: Backend;
  readonly opset: { readonly fp32: number; readonly int8: number };
  readonly settings: Readonly<Record<string, string | number | boolean>>;
  readonly metrics: Readonly<Record<string, number>>;
}

/** Input and heads: also what a device needs to run the network before there is a package. */
export function partsInterface(temperature: number): Pick<ManifestDraft, "inputs" | "heads" | "signals"> {
  return {
    inputs: [
      {
        kind: "image",
        name: "image",
        width: partsFrameSize,
        height: partsFrameSize,
        colour: "rgb",
        resize: "stretch",
        layout: "nchw",
        range: "unit",
        mean: [partsNormalization.mean],
        std: [partsNormalization.std],
        elementType: "float32",
      },
    ],
    heads: [
      {
        kind: "classification",
        name: "part",
        output: "logits",
        labels: [...partClasses],
        values: "logits",
        activation: "softmax",
        temperature,
      },
      { kind: "embedding", name: "look", output: "embedding", length: embeddingLength },
    ],
    signals: ["margin", "entropy", "novelty", "brightness"],
  };
}

/** `manifest.json` of `parts@1` before its files are hashed. */
export function partsManifest(facts: PartsManifestFacts): ManifestDraft {
  return {
    schema: 1,
    model: "parts",
    version: 1,
    created: recipeCreated,
    task: "classification",
    description: "Machine parts on a conveyor belt: washer, nut, bolt, gear, bracket, spring.",
    licence: "Apache-2.0",
    ...partsInterface(facts.temperature),
    variants: [
      {
        file: "fp32.onnx",
        name: "fp32",
        precision: "fp32",
        opset: facts.opset.fp32,
        executionProviders: ["cpu", "webgpu", "cuda"],
      },
      {
        file: "int8-u8s8.onnx",
        name: "int8-u8s8",
        precision: "int8",
        opset: facts.opset.int8,
        executionProviders: ["cpu"],
      },
    ],
    golden: facts.golden,
    baseline: { file: "baseline.cbor" },
    replay: { file: "replay.bin", count: facts.replayCount, format: "fieldloop-samples-1" },
    holdout: { file: "holdout.bin", count: facts.holdoutCount, format: "fieldloop-samples-1" },
    lineage: {
      base: null,
      snapshot: facts.snapshot,
      trainer: "fieldloop recipe parts",
      settings: { ...facts.settings },
      libraries: { [facts.backend.name]: facts.backend.version },
      metrics: { ...facts.metrics },
    },
  };
}
