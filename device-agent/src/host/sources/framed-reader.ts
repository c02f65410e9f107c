import { FieldloopError } from "@fieldloop/protocol";
import { AGENT_LIMITS } from "../../limits.js";

export interface FrameHead<Head> {
  readonly head: Head;
  /** Bytes of the header itself. */
  readonly headBytes: number;
  /** Bytes of what follows it. */
  readonly bodyBytes: number;
}

export interface FrameFormat<Head> {
  readonly headBytesMax: number;
  /** The header at the begin of `text`, or undefined where more of it is needed. @throws FieldloopError where it is none */
  parse(text: string): FrameHead<Head> | undefined;
}

export interface ReadFrame<Head> {
  readonly head: Head;
  readonly data: Uint8Array;
}

/**
 * Cuts a stream of frames that each say their length in front. Every byte is copied once, from the pipe's chunk into a buffer
 * of exactly the frame's size, which nobody else holds.
 */
export class FramedReader<Head> {
  readonly #format: FrameFormat<Head>;
  #headPart: Buffer = Buffer.alloc(0);
  #head: Head | undefined;
  #body: Uint8Array | undefined;
  #filled = 0;

  constructor(format: FrameFormat<Head>) {
    this.#format = format;
  }

  /** Takes the next piece and returns the frames that are whole now. @throws FieldloopError `source_failed`, `image_too_large` */
  push(chunk: Buffer): ReadFrame<Head>[] {
    const frames: ReadFrame<Head>[] = [];
    let at = 0;
    while (at < chunk.length) {
      if (this.#body === undefined) {
        const used = this.#readHead(chunk.subarray(at));
        if (used === undefined) return frames;
        at += used;
      }
      const body = this.#body!;
      const count = Math.min(body.length - this.#filled, chunk.length - at);
      chunk.copy(body, this.#filled, at, at + count);
      this.#filled += count;
      at += count;
      if (this.#filled < body.length) return frames;
      frames.push({ head: this.#head!, data: body });
      this.#body = undefined;
    }
    return frames;
  }

  /** Bytes of `piece` that belong to the header; undefined where it is not whole yet. */
  #readHead(piece: Buffer): number | undefined {
    const { headBytesMax } = this.#format;
    const before = this.#headPart.length;
    const window = piece.subarray(0, headBytesMax - before);
    const all = before === 0 ? window : Buffer.concat([this.#headPart, window]);
    const found = this.#format.parse(all.toString("latin1"));
    if (!found) {
      if (all.length >= headBytesMax)
        throw new FieldloopError("source_failed", "Read stream: no frame header");
      this.#headPart = Buffer.from(all);
      return undefined;
    }
    if (found.bodyBytes > AGENT_LIMITS.videoFrameBytesMax) {
      throw new FieldloopError("image_too_large", `Read stream: a frame of ${found.bodyBytes} bytes`);
    }
    this.#head = found.head;
    this.#body = new Uint8Array(Buffer.allocUnsafeSlow(found.bodyBytes).buffer);
    this.#filled = 0;
    this.#headPart = Buffer.alloc(0);
    return found.headBytes - before;
  }
}
