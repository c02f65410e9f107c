import { FieldloopError } from "@fieldloop/protocol";
import { AGENT_LIMITS } from "../../limits.js";

export interface PpmImage {
  readonly width: number;
  readonly height: number;
  /** RGB, height × width × 3. */
  readonly data: Uint8Array;
}

const HEADER_BYTES_MAX = 64;

/**
 * Cuts a stream of binary PPM images (`P6 width height 255`, one white space, then RGB) as ffmpeg writes it: pixels without
 * another lossy step, and with their size in front of every frame.
 */
export class PpmReader {
  #chunks: Buffer[] = [];
  #bytes = 0;

  /** Takes the next piece and returns the images that are whole now. @throws FieldloopError `source_failed` */
  push(chunk: Buffer): PpmImage[] {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    const images: PpmImage[] = [];
    for (;;) {
      const image = this.#next();
      if (!image) return images;
      images.push(image);
    }
  }

  #next(): PpmImage | undefined {
    if (this.#bytes === 0) return undefined;
    const head = this.#peek(HEADER_BYTES_MAX).toString("latin1");
    const match = /^P6\s+(\d{1,5})\s+(\d{1,5})\s+255\s/.exec(head);
    if (!match) {
      if (head.length < HEADER_BYTES_MAX && /^P?6?[\s\d]*$/.test(head)) return undefined;
      throw new FieldloopError("source_failed", "Read video: ffmpeg did not write PPM images");
    }
    const width = Number(match[1]);
    const height = Number(match[2]);
    const length = width * height * 3;
    if (length > AGENT_LIMITS.videoFrameBytesMax) {
      throw new FieldloopError("image_too_large", `Read video: frames of ${width} × ${height} pixels`);
    }
    const total = match[0].length + length;
    if (this.#bytes < total) return undefined;
    const all = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks);
    const data = new Uint8Array(all.subarray(match[0].length, total));
    const rest = all.subarray(total);
    this.#chunks = rest.length > 0 ? [rest] : [];
    this.#bytes = rest.length;
    return { width, height, data };
  }

  #peek(count: number): Buffer {
    const first = this.#chunks[0]!;
    if (first.length >= count || this.#chunks.length === 1) return first.subarray(0, count);
    const all = Buffer.concat(this.#chunks);
    this.#chunks = [all];
    return all.subarray(0, count);
  }
}
