import { FieldloopError, LIMITS } from "@fieldloop/protocol";
import type { EncodedFrame, PixelFrame } from "../input/frame.js";
import { loadSharp } from "./sharp.js";

/**
 * Encodes a frame as JPEG (`quality` 1..100), upright by its EXIF tag and without chroma subsampling: small parts keep the colour of their edges.
 * @throws FieldloopError `image_undecodable`
 */
export async function encodeJpeg(frame: PixelFrame | EncodedFrame, quality: number): Promise<Uint8Array> {
  const sharp = await loadSharp();
  const image =
    frame.kind === "pixels"
      ? sharp(frame.data, { raw: { width: frame.width, height: frame.height, channels: frame.channels } })
      : // Upright, as the model saw it: the tag that says how to turn it does not go along.
        sharp(frame.bytes, { limitInputPixels: LIMITS.imagePixelsMax, pages: 1 }).autoOrient();
  try {
    return new Uint8Array(await image.jpeg({ quality, chromaSubsampling: "4:4:4" }).toBuffer());
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FieldloopError("image_undecodable", `Encode JPEG: ${reason}`, { cause });
  }
}
