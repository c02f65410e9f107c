import type { ManifestInput } from "@fieldloop/protocol";
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
  return {
    task: "detection",
    inputs: [image],
    heads: [
      {
        name,
        kind: "detection",
        ...head,
        ...quantizationOf(signature, boxes, options.outputQuantization),
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
