import { FieldloopError, type ImageInput } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import { newElements } from "../package/tensor-bytes.js";
import { encodeElement } from "./elements.js";
import { anyColour, floatPlanes, grayPlane, isWordAligned, type PixelArray } from "./pixel-loops.js";

const PIXEL_TYPES = [
  "float32",
  "float64",
  "float16",
  "uint8",
  "int8",
  "uint16",
  "int16",
  "int32",
  "uint32",
] as const;
type PixelElementType = (typeof PIXEL_TYPES)[number];

/**
 * Turns 8-bit pixels of the input's size into its tensor: colour order, range, mean and std and layout in one pass over
 * a table of 256 values for each channel, so that no arithmetic is left in the loop.
 */
export class PixelPacker {
  readonly dims: readonly number[];
  readonly channels: 1 | 3;
  readonly #input: ImageInput;
  readonly #elementType: PixelElementType;
  readonly #tables: readonly PixelArray[];

  /** @throws FieldloopError `manifest_invalid` where mean or std do not fit the channels or the element type cannot hold pixels */
  constructor(input: ImageInput) {
    this.#input = input;
    this.#elementType = pixelElementType(input);
    this.channels = input.colour === "gray" ? 1 : 3;
    const { width, height } = input;
    this.dims =
      input.layout === "nchw" ? [1, this.channels, height, width] : [1, height, width, this.channels];
    this.#tables = Array.from({ length: this.channels }, (_, channel) => this.#table(channel));
  }

  /** A tensor of the right type and size for {@link pack}. */
  allocate(): Tensor {
    const count = this.#input.width * this.#input.height * this.channels;
    return { type: this.#elementType, dims: this.dims, data: newElements(this.#elementType, count) };
  }

  /**
   * Writes `pixels` (rows × columns × channels, RGB or gray, exactly the input's width and height) into `into`, a tensor
   * of {@link allocate}.
   * @returns brightness: the mean of the pixels over 255, of large colour images that of every fourth pixel
   */
  pack(pixels: Uint8Array, channels: 1 | 3, into: Tensor): number {
    const { width, height } = this.#input;
    const area = width * height;
    if (pixels.length !== area * channels) {
      throw new FieldloopError(
        "image_undecodable",
        `Read pixels: ${pixels.length} bytes, wanted ${width}×${height}×${channels} = ${area * channels}`,
      );
    }
    const data = into.data as PixelArray;
    if (this.channels === 1) return grayPlane(pixels, channels, data, this.#tables[0]!) / 255;
    const { layout, colour } = this.#input;
    const isReversed = colour === "bgr";
    const isPlanar = layout === "nchw";
    if (isPlanar && data instanceof Float32Array && channels === 3 && isWordAligned(pixels)) {
      return this.#packPlanes(pixels, data, area, isReversed) / 255;
    }
    const [plane, step] = isPlanar ? [area, 1] : [1, 3];
    return anyColour(pixels, channels, isReversed, data, this.#tables, plane!, step!) / 255;
  }

  #packPlanes(pixels: Uint8Array, data: Float32Array, area: number, isReversed: boolean): number {
    const [first, second, third] = this.#tables as [Float32Array, Float32Array, Float32Array];
    const top = data.subarray(0, area);
    const middle = data.subarray(area, 2 * area);
    const bottom = data.subarray(2 * area);
    return isReversed
      ? floatPlanes(pixels, bottom, middle, top, third, second, first)
      : floatPlanes(pixels, top, middle, bottom, first, second, third);
  }

  #table(channel: number): PixelArray {
    const mean = perChannel(this.#input, "mean", channel, this.channels);
    const std = perChannel(this.#input, "std", channel, this.channels);
    const scale = this.#input.range === "unit" ? 1 / 255 : 1;
    const table = newElements(this.#elementType, 256) as PixelArray;
    for (let value = 0; value < 256; value++) {
      table[value] = encodeElement(this.#elementType, (value * scale - mean) / std);
    }
    return table;
  }
}

function pixelElementType(input: ImageInput): PixelElementType {
  const type = PIXEL_TYPES.find((candidate) => candidate === input.elementType);
  if (type !== undefined) return type;
  throw new FieldloopError(
    "manifest_invalid",
    `Prepare image input "${input.name}": element type "${input.elementType}", wanted one of ${PIXEL_TYPES.join(", ")}`,
  );
}

function perChannel(input: ImageInput, field: "mean" | "std", channel: number, channels: number): number {
  const values = input[field];
  if (values.length === 1) return values[0]!;
  if (values.length === channels) return values[channel]!;
  throw new FieldloopError(
    "manifest_invalid",
    `Prepare image input "${input.name}": ${values.length} values of ${field}, wanted ${channels === 1 ? "1" : `1 or ${channels}`}`,
  );
}
