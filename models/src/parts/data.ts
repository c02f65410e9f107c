import {
  type CameraCondition,
  type CameraConditionName,
  createPartsScene,
  partClasses,
  partsFrameSize,
} from "@fieldloop/runtime/simulate";
import type { DataItem } from "@fieldloop/protocol";
import sharp from "sharp";
import { partsNormalization } from "./net.js";

/** Seeds of the drawn cameras: no two of these sets share a camera, so none shares a frame. */
export const partsSeeds = {
  train: 1000,
  validation: 5000,
  holdout: 6000,
  degraded: 7000,
  test: 8000,
} as const;

/** JPEG quality of stored frames and of what devices send. */
export const jpegQuality = 85;

/** Numbers of one frame in bytes. */
export const frameBytes = partsFrameSize * partsFrameSize * 3;

/** Labelled frames in memory: RGB, HWC, one after another. */
export interface PartsFrames {
  readonly pixels: Uint8Array;
  readonly labels: Uint8Array;
}

/** Which frames to draw: `devices` scenes from `seed` on, `perDevice` frames of each from `firstIndex` on. */
export interface PartsDraw {
  readonly seed: number;
  readonly devices: number;
  readonly perDevice: number;
  readonly firstIndex?: number;
  readonly condition: CameraCondition | CameraConditionName;
  /** Pass every frame, or every second one, through JPEG, as the way from device to server does. */
  readonly jpeg: "all" | "half" | "none";
}

/** Draws frames of several devices, device after device. The same draw gives the same bytes. */
export async function drawFrames(draw: PartsDraw): Promise<PartsFrames> {
  const count = draw.devices * draw.perDevice;
  const pixels = new Uint8Array(count * frameBytes);
  const labels = new Uint8Array(count);
  for (let device = 0; device < draw.devices; device++) {
    const scene = createPartsScene({
      seed: draw.seed + device,
      condition: draw.condition,
      firstIndex: draw.firstIndex ?? 0,
    });
    for (let index = 0; index < draw.perDevice; index++) {
      const frame = scene.next();
      const at = device * draw.perDevice + index;
      labels[at] = frame.truth.labelIndex;
      const throughJpeg = draw.jpeg === "all" || (draw.jpeg === "half" && index % 2 === 0);
      const shown = throughJpeg ? await decodeJpeg(await encodeJpeg(frame.pixels)) : frame.pixels;
      pixels.set(shown, at * frameBytes);
    }
  }
  return { pixels, labels };
}

/** One frame as a JPEG file with the standard tables. */
export async function encodeJpeg(pixels: Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
  const raw = { width: partsFrameSize, height: partsFrameSize, channels: 3 } as const;
  return new Uint8Array(await sharp(pixels, { raw }).jpeg({ quality: jpegQuality }).toBuffer());
}

/** RGB pixels of a JPEG file of our size. */
export async function decodeJpeg(bytes: Uint8Array): Promise<Uint8Array> {
  return sharp(bytes).removeAlpha().raw().toBuffer();
}

/** Frames as items of a package's data file. */
export async function toDataItems(frames: PartsFrames): Promise<DataItem[]> {
  const items: DataItem[] = [];
  for (let at = 0; at < frames.labels.length; at++) {
    const pixels = frames.pixels.subarray(at * frameBytes, (at + 1) * frameBytes);
    const label = partClasses[frames.labels[at]];
    items.push({ media: "image/jpeg", label, payload: await encodeJpeg(pixels) });
  }
  return items;
}

/** The inverse of {@link toDataItems}, but for what JPEG lost. */
export async function fromDataItems(items: readonly DataItem[]): Promise<PartsFrames> {
  const pixels = new Uint8Array(items.length * frameBytes);
  const labels = new Uint8Array(items.length);
  for (const [at, item] of items.entries()) {
    labels[at] = partClasses.findIndex((label) => label === item.label);
    pixels.set(await decodeJpeg(item.payload), at * frameBytes);
  }
  return { pixels, labels };
}

/** The frames at the given places. */
export function pickFrames(frames: PartsFrames, places: ArrayLike<number>): PartsFrames {
  const pixels = new Uint8Array(places.length * frameBytes);
  for (let at = 0; at < places.length; at++) {
    const from = places[at] * frameBytes;
    pixels.set(frames.pixels.subarray(from, from + frameBytes), at * frameBytes);
  }
  return { pixels, labels: Uint8Array.from(places, (place) => frames.labels[place]) };
}

/** Normalized value of each byte. */
export const normalized: Float32Array = Float32Array.from(
  { length: 256 },
  (_, value) => (value / 255 - partsNormalization.mean) / partsNormalization.std,
);

/** Pixels (HWC bytes) of one or more frames as the network's input rows (CHW floats, normalized). */
export function toRows(pixels: Uint8Array): Float32Array {
  const rows = new Float32Array(pixels.length);
  const plane = partsFrameSize * partsFrameSize;
  for (let start = 0; start < pixels.length; start += frameBytes) {
    for (let pixel = 0, from = start; pixel < plane; pixel++) {
      for (let channel = 0; channel < 3; channel++, from++) {
        rows[start + channel * plane + pixel] = normalized[pixels[from]];
      }
    }
  }
  return rows;
}
