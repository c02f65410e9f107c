import { FieldloopError, type Affine, type ManifestInput } from "@fieldloop/protocol";
import type { TensorInfo } from "../backend.js";
import {
  describe,
  itemLength,
  knownDims,
  quantizationOf,
  type ModelSignature,
  type PresetOptions,
} from "./preset.js";

type DraftInput = ManifestInput["inputs"][number];
type DraftImage = Extract<DraftInput, { kind: "image" }>;

/** What a preset knows of its images; options win over it. */
export interface ImageDefaults {
  readonly colour?: "rgb" | "bgr" | "gray";
  readonly range: "unit" | "byte";
  readonly mean?: readonly number[];
  readonly std?: readonly number[];
  readonly resize?: "stretch" | "letterbox" | "crop";
  readonly letterbox?: NonNullable<DraftImage["letterbox"]>;
  /** Width and height in pixels, where the file leaves them open and they are not given. */
  readonly size?: number;
}

/** How pixels become the real numbers that a model was trained with. */
type Scaling = Pick<DraftImage, "range" | "mean" | "std">;

/** An integer input without a scale takes the pixels themselves: what a preset divides by is for floats. */
export function scalingOf(
  signature: ModelSignature,
  info: TensorInfo,
  defaults: ImageDefaults,
  options: PresetOptions,
): Scaling {
  const raw = isInteger(info) && affineOf(signature, info, options) === undefined;
  const { range, mean, std } = raw ? ({ range: "byte" } as ImageDefaults) : defaults;
  return {
    range: options.range ?? range,
    ...((options.mean ?? mean) ? { mean: [...(options.mean ?? mean)!] } : {}),
    ...((options.std ?? std) ? { std: [...(options.std ?? std)!] } : {}),
  };
}

function affineOf(signature: ModelSignature, info: TensorInfo, options: PresetOptions): Affine | undefined {
  return quantizationOf(signature, info, options.inputQuantization).quantization;
}

function isInteger({ type }: TensorInfo): boolean {
  return !type.startsWith("float");
}

/** `real / scale + zero point` as one division, which is all that is done to a pixel. */
function quantized({ range, mean = [0], std = [1] }: Scaling, { scale, zeroPoint }: Affine): Scaling {
  const count = Math.max(mean.length, std.length);
  const at = (values: readonly number[], channel: number) => values[values.length === 1 ? 0 : channel]!;
  const channels = Array.from({ length: count }, (_, channel) => channel);
  return {
    range,
    mean: channels.map((channel) => at(mean, channel) - zeroPoint * scale * at(std, channel)),
    std: channels.map((channel) => scale * at(std, channel)),
  };
}

/**
 * An image input from a tensor of rank 4 with 1 or 3 channels in second or last place; `undefined` where it is none.
 * @throws FieldloopError `invalid_argument` where width or height are open in the file and not given
 */
export function imageInput(
  signature: ModelSignature,
  info: TensorInfo,
  defaults: ImageDefaults,
  options: PresetOptions,
): DraftImage | undefined {
  const dims = knownDims(info);
  if (dims.length !== 4 || dims[0]! > 1) return undefined;
  const layout = isChannels(dims[1]!) ? "nchw" : isChannels(dims[3]!) ? "nhwc" : undefined;
  if (layout === undefined) return undefined;
  const [channels, rows, columns] =
    layout === "nchw" ? [dims[1], dims[2], dims[3]] : [dims[3], dims[1], dims[2]];
  const gray = channels === 1;
  const scaling = scalingOf(signature, info, defaults, options);
  const affine = affineOf(signature, info, options);
  const resize = options.resize ?? defaults.resize ?? "stretch";
  return {
    kind: "image",
    name: info.name,
    width: sizeOf("width", columns!, options.width, info, defaults.size),
    height: sizeOf("height", rows!, options.height, info, defaults.size),
    colour: gray ? "gray" : (options.colour ?? defaults.colour ?? "rgb"),
    resize,
    ...(resize === "letterbox" && defaults.letterbox ? { letterbox: defaults.letterbox } : {}),
    layout,
    ...(affine === undefined ? scaling : quantized(scaling, affine)),
    elementType: info.type,
  };
}

/**
 * A window input from a float tensor, or an integer one whose numbers are known, whose item has a known length.
 * @throws FieldloopError `invalid_argument` where the shape leaves open which axis is time
 */
export function windowInput(
  info: TensorInfo,
  options: PresetOptions,
  quantization: { quantization?: Affine } = {},
): DraftInput | undefined {
  const values = itemLength(info);
  const readable = info.type === "float32" || quantization.quantization !== undefined;
  if (values === undefined || !readable) return undefined;
  const layout = options.windowLayout ?? layoutOf(info, options.channels);
  const channels = options.channels ?? 1;
  if (values % channels !== 0) return undefined;
  const length = values / channels;
  const mean = valueOrList(options.mean);
  const std = valueOrList(options.std);
  // Declared numbers that were not applied would be a trap.
  const usual = mean === undefined && std === undefined ? "none" : "fixed";
  return {
    kind: "window",
    name: info.name,
    length,
    channels,
    hop: options.hop ?? length,
    sampleRateHz: options.sampleRateHz ?? 1,
    normalization: options.normalization ?? usual,
    ...(mean === undefined ? {} : { mean }),
    ...(std === undefined ? {} : { std }),
    ...(layout === "channel-time" ? { layout } : {}),
    elementType: info.type,
    ...quantization,
    dims: knownDims(info).map((size, at) => (at === 0 && size === 0 ? 1 : size)),
  };
}

function valueOrList(values: readonly number[] | undefined): number | number[] | undefined {
  return values?.length === 1 ? values[0]! : values && [...values];
}

/**
 * Which of two axes is time: PyTorch's signals are [1, channels, time], those of Keras [1, time, channels]. Only the number of channels
 * tells, and only where it is the size of one axis alone.
 */
function layoutOf(
  info: TensorInfo,
  channels: number | undefined,
): "time-channel" | "channel-time" | undefined {
  const axes = knownDims(info)
    .slice(1)
    .filter((size) => size !== 1);
  const [first, second, ...more] = axes;
  if (first === undefined || second === undefined || more.length > 0 || channels === 1) return undefined;
  if (channels === undefined) {
    throw new FieldloopError(
      "invalid_argument",
      `Read input ${describe(info)}: which axis is time? Give the values of one sample, --channels ${Math.min(first, second)} or ${Math.max(first, second)}`,
    );
  }
  if (first === channels && second === channels) {
    throw new FieldloopError(
      "invalid_argument",
      `Read input ${describe(info)}: which axis is time? Give --window-layout channel-time or time-channel`,
    );
  }
  if (first !== channels && second !== channels) {
    throw new FieldloopError(
      "invalid_argument",
      `Read input ${describe(info)}: no axis has ${channels} channels; --channels ${Math.min(first, second)} or ${Math.max(first, second)} fits, or 1 where the tensor is one run of numbers`,
    );
  }
  return first === channels ? "channel-time" : "time-channel";
}

/** The tensor as it is. */
export function tensorInput(info: TensorInfo): DraftInput {
  return { kind: "tensor", name: info.name, elementType: info.type, dims: knownDims(info) };
}

function isChannels(size: number): boolean {
  return size === 1 || size === 3;
}

function sizeOf(
  field: "width" | "height",
  known: number,
  given: number | undefined,
  info: TensorInfo,
  usual?: number,
): number {
  if (known > 0 && given !== undefined && given !== known) {
    throw new FieldloopError(
      "invalid_argument",
      `Read input ${describe(info)}: ${field} ${given} was given, the file has ${known}`,
    );
  }
  const size = known > 0 ? known : (given ?? usual);
  if (size === undefined) {
    throw new FieldloopError(
      "invalid_argument",
      `Read input ${describe(info)}: the file leaves ${field} open, give it`,
    );
  }
  return size;
}
