import { FieldloopError } from "@fieldloop/protocol";
import { AGENT_LIMITS } from "../../limits.js";
import { FramedReader, type FrameFormat } from "./framed-reader.js";

export interface PpmImage {
  readonly width: number;
  readonly height: number;
  /** RGB, height × width × 3. */
  readonly data: Uint8Array;
}

const FORMAT: FrameFormat<{ width: number; height: number }> = {
  headBytesMax: 64,
  parse(text) {
    const match = /^P6\s+(\d{1,5})\s+(\d{1,5})\s+255\s/.exec(text);
    if (!match) {
      if (text.length < 64 && /^P?6?[\s\d]*$/.test(text)) return undefined;
      throw new FieldloopError("source_failed", "Read video: ffmpeg did not write PPM images");
    }
    const width = Number(match[1]);
    const height = Number(match[2]);
    const bodyBytes = width * height * 3;
    if (bodyBytes > AGENT_LIMITS.videoFrameBytesMax) {
      throw new FieldloopError("image_too_large", `Read video: frames of ${width} × ${height} pixels`);
    }
    return { head: { width, height }, headBytes: match[0].length, bodyBytes };
  },
};

/**
 * Cuts a stream of binary PPM images (`P6 width height 255`, one white space, then RGB) as ffmpeg writes it: pixels without
 * another lossy step, and with their size in front of every frame.
 */
export class PpmReader {
  readonly #reader = new FramedReader(FORMAT);

  /** Takes the next piece and returns the images that are whole now. @throws FieldloopError `source_failed` */
  push(chunk: Buffer): PpmImage[] {
    return this.#reader.push(chunk).map(({ head, data }) => ({ ...head, data }));
  }
}
