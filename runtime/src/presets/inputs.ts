import { FieldloopError, type Affine, type ManifestInput } from "@fieldloop/protocol";
import type { TensorInfo } from "../backend.js";
import { describe, itemLength, knownDims, type PresetOptions } from "./preset.js";

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

/**
 * An image input from a tensor of rank 4 with 1 or 3 channels in second or last place; `undefined` where it is none.
 * @throws FieldloopError `invalid_argument` where width or height are open in the file and not given
 */
export function imageInput(
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
  const mean = options.mean ?? defaults.mean;
  const std = options.std ?? defaults.std;
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
    range: options.range ?? defaults.range,
    ...(mean === undefined ? {} : { mean: [...mean] }),
    ...(std === undefined ? {} : { std: [...std] }),
    elementType: info.type,
  };
}

/** A window input from a float tensor, or an integer one whose numbers are known, whose item has a known length. */
export function windowInput(
  info: TensorInfo,
  options: PresetOptions,
  quantization: { quantization?: Affine } = {},
): DraftInput | undefined {
  const values = itemLength(info);
  const channels = options.channels ?? 1;
  const readable = info.type === "float32" || quantization.quantization !== undefined;
  if (values === undefined || values % channels !== 0 || !readable) return undefined;
  const length = values / channels;
  return {
    kind: "window",
    name: info.name,
    length,
    channels,
    hop: options.hop ?? length,
    sampleRateHz: options.sampleRateHz ?? 1,
    normalization: options.normalization ?? "none",
    ...(options.mean === undefined ? {} : { mean: options.mean[0]! }),
    ...(options.std === undefined ? {} : { std: options.std[0]! }),
    elementType: info.type,
    ...quantization,
    dims: knownDims(info).map((size, at) => (at === 0 && size === 0 ? 1 : size)),
  };
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
