import type { Box, Manifest, PipelineNode } from "@fieldloop/protocol";
import type { HeadResult } from "../heads/result.js";
import type { Geometry, PixelFrame } from "../input/frame.js";
import { pipelineParts } from "./graph.js";

type CropSource = Extract<PipelineNode["from"], { kind: "crop" }>;

/** Class numbers of the labels whose boxes a node wants; undefined: of all, or the node takes no crops. */
export function cropClasses(manifest: Manifest, { from }: PipelineNode): ReadonlySet<number> | undefined {
  if (from.kind !== "crop" || from.labels === undefined) return undefined;
  const part = pipelineParts(manifest).find(({ name }) => name === from.node);
  const head = part?.heads.find(({ name }) => name === from.head);
  const known = head?.kind === "detection" ? head.labels : [];
  return new Set(from.labels.map((label) => known.indexOf(label)));
}

/** The best boxes over all results of the node that found them, in the order of their scores. */
export function boxesToCut<Parent extends { readonly heads: readonly HeadResult[] }>(
  from: CropSource,
  classes: ReadonlySet<number> | undefined,
  parents: readonly Parent[],
): { readonly box: Box; readonly crop: number; readonly parent: Parent }[] {
  const found = parents.flatMap((parent) => {
    const result = parent.heads.find(({ name }) => name === from.head);
    if (result?.kind !== "detection") return [];
    return result.boxes.map((box, crop) => ({ box, crop, parent }));
  });
  return found
    .filter(({ box }) => box.score >= from.scoreThreshold && (classes?.has(box.class) ?? true))
    .sort((a, b) => b.box.score - a.box.score)
    .slice(0, from.cropsMax);
}

/** A part of an image as an image of its own, and where it lay: `whole = part · scale + offset`, both in 0..1. */
export interface Crop {
  readonly frame: PixelFrame;
  readonly geometry: Geometry;
}

/**
 * Cuts a box, grown by `margin` of its size on each side and clipped to the image, in whole pixels outwards; at least one pixel.
 * @returns undefined where nothing of the box lies inside the image
 */
export function cropBox(image: PixelFrame, box: Box, margin: number): Crop | undefined {
  const growX = (box.x1 - box.x0) * margin;
  const growY = (box.y1 - box.y0) * margin;
  const left = clip(Math.floor((box.x0 - growX) * image.width), image.width);
  const top = clip(Math.floor((box.y0 - growY) * image.height), image.height);
  const right = clip(Math.ceil((box.x1 + growX) * image.width), image.width);
  const bottom = clip(Math.ceil((box.y1 + growY) * image.height), image.height);
  const width = right - left;
  const height = bottom - top;
  // Written so that NaN is outside.
  if (!(width > 0 && height > 0)) return undefined;
  const { channels } = image;
  const data = new Uint8Array(width * height * channels);
  const rowBytes = width * channels;
  for (let row = 0; row < height; row++) {
    const from = ((top + row) * image.width + left) * channels;
    data.set(image.data.subarray(from, from + rowBytes), row * rowBytes);
  }
  return {
    frame: { kind: "pixels", data, width, height, channels },
    geometry: {
      scaleX: width / image.width,
      scaleY: height / image.height,
      offsetX: left / image.width,
      offsetY: top / image.height,
    },
  };
}

/** First `inner`, then `outer`: where the input of a model that saw a crop lies in the whole image. */
export function composeGeometry(inner: Geometry, outer: Geometry): Geometry {
  return {
    scaleX: inner.scaleX * outer.scaleX,
    scaleY: inner.scaleY * outer.scaleY,
    offsetX: inner.offsetX * outer.scaleX + outer.offsetX,
    offsetY: inner.offsetY * outer.scaleY + outer.offsetY,
  };
}

function clip(value: number, max: number): number {
  return Math.min(Math.max(value, 0), max);
}
