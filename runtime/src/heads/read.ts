import type { Affine, Head, Manifest } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import type { Geometry } from "../input/frame.js";
import { frameInput } from "../input/prepare.js";
import type { Baseline } from "../profile/baseline.js";
import { readAnomaly, type AnomalyReference } from "./anomaly.js";
import { readClassification } from "./classification.js";
import { readDetection, type DetectionView, type InputSize } from "./detection.js";
import { readImage } from "./image.js";
import { readKeypoints } from "./keypoints.js";
import { readRegression } from "./regression.js";
import type { EmbeddingResult, HeadResult } from "./result.js";
import { readSegmentation } from "./segmentation.js";
import { named, outputInvalid, realValues, tensorOf, type Tensors } from "./values.js";

/** The outputs of a model that its heads read, each once. */
export function headOutputs(heads: readonly Head[]): string[] {
  const names = heads.flatMap((head) =>
    head.kind === "detection"
      ? [head.boxes, head.scores, head.classes, head.keypoints?.output, head.masks?.prototypes]
      : [head.output],
  );
  return [...new Set(names.filter((name) => name !== undefined))];
}

/**
 * Reads every head of a manifest from the outputs of one run. `inputs` are the feeds of that run (an anomaly head may compare
 * with the first of them); `geometry` places boxes and points in the source image; anomalies by embedding are measured against `baseline`.
 * @throws FieldloopError `model_output_invalid` where an output is missing or does not fit its head, `manifest_invalid` where the manifest
 * lacks what a head needs
 */
export function readHeads(
  manifest: Pick<Manifest, "heads" | "inputs">,
  outputs: Tensors,
  inputs: Tensors,
  geometry?: Geometry,
  baseline?: Pick<Baseline, "novelty">,
): HeadResult[] {
  const size = inputSize(manifest, inputs);
  const view: DetectionView = geometry === undefined ? { size } : { size, geometry };
  return manifest.heads.map((head) => {
    const output = (): Tensor => tensorOf(head, outputs, outputName(head));
    switch (head.kind) {
      case "classification":
        return readClassification(head, output());
      case "detection":
        return readDetection(head, outputs, view);
      case "segmentation":
        return readSegmentation(head, output());
      case "keypoints":
        return readKeypoints(head, output(), view);
      case "regression":
        return readRegression(head, output());
      case "anomaly":
        return readAnomaly(head, output(), anomalyReference(manifest, inputs, baseline));
      case "embedding":
        return readEmbedding(head, output());
      case "image":
        return readImage(head, output());
    }
  });
}

function outputName(head: Head): string {
  return head.kind === "detection" ? head.boxes : head.output;
}

function anomalyReference(
  manifest: Pick<Manifest, "inputs">,
  inputs: Tensors,
  baseline: Pick<Baseline, "novelty"> | undefined,
): AnomalyReference {
  const input = frameInput(manifest.inputs);
  const fed = input && inputs[input.name];
  const quantization: Affine | undefined = input?.kind === "window" ? input.quantization : undefined;
  return {
    ...(fed === undefined ? {} : { input: fed }),
    ...(quantization === undefined ? {} : { inputQuantization: quantization }),
    ...(baseline?.novelty === undefined ? {} : { novelty: baseline.novelty }),
  };
}

/** Pixels of the image that the model was given: declared, or of a fed tensor with 1 or 3 channels in second or last place. */
function inputSize(manifest: Pick<Manifest, "inputs">, inputs: Tensors): InputSize {
  const image = manifest.inputs.find((input) => input.kind === "image");
  if (image !== undefined) return { width: image.width, height: image.height };
  for (const { name } of manifest.inputs) {
    const [, a = 0, b = 0, c = 0] = inputs[name]?.dims.length === 4 ? inputs[name].dims : [];
    if (a === 1 || a === 3) return { width: c, height: b };
    if (c === 1 || c === 3) return { width: b, height: a };
  }
  return { width: 0, height: 0 };
}

function readEmbedding(head: Extract<Head, { kind: "embedding" }>, output: Tensor): EmbeddingResult {
  const embedding = realValues(output, head.quantization);
  if (embedding.length !== head.length) {
    throw outputInvalid(
      head,
      `output ${named(head.output, output)} has ${embedding.length} values, wanted ${head.length}`,
    );
  }
  return { kind: "embedding", name: head.name, embedding };
}
