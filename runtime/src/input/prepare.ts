import { FieldloopError, type ImageInput, type Manifest, type ModelInput } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import { elementCountOf } from "../package/tensor-bytes.js";
import { zeroTensor } from "./elements.js";
import { constantTensor, zeroState } from "./fixed.js";
import {
  IDENTITY_GEOMETRY,
  type EncodedFrame,
  type Frame,
  type Geometry,
  type PixelFrame,
  type PreparedFrame,
  type TensorFrame,
} from "./frame.js";
import { PixelPacker } from "./pixels.js";
import { TableEncoder } from "./table.js";
import { WindowPreparer } from "./window.js";

/** Pixels of exactly the input's width and height. */
export interface SizedPixels {
  readonly data: Uint8Array;
  readonly channels: 1 | 3;
  readonly geometry: Geometry;
}

/** Decodes and resizes for one input: the only part of preparation that depends on the platform. */
export type ImageSizer = (input: ImageInput, frame: EncodedFrame | PixelFrame) => Promise<SizedPixels>;

/** What {@link FramePreparer.prepare} reads of a stream. */
export interface StreamCarry {
  /** Samples before the window, by input name. */
  readonly contexts: ReadonlyMap<string, Float32Array>;
  /** Recurrent state, by input name. */
  readonly states: ReadonlyMap<string, Tensor>;
}

/** Kinds of inputs and frames in the words of an error. */
const TAKES: Readonly<Record<ModelInput["kind"], string>> = {
  image: "an image",
  window: "a window of samples",
  table: "a row of a table",
  tensor: "tensors",
  state: "what the run before left",
  constant: "nothing",
};
const IS: Readonly<Record<Frame["kind"], string>> = {
  encoded: "an image",
  pixels: "an image",
  window: "a window of samples",
  row: "a row of a table",
  tensors: "tensors",
};

const NEW_STREAM: StreamCarry = { contexts: new Map(), states: new Map() };

/** The input that a source's frame feeds: the first that is neither state nor constant. */
export function frameInput(inputs: readonly ModelInput[]): ModelInput | undefined {
  return inputs.find(isFed);
}

function isFed(input: ModelInput): boolean {
  return input.kind !== "state" && input.kind !== "constant";
}

/**
 * Turns frames into feeds as the manifest declares. A frame feeds the one input that is neither state nor constant (a row
 * all of them, where they are tables); state comes from the frame's stream. Pixels that have the right size already take
 * no detour.
 */
export class FramePreparer {
  readonly #inputs: readonly ModelInput[];
  readonly #fed: readonly ModelInput[];
  readonly #sizeImage: ImageSizer;
  readonly #packer: PixelPacker | undefined;
  readonly #windows: WindowPreparer | undefined;
  readonly #tables: readonly (readonly [string, TableEncoder])[];
  /** Constants, and the state of a new stream. */
  readonly #fixed: ReadonlyMap<string, Tensor>;
  readonly #hasFixed: boolean;
  /** Tensor of the frame before, for the next one. */
  #spare: Tensor | undefined;

  /** @throws FieldloopError `manifest_invalid` where an input contradicts itself */
  constructor(manifest: Pick<Manifest, "inputs">, sizeImage: ImageSizer) {
    this.#inputs = manifest.inputs;
    this.#fed = manifest.inputs.filter(isFed);
    this.#sizeImage = sizeImage;
    const image = manifest.inputs.find((input) => input.kind === "image");
    this.#packer = image === undefined ? undefined : new PixelPacker(image);
    const window = manifest.inputs.find((input) => input.kind === "window");
    this.#windows = window === undefined ? undefined : new WindowPreparer(window);
    this.#tables = manifest.inputs.flatMap((input) =>
      input.kind === "table" ? [[input.name, new TableEncoder(input)] as const] : [],
    );
    this.#fixed = fixedTensors(manifest.inputs);
    this.#hasFixed = this.#fixed.size > 0;
  }

  /** Whether a frame's feeds hold samples of the frame before it. */
  get hasContext(): boolean {
    return this.#fed.some((input) => input.kind === "window" && input.context > 0);
  }

  /**
   * The feeds of a frame. Hand them back with {@link recycle} once the run is over, or keep them. The stream is only read:
   * whoever runs the feeds stores what the next frame needs.
   * @throws FieldloopError `invalid_argument` where the frame's kind does not fit the inputs, and the codes of images, windows
   * and rows
   */
  async prepare(frame: Frame, stream: StreamCarry = NEW_STREAM): Promise<PreparedFrame> {
    if (frame.kind === "tensors") return this.#prepareTensors(frame, stream);
    const input = this.#fed[0];
    if (input === undefined || (this.#fed.length > 1 && this.#tables.length !== this.#fed.length)) {
      throw new FieldloopError(
        "invalid_argument",
        `Prepare frame: the model has ${this.#fed.length} inputs to be fed, wanted a frame of tensors, got "${frame.kind}"`,
      );
    }
    if (frame.kind === "window" && input.kind === "window") {
      return this.#prepareWindow(input.name, frame.samples, stream);
    }
    if (frame.kind === "row" && input.kind === "table") {
      const feeds: Record<string, Tensor> = {};
      for (const [name, encoder] of this.#tables) feeds[name] = encoder.encode(frame.values);
      return { feeds: this.#withFixed(feeds, stream), geometry: IDENTITY_GEOMETRY };
    }
    if ((frame.kind === "encoded" || frame.kind === "pixels") && input.kind === "image") {
      return this.#prepareImage(input, frame, stream);
    }
    throw new FieldloopError(
      "invalid_argument",
      `Prepare frame: input "${input.name}" takes ${TAKES[input.kind]}, this is ${IS[frame.kind]}`,
    );
  }

  /** Lets the next frame reuse the memory of this one. Only after the run that read it. */
  recycle(prepared: PreparedFrame): void {
    if (prepared.reusable !== undefined) this.#spare = prepared.reusable;
  }

  #prepareTensors(frame: TensorFrame, stream: StreamCarry): PreparedFrame {
    for (const input of this.#inputs) {
      const tensor = frame.feeds[input.name];
      if (tensor === undefined && !isFed(input)) continue;
      checkFeed(input, tensor);
    }
    return { feeds: this.#withFixed(frame.feeds, stream), geometry: IDENTITY_GEOMETRY };
  }

  #prepareWindow(name: string, samples: Float32Array, stream: StreamCarry): PreparedFrame {
    const { tensor, context } = this.#windows!.prepare(samples, stream.contexts.get(name));
    return {
      feeds: this.#withFixed({ [name]: tensor }, stream),
      geometry: IDENTITY_GEOMETRY,
      ...(context === undefined ? {} : { contexts: new Map([[name, context]]) }),
    };
  }

  async #prepareImage(
    input: ImageInput,
    frame: EncodedFrame | PixelFrame,
    stream: StreamCarry,
  ): Promise<PreparedFrame> {
    const fits = frame.kind === "pixels" && frame.width === input.width && frame.height === input.height;
    const sized = fits ? { ...frame, geometry: IDENTITY_GEOMETRY } : await this.#sizeImage(input, frame);
    const packer = this.#packer!;
    const tensor = this.#spare ?? packer.allocate();
    this.#spare = undefined;
    const brightness = packer.pack(sized.data, sized.channels, tensor);
    const feeds = this.#withFixed({ [input.name]: tensor }, stream);
    return { feeds, geometry: sized.geometry, brightness, reusable: tensor };
  }

  /** Adds state and constants that the frame does not bring itself. */
  #withFixed(feeds: Readonly<Record<string, Tensor>>, stream: StreamCarry): Readonly<Record<string, Tensor>> {
    if (!this.#hasFixed) return feeds;
    const all: Record<string, Tensor> = { ...feeds };
    for (const [name, tensor] of this.#fixed) all[name] ??= stream.states.get(name) ?? tensor;
    return all;
  }
}

function fixedTensors(inputs: readonly ModelInput[]): ReadonlyMap<string, Tensor> {
  const fixed = new Map<string, Tensor>();
  for (const input of inputs) {
    if (input.kind === "state") fixed.set(input.name, zeroState(input));
    if (input.kind === "constant") fixed.set(input.name, constantTensor(input));
  }
  return fixed;
}

/**
 * Zeros in the shape of the inputs and the values of the constants, to warm a session. A dynamic dimension becomes 1.
 * @returns undefined where an input is text, which has no zero
 */
export function zeroFeeds(inputs: readonly ModelInput[]): Record<string, Tensor> | undefined {
  const feeds: Record<string, Tensor> = {};
  for (const input of inputs) {
    const tensor = zeroFeed(input);
    if (tensor === undefined) return undefined;
    feeds[input.name] = tensor;
  }
  return feeds;
}

function zeroFeed(input: ModelInput): Tensor | undefined {
  if (input.elementType === "string") return undefined;
  switch (input.kind) {
    case "image": {
      const packer = new PixelPacker(input);
      const tensor = packer.allocate();
      packer.pack(new Uint8Array(input.width * input.height * packer.channels), packer.channels, tensor);
      return tensor;
    }
    case "window":
      return new WindowPreparer(input).prepare(new Float32Array(input.length * input.channels)).tensor;
    case "table":
      return zeroTensor(input.name, input.elementType, new TableEncoder(input).dims);
    case "constant":
      return constantTensor(input);
    case "state":
      return zeroState(input);
    case "tensor":
      return zeroTensor(input.name, input.elementType, input.dims);
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
  if (input.kind !== "tensor" && input.kind !== "state") return;
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
