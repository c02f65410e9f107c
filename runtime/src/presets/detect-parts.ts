import { FieldloopError, type Affine, type ManifestInput } from "@fieldloop/protocol";
import type { TensorInfo } from "../backend.js";
import { imageInput, type ImageDefaults } from "./inputs.js";
import {
  knownDims,
  onlyInput,
  quantizationOf,
  unsuitable,
  type ModelSignature,
  type PresetOptions,
  type PresetResult,
} from "./preset.js";

export type DraftHead = Extract<ManifestInput["heads"][number], { kind: "detection" }>;
export type DraftImage = NonNullable<ReturnType<typeof imageInput>>;

/** What the presets of one family add to the head. */
export type HeadPart = Pick<DraftHead, "format" | "boxes" | "labels"> & Partial<DraftHead>;

/** A detector's part of a manifest. */
export function detection(
  name: string,
  signature: ModelSignature,
  options: PresetOptions,
  image: DraftImage,
  head: HeadPart,
  usual: { score: number; iou: number },
): PresetResult {
  const boxes = signature.outputs.find((info) => info.name === head.boxes)!;
  const quantization = quantizationOf(signature, boxes, options.outputQuantization);
  requireOneScale(signature, head, quantization, options);
  return {
    task: "detection",
    inputs: [image],
    heads: [
      {
        name,
        kind: "detection",
        ...head,
        ...quantization,
        ...(options.units === undefined ? {} : { units: options.units }),
        scoreThreshold: options.scoreThreshold ?? usual.score,
        iouThreshold: options.iouThreshold ?? usual.iou,
        ...(options.suppression === undefined ? {} : { suppression: options.suppression }),
        ...(options.detectionsMax === undefined ? {} : { detectionsMax: options.detectionsMax }),
      },
    ],
    signals: ["margin", "entropy", "instability", "brightness"],
  };
}

/** A head has one scale for the integers of its outputs. */
function requireOneScale(
  signature: ModelSignature,
  head: HeadPart,
  { quantization }: { quantization?: Affine },
  options: PresetOptions,
): void {
  for (const name of [head.scores, head.keypoints?.output, head.masks?.prototypes]) {
    const info = signature.outputs.find((output) => output.name === name);
    if (info === undefined || name === head.boxes) continue;
    const own = quantizationOf(signature, info, options.outputQuantization).quantization;
    if (own === undefined || (own.scale === quantization?.scale && own.zeroPoint === quantization.zeroPoint))
      continue;
    throw new FieldloopError(
      "package_incompatible",
      `Apply preset: integers of "${name}" have the scale ${own.scale}, those of "${head.boxes}" ${quantization === undefined ? "none" : String(quantization.scale)}, wanted one scale; export the detector with float outputs`,
    );
  }
}

/** @throws FieldloopError `package_incompatible` where the one input is no image */
export function imageOf(
  name: string,
  signature: ModelSignature,
  defaults: ImageDefaults,
  options: PresetOptions,
): DraftImage {
  const image = imageInput(signature, onlyInput(name, signature), defaults, options);
  if (image === undefined) throw unsuitable(name, signature, "one image [1, 3, H, W]");
  return image;
}

/** [1, N, columns] of numbers. */
export function isTable(info: TensorInfo): boolean {
  const dims = knownDims(info);
  return info.type !== "string" && dims.length === 3 && dims[0]! <= 1;
}

/** [1, N, columns] with any N. */
export function isRows(info: TensorInfo, columns: number): boolean {
  return isTable(info) && knownDims(info)[2] === columns;
}
