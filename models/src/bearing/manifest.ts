import type { Backend } from "@fieldloop/runtime";
import type { ManifestDraft } from "@fieldloop/runtime/node";
import { bearingSampling } from "@fieldloop/runtime/simulate";
import { type GoldenSet, recipeCreated } from "../recipe.js";
import { bearingScale } from "./data.js";
import { bearingCodeLength } from "./net.js";

/** What of the manifest depends on the run. */
export interface BearingManifestFacts {
  readonly threshold: number;
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
export function bearingInterface(threshold: number): Pick<ManifestDraft, "inputs" | "heads" | "signals"> {
  return {
    inputs: [
      {
        kind: "window",
        name: "window",
        length: bearingSampling.windowLength,
        channels: 1,
        hop: bearingSampling.hop,
        sampleRateHz: bearingSampling.sampleRateHz,
        normalization: "fixed",
        mean: 0,
        std: bearingScale,
        dims: [0, bearingSampling.windowLength],
      },
    ],
    heads: [
      {
        kind: "anomaly",
        name: "bearing",
        method: "reconstruction",
        output: "reconstruction",
        threshold,
        labels: ["normal", "anomalous"],
      },
      { kind: "embedding", name: "code", output: "embedding", length: bearingCodeLength },
    ],
    signals: ["reconstruction", "margin", "entropy", "instability"],
  };
}

/** `manifest.json` of `bearing@1` before its files are hashed. */
export function bearingManifest(facts: BearingManifestFacts): ManifestDraft {
  return {
    schema: 1,
    model: "bearing",
    version: 1,
    created: recipeCreated,
    task: "anomaly",
    description: "Vibration of a ball bearing: how far a window of 0.1 s is from a sound machine.",
    licence: "Apache-2.0",
    ...bearingInterface(facts.threshold),
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
      trainer: "fieldloop recipe bearing",
      settings: { ...facts.settings },
      libraries: { [facts.backend.name]: facts.backend.version },
      metrics: { ...facts.metrics },
    },
  };
}
