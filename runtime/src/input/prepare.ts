import { FieldloopError, type ImageInput, type Manifest, type ModelInput } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import { elementCountOf } from "../package/tensor-bytes.js";
import {
  IDENTITY_GEOMETRY,
  type EncodedFrame,
  type Frame,
  type Geometry,
  type PixelFrame,
  type PreparedFrame,
} from "./frame.js";
import { PixelPacker } from "./pixels.js";
import { windowTensor } from "./window.js";

/** Pixels of exactly the input's width and height. */
export interface SizedPixels {
  readonly data: Uint8Array;
  readonly channels: 1 | 3;
  readonly geometry: Geometry;
}

/** Decodes and resizes for one input: the only part of preparation that depends on the platform. */
export type ImageSizer = (input: ImageInput, frame: EncodedFrame | PixelFrame) => Promise<SizedPixels>;

type PixelBuffer = ReturnType<PixelPacker["allocate"]>;

/** Turns frames into feeds as the manifest declares. Pixels that have the right size already take no detour. */
export class FramePreparer {
  readonly #inputs: readonly ModelInput[];
  readonly #sizeImage: ImageSizer;
  readonly #packer: PixelPacker | undefined;
  #spare: PixelBuffer | undefined;

  constructor(manifest: Pick<Manifest, "inputs">, sizeImage: ImageSizer) {
    this.#inputs = manifest.inputs;
    this.#sizeImage = sizeImage;
    const image = manifest.inputs.find((input) => input.kind === "image");
    this.#packer = image === undefined ? undefined : new PixelPacker(image);
  }

  /**
   * The feeds of a frame. Hand them back with {@link recycle} once the run is over, or keep them.
   * @throws FieldloopError `invalid_argument` where the frame's kind does not fit the inputs, and the codes of images and windows
   */
  async prepare(frame: Frame): Promise<PreparedFrame> {
    if (frame.kind === "tensors") {
      for (const input of this.#inputs) checkFeed(input, frame.feeds[input.name]);
      return { feeds: frame.feeds, geometry: IDENTITY_GEOMETRY };
    }
    const input = this.#inputs[0]!;
    if (this.#inputs.length > 1) {
      throw new FieldloopError(
        "invalid_argument",
        `Prepare frame: the model has ${this.#inputs.length} inputs, wanted a frame of tensors, got "${frame.kind}"`,
      );
    }
    if (frame.kind === "window" && input.kind === "window") {
      const tensor = windowTensor(input, frame.samples);
      return { feeds: { [input.name]: tensor }, geometry: IDENTITY_GEOMETRY };
    }
    if ((frame.kind === "encoded" || frame.kind === "pixels") && input.kind === "image") {
      return this.#prepareImage(input, frame);
    }
    throw new FieldloopError(
      "invalid_argument",
      `Prepare frame: a frame of kind "${frame.kind}" for input "${input.name}" of kind "${input.kind}"`,
    );
  }

  /** Lets the next frame reuse the memory of this one. Only after the run that read it. */
  recycle(prepared: PreparedFrame): void {
    const input = this.#inputs[0]!;
    if (input.kind !== "image" || this.#packer === undefined) return;
    this.#spare = prepared.feeds[input.name]?.data as PixelBuffer | undefined;
  }

  async #prepareImage(input: ImageInput, frame: EncodedFrame | PixelFrame): Promise<PreparedFrame> {
    const fits = frame.kind === "pixels" && frame.width === input.width && frame.height === input.height;
    const sized = fits ? { ...frame, geometry: IDENTITY_GEOMETRY } : await this.#sizeImage(input, frame);
    const packer = this.#packer!;
    const buffer = this.#spare ?? packer.allocate();
    this.#spare = undefined;
    const { tensor, brightness } = packer.pack(sized.data, sized.channels, buffer);
    return { feeds: { [input.name]: tensor }, geometry: sized.geometry, brightness };
  }
}

/** Zeros in the shape of the inputs, to warm a session. A dynamic dimension becomes 1. */
export function zeroFeeds(inputs: readonly ModelInput[]): Record<string, Tensor> | undefined {
  const feeds: Record<string, Tensor> = {};
  for (const input of inputs) {
    const tensor = zeroTensor(input);
    if (tensor === undefined) return undefined;
    feeds[input.name] = tensor;
  }
  return feeds;
}

const ZEROS = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
} as const;

function zeroTensor(input: ModelInput): Tensor | undefined {
  switch (input.kind) {
    case "image": {
      const packer = new PixelPacker(input);
      const blank = new Uint8Array(input.width * input.height * packer.channels);
      return packer.pack(blank, packer.channels, packer.allocate()).tensor;
    }
    case "window":
      return windowTensor(input, new Float32Array(input.length * input.channels));
    case "table":
    case "constant":
      return undefined;
    case "state":
    case "tensor": {
      if (input.elementType === "string") return undefined;
      const dims = input.dims.map((size) => (size === 0 ? 1 : size));
      return { type: input.elementType, dims, data: new ZEROS[input.elementType](elementCountOf(dims)) };
    }
  }
}

/** A fed tensor must fit what a `tensor` input declares; the inputs with pre-processing are held to it by the session. */
function checkFeed(input: ModelInput, tensor: Tensor | undefined): void {
  if (tensor === undefined) {
    throw new FieldloopError("invalid_argument", `Prepare frame: no tensor for input "${input.name}"`);
  }
  if (tensor.data.length !== elementCountOf(tensor.dims)) {
    throw new FieldloopError(
      "invalid_argument",
      `Prepare frame: input "${input.name}" holds ${tensor.data.length} values, its dims [${tensor.dims.join(", ")}] want ${elementCountOf(tensor.dims)}`,
    );
  }
  if (input.kind !== "tensor") return;
  const dimsFit =
    tensor.dims.length === input.dims.length &&
    tensor.dims.every((size, at) => input.dims[at] === 0 || input.dims[at] === size);
  if (!dimsFit || tensor.type !== input.elementType) {
    throw new FieldloopError(
      "invalid_argument",
      `Prepare frame: input "${input.name}" is ${tensor.type}[${tensor.dims.join(", ")}], wanted ${input.elementType}[${input.dims.join(", ")}] (0 is any size)`,
    );
  }
}
