import { FieldloopError, LIMITS, type ImageInput } from "@fieldloop/protocol";
import type { Sharp } from "sharp";
import type { EncodedFrame, PixelFrame } from "../input/frame.js";
import { planResize, type ResizePlan } from "../input/geometry.js";
import type { SizedPixels } from "../input/prepare.js";
import { jpegSize } from "./jpeg-header.js";
import { loadSharp } from "./sharp.js";

export const IMAGE_TYPES = ["image/jpeg", "image/png", "image/webp"] as const;
export type ImageType = (typeof IMAGE_TYPES)[number];

/** Type by the first bytes: JPEG, PNG or WebP, otherwise `undefined`. */
export function imageTypeOf(bytes: Uint8Array): ImageType | undefined {
  if (bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff) return "image/jpeg";
  if (startsWith(bytes, 0, "\x89PNG\r\n\x1a\n")) return "image/png";
  if (startsWith(bytes, 0, "RIFF") && startsWith(bytes, 8, "WEBP")) return "image/webp";
  return undefined;
}

/**
 * Decodes and resizes an image to a model's input: upright by its EXIF tag, transparency over black, converted to 8-bit
 * sRGB or gray, resized by a triangle filter (bilinear that averages when it shrinks), letterbox bars as the input says.
 * @throws FieldloopError `image_type_refused`, `image_too_large` or `image_undecodable`
 */
export async function prepareImage(
  input: ImageInput,
  frame: EncodedFrame | PixelFrame,
): Promise<SizedPixels> {
  const { image, width, height } = await openImage(frame);
  const plan = planResize(input, width, height);
  const data = await decoding(() => resize(image, input, plan).raw().toBuffer());
  return { data, channels: input.colour === "gray" ? 1 : 3, geometry: plan.geometry };
}

/**
 * Decodes a whole image at its own size: upright by its EXIF tag, transparency over black, 8-bit sRGB.
 * @throws FieldloopError `image_type_refused`, `image_too_large` or `image_undecodable`
 */
export async function decodeImage(frame: EncodedFrame): Promise<PixelFrame> {
  const { image } = await openImage(frame);
  const flat = image.flatten().toColourspace("srgb").raw();
  const { data, info } = await decoding(() => flat.toBuffer({ resolveWithObject: true }));
  return { kind: "pixels", data, width: info.width, height: info.height, channels: 3 };
}

/**
 * Decodes and stretches a JPEG with nothing of ours around the decoder: what a benchmark holds {@link prepareImage} against.
 */
export async function bareDecode(bytes: Uint8Array, width: number, height: number): Promise<Uint8Array> {
  const sharp = await loadSharp();
  return sharp(bytes).resize(width, height, { fit: "fill", kernel: "linear" }).raw().toBuffer();
}

/** Size of an image after it was turned upright, without decoding its pixels. */
export async function imageSize(bytes: Uint8Array): Promise<{ width: number; height: number }> {
  const { width, height } = await openImage({ kind: "encoded", bytes });
  return { width, height };
}

async function openImage(
  frame: EncodedFrame | PixelFrame,
): Promise<{ image: Sharp; width: number; height: number }> {
  if (frame.kind === "pixels") return openPixels(frame);
  if (frame.bytes.length > LIMITS.imageBytesMax) {
    throw new FieldloopError(
      "image_too_large",
      `Read image: ${frame.bytes.length} bytes, at most ${LIMITS.imageBytesMax} allowed`,
    );
  }
  const type = imageTypeOf(frame.bytes);
  if (type === undefined) {
    const start = Buffer.from(frame.bytes.subarray(0, 8)).toString("hex");
    throw new FieldloopError(
      "image_type_refused",
      `Read image: it starts with "${start}", wanted one of ${IMAGE_TYPES.join(", ")}`,
    );
  }
  const sharp = await loadSharp();
  const image = sharp(frame.bytes, {
    limitInputPixels: LIMITS.imagePixelsMax,
    pages: 1,
    page: 0,
    failOn: "error",
    sequentialRead: true,
  }).autoOrient();
  const { width, height } = (type === "image/jpeg" && jpegSize(frame.bytes)) || (await uprightSize(image));
  if (width * height > LIMITS.imagePixelsMax) {
    throw new FieldloopError(
      "image_too_large",
      `Read image: ${width}×${height} pixels, at most ${LIMITS.imagePixelsMax} allowed`,
    );
  }
  return { image, width, height };
}

async function uprightSize(image: Sharp): Promise<{ width: number; height: number }> {
  const { autoOrient, pages } = await decoding(() => image.metadata());
  if ((pages ?? 1) > 1) {
    throw new FieldloopError(
      "image_type_refused",
      `Read image: an animation of ${pages} pages, wanted one image`,
    );
  }
  return autoOrient;
}

async function openPixels(frame: PixelFrame): Promise<{ image: Sharp; width: number; height: number }> {
  const { width, height, channels, data } = frame;
  const wanted = width * height * channels;
  if (!(width > 0 && height > 0) || data.length !== wanted) {
    throw new FieldloopError(
      "image_undecodable",
      `Read pixels: ${data.length} bytes, wanted ${width}×${height}×${channels} = ${wanted}`,
    );
  }
  if (width * height > LIMITS.imagePixelsMax) {
    throw new FieldloopError(
      "image_too_large",
      `Read pixels: ${width}×${height}, at most ${LIMITS.imagePixelsMax} allowed`,
    );
  }
  const sharp = await loadSharp();
  return { image: sharp(data, { raw: { width, height, channels } }), width, height };
}

function resize(image: Sharp, input: ImageInput, plan: ResizePlan): Sharp {
  const { crop } = plan;
  let result = image.flatten();
  result = input.colour === "gray" ? result.toColourspace("b-w") : result.toColourspace("srgb");
  if (input.resize === "crop") result = result.extract(crop);
  // A JPEG may be decoded at a half, quarter or eighth: that averages too, and takes a third less time from 1280×720 on.
  result = result.resize(plan.width, plan.height, { fit: "fill", kernel: "linear" });
  const right = input.width - plan.width - plan.left;
  const bottom = input.height - plan.height - plan.top;
  if (right + bottom + plan.left + plan.top === 0) return result;
  const fill = input.letterbox?.fill ?? 0;
  const background = { r: fill, g: fill, b: fill };
  return result.extend({ left: plan.left, top: plan.top, right, bottom, background });
}

async function decoding<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const code = /pixel limit/i.test(reason) ? "image_too_large" : "image_undecodable";
    throw new FieldloopError(code, `Read image: ${reason.split("\n")[0]}`, { cause });
  }
}

function startsWith(bytes: Uint8Array, at: number, text: string): boolean {
  for (let index = 0; index < text.length; index++) {
    if (bytes[at + index] !== text.charCodeAt(index)) return false;
  }
  return true;
}
