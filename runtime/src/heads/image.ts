import type { Head } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import type { ImageResult } from "./result.js";
import { named, outputInvalid, realValues } from "./values.js";

export type ImageHead = Extract<Head, { kind: "image" }>;

/**
 * Pixels from an output [1, 3 or 1, rows, columns] (`nchw`) or [1, rows, columns, 3 or 1]: `(raw · std + mean) / range`, clipped to 0..255;
 * red first whatever the order of the model. What is not a number becomes black.
 * @throws FieldloopError `model_output_invalid` where the output has another shape
 */
export function readImage(head: ImageHead, output: Tensor): ImageResult {
  const values = realValues(output, head.quantization);
  const channels = head.colour === "gray" ? 1 : 3;
  const planar = head.layout === "nchw";
  const dims = output.dims.length === 4 ? output.dims : [1, ...output.dims];
  const [height = 0, width = 0] = planar ? dims.slice(2) : dims.slice(1);
  const found = planar ? dims[1] : dims[3];
  if (dims.length !== 4 || dims[0] !== 1 || found !== channels) {
    const shape = planar ? `[1, ${channels}, rows, columns]` : `[1, rows, columns, ${channels}]`;
    throw outputInvalid(head, `output ${named(head.output, output)}, wanted ${shape}`);
  }
  // Rounds and clips on its own, and takes NaN for 0.
  const pixels = new Uint8ClampedArray(width * height * channels);
  const [pixelStep, channelStep] = planar ? [1, width * height] : [channels, 1];
  for (let channel = 0; channel < channels; channel++) {
    const source = head.colour === "bgr" ? 2 - channel : channel;
    const range = head.range === "unit" ? 255 : 1;
    const scale = (head.std[source] ?? head.std[0]!) * range;
    const offset = (head.mean[source] ?? head.mean[0]!) * range;
    for (
      let to = channel, from = source * channelStep;
      to < pixels.length;
      to += channels, from += pixelStep
    ) {
      pixels[to] = values[from]! * scale + offset;
    }
  }
  const data = new Uint8Array(pixels.buffer);
  return { kind: "image", name: head.name, data, width, height, channels };
}
