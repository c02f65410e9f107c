import { FieldloopError, ROOT_NODE, type Head, type ImageInput, type ModelInput } from "@fieldloop/protocol";
import { PRIORS_MAX, priorCount } from "../heads/detection/anchors.js";
import type { DetectionHead } from "../heads/detection/decoder.js";
import { inputExtent, inputProblem } from "../input/extent.js";
import { INPUT_LIMITS } from "../input/limits.js";
import type { PipelinePart } from "../pipeline/graph.js";

type CheckedPart = Pick<PipelinePart, "name" | "inputs" | "heads">;

/**
 * Holds what each part declares against itself and against what may be taken of memory, before anything is made of it.
 * @throws FieldloopError `manifest_invalid` naming the part
 */
export function checkParts(parts: readonly CheckedPart[]): void {
  let values = 0;
  for (const { name, inputs, heads } of parts) {
    for (const input of inputs) {
      const problem = inputProblem(input);
      if (problem !== undefined) throw refusal(name, problem);
      values += inputExtent(input);
    }
    for (const head of heads) {
      const problem = headProblem(head, inputs);
      if (problem !== undefined) throw refusal(name, `head "${head.name}" ${problem}`);
    }
  }
  if (values <= INPUT_LIMITS.elementsMax) return;
  const last = parts.at(-1)!.name;
  throw refusal(
    last,
    `with it the inputs hold ${values} values, at most ${INPUT_LIMITS.elementsMax} allowed together`,
  );
}

function refusal(part: string, what: string): FieldloopError {
  const whose = part === ROOT_NODE ? "" : `node "${part}": `;
  return new FieldloopError("manifest_invalid", `Read manifest: ${whose}${what}`);
}

function headProblem(head: Head, inputs: readonly ModelInput[]): string | undefined {
  switch (head.kind) {
    case "detection":
      return detectionProblem(head, inputs);
    case "segmentation":
      return head.background !== undefined && !head.labels.includes(head.background)
        ? `has the background "${head.background}", which is none of its labels`
        : undefined;
    case "image":
      return imageProblem(head.colour === "gray" ? 1 : 3, head);
    case "classification":
    case "keypoints":
    case "regression":
    case "anomaly":
    case "embedding":
      return undefined;
  }
}

function imageProblem(channels: number, { mean, std }: Pick<ImageInput, "mean" | "std">): string | undefined {
  const wrong = [mean, std].find(({ length }) => length !== 1 && length !== channels);
  return wrong && `has ${wrong.length} values of mean or std, wanted 1 or ${channels}`;
}

function detectionProblem(head: DetectionHead, inputs: readonly ModelInput[]): string | undefined {
  const { format, scores, classes, anchors, keypoints, masks } = head;
  const isSingleShot = format === "ssd" || format === "ultraface";
  // Points and coefficients stand behind the classes of each box; there they have no place.
  const boxesAlone =
    isSingleShot || format === "fastestdet" || (scores !== undefined && scores !== head.boxes);
  const problems = [
    [
      format === "listed" && (scores === undefined || classes === undefined),
      'of format "listed" names no outputs with scores and classes',
    ],
    [isSingleShot && scores === undefined, `of format "${format}" names no output with scores`],
    [format === "ssd" && anchors === undefined, 'of format "ssd" wants anchors'],
    [masks !== undefined && boxesAlone, `of format "${format}" has no place for masks beside its boxes`],
    [
      keypoints !== undefined && isSingleShot && keypoints.output === undefined,
      `of format "${format}" names no output with its keypoints`,
    ],
    [
      keypoints !== undefined && boxesAlone && !isSingleShot,
      `of format "${format}" has no place for keypoints beside its boxes`,
    ],
    [
      keypoints?.output !== undefined && !isSingleShot,
      `of format "${format}" has keypoints in an output of their own, only "ssd" has`,
    ],
  ] as const;
  return problems.find(([is]) => is)?.[1] ?? anchorProblem(head, inputs);
}

function anchorProblem(head: DetectionHead, inputs: readonly ModelInput[]): string | undefined {
  const size = head.inputSize ?? inputs.find((input) => input.kind === "image");
  if (head.anchors === undefined || head.anchors.decoded || size === undefined) return undefined;
  const count = priorCount(head.anchors, size);
  return count > PRIORS_MAX ? `has ${count} anchors, at most ${PRIORS_MAX} allowed` : undefined;
}
