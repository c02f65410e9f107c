import type { Tensor } from "../backend.js";
import type { Frame } from "../input/frame.js";

/** Below it a clone finds its memory in a heap that is warm. */
const LENT_BYTES_MIN = 16 * 1024;
/** Of all buffers that wait: two frames of 1920×1080 in colour. */
const WAITING_BYTES_MAX = 16 * 1024 * 1024;

/** Frames whose large parts lie in memory that may move. */
export interface LentFrames {
  readonly frames: readonly Frame[];
  readonly buffers: ArrayBuffer[];
}

/**
 * Memory in which copies of frames go to a worker, and which comes back with its answer. A clone takes new memory for each frame, from the
 * system where it is large, and the first touch of each of its pages is a fault: the kernel's work for a frame of 150 kB took 0.8 ms in the
 * inference host (glibc gives memory back at once there) and that for 640×480 pixels 8 ms; in memory that was used before it is 0.05 ms.
 */
export class FrameMemory {
  /** The one that came back last is the last. */
  readonly #waiting: ArrayBuffer[] = [];
  #waitingBytes = 0;

  /** Copies of frames, the large parts in memory that belongs to them alone: move it, and {@link takeBack} what comes back. */
  lend(frames: readonly Frame[]): LentFrames {
    const buffers: ArrayBuffer[] = [];
    const copy = <View extends ArrayBufferView>(view: View): View => {
      if (view.byteLength < LENT_BYTES_MIN || view.byteLength > WAITING_BYTES_MAX) return view;
      const buffer = this.#take(view.byteLength);
      buffers.push(buffer);
      return copyInto(buffer, view);
    };
    return { frames: frames.map((frame) => copyFrame(frame, copy)), buffers };
  }

  /** Buffers that nobody reads or writes any more. */
  takeBack(buffers: readonly ArrayBuffer[]): void {
    for (const buffer of buffers) {
      this.#waiting.push(buffer);
      this.#waitingBytes += buffer.byteLength;
    }
    // What waits longest is of a size that does not come any more.
    while (this.#waitingBytes > WAITING_BYTES_MAX) this.#waitingBytes -= this.#waiting.shift()!.byteLength;
  }

  /** The smallest that is large enough; a new one is larger than asked for, as no two files of a camera have one size. */
  #take(bytes: number): ArrayBuffer {
    let best: ArrayBuffer | undefined;
    for (const buffer of this.#waiting) {
      if (buffer.byteLength >= bytes && (!best || buffer.byteLength < best.byteLength)) best = buffer;
    }
    if (!best) return new ArrayBuffer(2 ** Math.ceil(Math.log2(bytes)));
    this.#waiting.splice(this.#waiting.indexOf(best), 1);
    this.#waitingBytes -= best.byteLength;
    return best;
  }
}

type Copy = <View extends ArrayBufferView>(view: View) => View;

function copyFrame(frame: Frame, copy: Copy): Frame {
  switch (frame.kind) {
    case "encoded":
      return { ...frame, bytes: copy(frame.bytes) };
    case "pixels":
      return { ...frame, data: copy(frame.data) };
    case "window":
      return { ...frame, samples: copy(frame.samples) };
    case "row":
      return frame;
    case "tensors": {
      const feeds: Record<string, Tensor> = {};
      for (const [name, tensor] of Object.entries(frame.feeds)) {
        const { data } = tensor;
        feeds[name] = ArrayBuffer.isView(data) ? { ...tensor, data: copy(data) } : tensor;
      }
      return { ...frame, feeds };
    }
  }
}

/** A view of the same kind; a `Buffer` becomes the plain array that a clone of it is. */
function copyInto<View extends ArrayBufferView>(buffer: ArrayBuffer, view: View): View {
  const { byteOffset, byteLength } = view;
  new Uint8Array(buffer).set(new Uint8Array(view.buffer, byteOffset, byteLength));
  const { BYTES_PER_ELEMENT: bytes = 1 } = view as { BYTES_PER_ELEMENT?: number };
  const kind = view instanceof Uint8Array ? Uint8Array : view.constructor;
  const Kind = kind as new (buffer: ArrayBuffer, offset: number, length: number) => View;
  return new Kind(buffer, 0, byteLength / bytes);
}
