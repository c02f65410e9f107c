import { FieldloopError, type ImageInput } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";

type PixelArray = Float32Array | Float64Array | Uint8Array | Int8Array | Int32Array;
type PixelElementType = "float32" | "float64" | "uint8" | "int8" | "int32";

const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  uint8: Uint8Array,
  int8: Int8Array,
  int32: Int32Array,
} as const;
const INTEGER_BOUNDS = { uint8: [0, 255], int8: [-128, 127], int32: [-(2 ** 31), 2 ** 31 - 1] } as const;

/** Luma of ITU-R BT.601 in 8-bit fixed point, as decoders of JPEG use it. */
const LUMA = { red: 77, green: 150, blue: 29 } as const;

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

  /** An array of the right type and length for {@link pack}. */
  allocate(): PixelArray {
    return new ARRAYS[this.#elementType](this.#input.width * this.#input.height * this.channels);
  }

  /**
   * Writes `pixels` (rows × columns × channels, RGB or gray, exactly the input's width and height) into `into`.
   * @returns the tensor over `into`, and the mean of the pixels over 255
   */
  pack(pixels: Uint8Array, channels: 1 | 3, into: PixelArray): { tensor: Tensor; brightness: number } {
    const { width, height } = this.#input;
    const area = width * height;
    if (pixels.length !== area * channels) {
      throw new FieldloopError(
        "image_undecodable",
        `Read pixels: ${pixels.length} bytes, wanted ${width}×${height}×${channels} = ${area * channels}`,
      );
    }
    const sum =
      this.channels === 1 ? this.#packGray(pixels, channels, into) : this.#packColour(pixels, channels, into);
    return {
      tensor: { type: this.#elementType, dims: this.dims, data: into },
      brightness: sum / (area * this.channels * 255),
    };
  }

  #packGray(pixels: Uint8Array, channels: 1 | 3, into: PixelArray): number {
    const table = this.#tables[0]!;
    let sum = 0;
    if (channels === 1) {
      for (let at = 0; at < pixels.length; at++) {
        const value = pixels[at]!;
        sum += value;
        into[at] = table[value]!;
      }
      return sum;
    }
    for (let at = 0, from = 0; from < pixels.length; at++, from += 3) {
      const red = pixels[from]! * LUMA.red;
      const value = (red + pixels[from + 1]! * LUMA.green + pixels[from + 2]! * LUMA.blue + 128) >> 8;
      sum += value;
      into[at] = table[value]!;
    }
    return sum;
  }

  #packColour(pixels: Uint8Array, channels: 1 | 3, into: PixelArray): number {
    const area = this.#input.width * this.#input.height;
    const planar = this.#input.layout === "nchw";
    const step = planar ? 1 : 3;
    const plane = planar ? area : 1;
    const [first, second, third] = this.#tables as [PixelArray, PixelArray, PixelArray];
    const green = channels === 1 ? 0 : 1;
    const last = channels === 1 ? 0 : 2;
    const firstFrom = this.#input.colour === "bgr" ? last : 0;
    const thirdFrom = this.#input.colour === "bgr" ? 0 : last;
    let sum = 0;
    for (let pixel = 0, from = 0, at = 0; pixel < area; pixel++, from += channels, at += step) {
      const a = pixels[from + firstFrom]!;
      const b = pixels[from + green]!;
      const c = pixels[from + thirdFrom]!;
      sum += a + b + c;
      into[at] = first[a]!;
      into[at + plane] = second[b]!;
      into[at + 2 * plane] = third[c]!;
    }
    return sum;
  }

  #table(channel: number): PixelArray {
    const mean = perChannel(this.#input, "mean", channel, this.channels);
    const std = perChannel(this.#input, "std", channel, this.channels);
    const scale = this.#input.range === "unit" ? 1 / 255 : 1;
    const type = this.#elementType;
    const table = new ARRAYS[type](256);
    for (let value = 0; value < 256; value++) {
      const real = (value * scale - mean) / std;
      table[value] =
        type === "float32" || type === "float64" ? real : clip(Math.round(real), INTEGER_BOUNDS[type]);
    }
    return table;
  }
}

function pixelElementType(input: ImageInput): PixelElementType {
  const type = input.elementType;
  if (type in ARRAYS) return type as PixelElementType;
  throw new FieldloopError(
    "manifest_invalid",
    `Prepare image input "${input.name}": element type "${type}", wanted one of ${Object.keys(ARRAYS).join(", ")}`,
  );
}

function perChannel(input: ImageInput, field: "mean" | "std", channel: number, channels: number): number {
  const values = input[field];
  if (values.length === 1) return values[0]!;
  if (values.length === channels) return values[channel]!;
  throw new FieldloopError(
    "manifest_invalid",
    `Prepare image input "${input.name}": ${values.length} values of ${field}, wanted 1 or ${channels}`,
  );
}

function clip(value: number, [min, max]: readonly [number, number]): number {
  return Math.min(Math.max(value, min), max);
}
