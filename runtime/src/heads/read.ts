import { FieldloopError, type Head, type Manifest } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import type { Geometry } from "../input/frame.js";
import { asFloat32 } from "../package/tensor-bytes.js";
import { readAnomaly } from "./anomaly.js";
import { readClassification } from "./classification.js";
import { readDetection } from "./detection.js";
import type { EmbeddingResult, HeadResult } from "./result.js";

type Tensors = Readonly<Record<string, Tensor>>;

/** The outputs of a model that its heads read, each once. */
export function headOutputs(heads: readonly Head[]): string[] {
  const names = heads.flatMap((head) =>
    head.kind === "detection" ? [head.boxes, ...(head.scores ? [head.scores] : [])] : [head.output],
  );
  return [...new Set(names)];
}

/**
 * Reads every head of a manifest from the outputs of one run. `inputs` are the feeds of that run (an anomaly head compares
 * with the first of them); `geometry` places boxes in the source image.
 * @throws FieldloopError `model_output_invalid` where an output is missing or does not fit its head
 */
export function readHeads(
  manifest: Pick<Manifest, "heads" | "inputs">,
  outputs: Tensors,
  inputs: Tensors,
  geometry?: Geometry,
): HeadResult[] {
  return manifest.heads.map((head) => {
    switch (head.kind) {
      case "classification":
        return readClassification(head, outputOf(head, outputs, head.output));
      case "detection":
        return readDetection(
          head,
          outputOf(head, outputs, head.scores ?? head.boxes),
          outputOf(head, outputs, head.boxes),
          geometry,
        );
      case "anomaly":
        return readAnomaly(
          head,
          outputOf(head, outputs, head.output),
          outputOf(head, inputs, manifest.inputs[0]!.name),
        );
      case "embedding":
        return readEmbedding(head, outputOf(head, outputs, head.output));
      case "segmentation":
      case "keypoints":
      case "regression":
      case "image":
        throw new FieldloopError("onnx_unsupported", `Read head "${head.name}": kind "${head.kind}"`);
    }
  });
}

function readEmbedding(head: Extract<Head, { kind: "embedding" }>, output: Tensor): EmbeddingResult {
  const embedding = asFloat32(output);
  if (embedding.length !== head.length) {
    throw new FieldloopError(
      "model_output_invalid",
      `Read head "${head.name}": output "${head.output}" has ${embedding.length} values, wanted ${head.length}`,
    );
  }
  return { kind: "embedding", name: head.name, embedding };
}

function outputOf(head: Head, tensors: Tensors, name: string): Tensor {
  const tensor = tensors[name];
  if (tensor === undefined) {
    throw new FieldloopError(
      "model_output_invalid",
      `Read head "${head.name}": the run has no tensor "${name}"`,
    );
  }
  return tensor;
}
