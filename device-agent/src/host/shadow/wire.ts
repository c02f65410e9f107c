import { deserialize, serialize } from "node:v8";
import { errorCodeSchema, FieldloopError, LIMITS } from "@fieldloop/protocol";
import type { Frame, Prediction } from "@fieldloop/runtime";
import { z } from "zod";
import { AGENT_LIMITS } from "../../limits.js";

/**
 * What goes through the socket between the host and the candidate's process.
 *
 * There: two lengths as 32-bit little-endian numbers, a head in V8's own serialization, and the frame's bytes as they are, which are not
 * copied on the host's side. The candidate's process is the agent's own child and believes it.
 *
 * Back: a line of JSON for each frame, checked by a schema: the process may be one in which a broken model ran wild.
 */
export interface ShadowFrame {
  readonly id: number;
  readonly stream: string;
  /** What the candidate carries from the frames before does not belong before this one. */
  readonly fresh: boolean;
  /** False: only to bring what it carries up to date. */
  readonly compare: boolean;
  readonly sha256: string;
  readonly frame: Frame;
  /** What the active version said. */
  readonly answer: ShadowAnswer;
}

export type ShadowAnswer = Pick<Prediction, "class" | "label" | "heads" | "nodes">;

const failureSchema = z.object({ code: errorCodeSchema, message: z.string().max(LIMITS.textLengthMax) });
const replySchema = z.object({
  id: z.int().min(0),
  /** Processor time that the process took since its last reply, milliseconds. */
  cpuMs: z.number().min(0),
  /** The candidate's answer; absent where it was not asked for one, or had none to give for this frame. */
  answer: z
    .object({
      /** Null where the two have nothing that could be compared. */
      disagreement: z.number().min(0).max(1).nullable(),
      label: z.string().max(LIMITS.labelLengthMax),
      confidence: z.number().min(0).max(1),
      latencyMs: z.number().min(0),
    })
    .optional(),
  failure: failureSchema.optional(),
});
export type ShadowReply = z.output<typeof replySchema>;

type Head = Omit<ShadowFrame, "frame"> & { readonly frame: FrameHead };
/** A frame without its bytes, where these travel behind the head. */
type FrameHead =
  | Exclude<Frame, { kind: "encoded" | "pixels" | "window" }>
  | { readonly kind: "encoded" }
  | { readonly kind: "pixels"; readonly width: number; readonly height: number; readonly channels: 1 | 3 }
  | { readonly kind: "window" };

const LENGTHS_BYTES = 8;

/** The chunks to be written; the last one is the frame's own memory. */
export function encodeShadowFrame(message: ShadowFrame): Uint8Array[] {
  const { frame } = message;
  const bytes = bytesOf(frame);
  const head = serialize({ ...message, answer: withoutEmbeddings(message.answer), frame: headOf(frame) });
  const lengths = Buffer.alloc(LENGTHS_BYTES);
  lengths.writeUInt32LE(head.length, 0);
  lengths.writeUInt32LE(bytes.length, 4);
  return bytes.length === 0 ? [lengths, head] : [lengths, head, bytes];
}

function bytesOf(frame: Frame): Uint8Array {
  switch (frame.kind) {
    case "encoded":
      return frame.bytes;
    case "pixels":
      return frame.data;
    case "window": {
      const { buffer, byteOffset, byteLength } = frame.samples;
      return new Uint8Array(buffer, byteOffset, byteLength);
    }
    case "row":
    case "tensors":
      return new Uint8Array(0);
  }
}

function headOf(frame: Frame): FrameHead {
  switch (frame.kind) {
    case "encoded":
    case "window":
      return { kind: frame.kind };
    case "pixels": {
      const { kind, width, height, channels } = frame;
      return { kind, width, height, channels };
    }
    case "row":
    case "tensors":
      return frame;
  }
}

/** Nobody compares them, and they may be the largest part. */
function withoutEmbeddings({ class: decided, label, heads, nodes }: ShadowAnswer): ShadowAnswer {
  return {
    class: decided,
    label,
    heads: heads.filter(({ kind }) => kind !== "embedding"),
    ...(nodes === undefined ? {} : { nodes }),
  };
}

/** Puts frames together again from what a socket gives. */
export class ShadowFrameReader {
  #lengths = Buffer.alloc(LENGTHS_BYTES);
  #filled = 0;
  #message: Buffer | undefined;
  #headBytes = 0;

  /** @throws FieldloopError `limit_exceeded` for a frame that no source gives: then nothing more can be read */
  *push(chunk: Uint8Array): Generator<ShadowFrame> {
    let at = 0;
    while (at < chunk.length) {
      const target = this.#message ?? this.#lengths;
      const count = Math.min(target.length - this.#filled, chunk.length - at);
      target.set(chunk.subarray(at, at + count), this.#filled);
      this.#filled += count;
      at += count;
      if (this.#filled < target.length) return;
      this.#filled = 0;
      if (this.#message) {
        const message = this.#message;
        this.#message = undefined;
        yield decode(message, this.#headBytes);
      } else this.#begin();
    }
  }

  #begin(): void {
    this.#headBytes = this.#lengths.readUInt32LE(0);
    const bytes = this.#headBytes + this.#lengths.readUInt32LE(4);
    if (bytes > AGENT_LIMITS.shadowMessageBytesMax) {
      throw new FieldloopError("limit_exceeded", `Read frame for the candidate: ${bytes} bytes`);
    }
    // Memory of its own: what becomes of it would keep a shared pool alive.
    this.#message = Buffer.allocUnsafeSlow(bytes);
  }
}

function decode(message: Buffer, headBytes: number): ShadowFrame {
  const { frame, ...rest } = deserialize(message.subarray(0, headBytes)) as Head;
  return { ...rest, frame: withBytes(frame, message.subarray(headBytes)) };
}

function withBytes(head: FrameHead, bytes: Buffer): Frame {
  switch (head.kind) {
    case "encoded":
      return { kind: "encoded", bytes: new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length) };
    case "pixels":
      return { ...head, data: new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length) };
    case "window":
      // Floats begin at multiples of four bytes.
      return { kind: "window", samples: new Float32Array(Uint8Array.from(bytes).buffer) };
    case "row":
    case "tensors":
      return head;
  }
}

export function encodeReply(reply: ShadowReply): string {
  return `${JSON.stringify(reply)}\n`;
}

/** @throws FieldloopError `message_schema` */
export function decodeReply(line: string): ShadowReply {
  try {
    return replySchema.parse(JSON.parse(line));
  } catch (cause) {
    throw new FieldloopError("message_schema", "Read the candidate's answer: it is none", { cause });
  }
}
