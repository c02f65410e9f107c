import { z } from "zod";
import { LIMITS } from "../limits.js";
import { labelSchema } from "../names.js";
import { affineSchema, dimsSchema, elementTypeSchema, tensorNameSchema } from "./tensors.js";

/** An image: decode → resize → colour order → `(value·range − mean) / std` → layout. */
const imageInputSchema = z.object({
  kind: z.literal("image"),
  name: tensorNameSchema,
  width: z.int().min(1).max(8192),
  height: z.int().min(1).max(8192),
  colour: z.enum(["rgb", "bgr", "gray"]),
  /** `stretch` ignores the aspect ratio, `letterbox` pads to it, `crop` cuts the centre. */
  resize: z.enum(["stretch", "letterbox", "crop"]),
  /** How `letterbox` pads: with which pixel value, around the image or after it. Black and around it where nothing is said. */
  letterbox: z.object({ fill: z.int().min(0).max(255), align: z.enum(["centre", "start"]) }).optional(),
  layout: z.enum(["nchw", "nhwc"]),
  /** Pixel values before mean and std: `unit` 0..1, `byte` 0..255. */
  range: z.enum(["unit", "byte"]),
  mean: z.array(z.number()).min(1).max(4).default([0]),
  std: z.array(z.number().positive()).min(1).max(4).default([1]),
  elementType: elementTypeSchema.default("float32"),
});

/**
 * Features of a window of sound, computed frame by frame: `frameLength` samples under a window function every `frameHop`, zero-padded to
 * `fftLength`, real FFT, |X|^power; then mel filters, a logarithm, and for `mfcc` a DCT-II.
 */
export const featuresSchema = z.object({
  kind: z.enum(["spectrogram", "mel", "mfcc"]),
  frameLength: z.int().min(2).max(65_536),
  frameHop: z.int().min(1).max(65_536),
  /** A power of two, at least `frameLength`. */
  fftLength: z.int().min(2).max(65_536),
  window: z.enum(["hann", "hamming", "rectangular"]).default("hann"),
  /**
   * Where the samples of a frame lie in its transform: at its `start` with zeros behind them (TensorFlow, Kaldi), and so by default; or the
   * frame has `fftLength` samples and the window function its `centre` (torch.stft, librosa), which counts fewer frames.
   */
  alignment: z.enum(["start", "centre"]).optional(),
  /** `none` by default: whole frames only. Else half an `fftLength` of mirrored samples or zeros at both ends, so that frames are centred. */
  padding: z.enum(["none", "reflect", "zero"]).optional(),
  power: z.union([z.literal(1), z.literal(2)]).default(2),
  mel: z
    .object({
      bins: z.int().min(1).max(512),
      lowHz: z.number().min(0),
      highHz: z.number().positive(),
      /** Hertz to mel: `htk` 2595·log10(1 + f/700), `slaney` linear below 1 kHz. */
      scale: z.enum(["htk", "slaney"]).default("htk"),
      /** `slaney` gives each filter an area of one. */
      norm: z.enum(["none", "slaney"]).default("none"),
    })
    .optional(),
  log: z.enum(["none", "natural", "log10", "decibel"]).default("natural"),
  /** Values are raised to it before the logarithm. */
  floor: z.number().positive().default(1e-6),
  /** Added to each value before that. */
  logOffset: z.number().min(0).optional(),
  /** `decibel` only: of one, and so by default, or of the window's highest value. */
  reference: z.enum(["one", "highest"]).optional(),
  /** `decibel` only: values so many dB under the window's highest are raised to that (librosa's `top_db`). */
  rangeDb: z.number().positive().optional(),
  /** `mfcc` only: how many coefficients are kept. */
  coefficients: z.int().min(1).max(512).optional(),
  /** Last of all: `(value − mean) / std`. */
  mean: z.number().optional(),
  std: z.number().positive().optional(),
  layout: z.enum(["time-feature", "feature-time"]).default("time-feature"),
});

/**
 * A window of a sampled signal: `length` samples of `channels`, each window `hop` behind the one before, after the `context` samples that
 * lie before it (zeros at the start of a stream; the end of the window before where samples between the two are missing). Samples of several channels come interleaved from a source. Tensor dims are
 * [1, (context + length)·channels], or as declared; with `features`, [1, frames·features] or as declared.
 */
const windowInputSchema = z.object({
  kind: z.literal("window"),
  name: tensorNameSchema,
  length: z
    .int()
    .min(1)
    .max(1 << 20),
  channels: z.int().min(1).max(1024).default(1),
  hop: z
    .int()
    .min(1)
    .max(1 << 20),
  context: z
    .int()
    .min(0)
    .max(1 << 20)
    .default(0),
  sampleRateHz: z.number().positive(),
  /** Samples before anything else: `zscore` by the window's own mean and deviation; `fixed` by the declared ones. */
  normalization: z.enum(["none", "zscore", "fixed"]),
  /** Of `fixed`: one for all channels, or one a channel. */
  mean: z.union([z.number(), z.array(z.number()).min(1).max(1024)]).default(0),
  std: z.union([z.number().positive(), z.array(z.number().positive()).min(1).max(1024)]).default(1),
  /**
   * What lies together in the tensor: `time-channel` the channels of a sample [1, time, channels] (Keras), and so by default;
   * `channel-time` the samples of a channel [1, channels, time] (PyTorch).
   */
  layout: z.enum(["time-channel", "channel-time"]).optional(),
  features: featuresSchema.optional(),
  elementType: elementTypeSchema.default("float32"),
  /** Integer inputs only. */
  quantization: affineSchema.optional(),
  dims: dimsSchema,
});

const columnEncodingSchema = z.discriminatedUnion("kind", [
  /** `(value − mean) / std`; one number. */
  z.object({ kind: z.literal("number"), mean: z.number().default(0), std: z.number().positive().default(1) }),
  /** Position in `categories`; one number. A value that is not there becomes `unknown`, or is refused where there is none. */
  z.object({
    kind: z.literal("index"),
    categories: z.array(labelSchema).min(1).max(LIMITS.labelsMax),
    unknown: z.int().optional(),
  }),
  /** One number for each category, 1 where it is; all 0 for a value that is not there. */
  z.object({ kind: z.literal("one-hot"), categories: z.array(labelSchema).min(1).max(1_024) }),
  /** false 0, true 1; one number. */
  z.object({ kind: z.literal("boolean") }),
  /** The text itself, for string tensors. */
  z.object({ kind: z.literal("text") }),
]);

/** One row of a table: its columns, encoded and put one after the other. Tensor dims are [rows, numbers of all columns], or as declared. */
const tableInputSchema = z.object({
  kind: z.literal("table"),
  name: tensorNameSchema,
  columns: z
    .array(
      z.object({
        name: labelSchema,
        encoding: columnEncodingSchema,
        /** Stands in for a value that is missing; without it such a row is refused. */
        missing: z.union([z.number(), z.string().max(LIMITS.labelLengthMax), z.boolean()]).optional(),
      }),
    )
    .min(1)
    .max(1_024),
  elementType: elementTypeSchema.default("float32"),
  dims: dimsSchema,
});

/** A tensor as it is, for models without declared pre-processing. A 0 in `dims` is the dynamic batch. */
const tensorInputSchema = z.object({
  kind: z.literal("tensor"),
  name: tensorNameSchema,
  elementType: elementTypeSchema,
  dims: dimsSchema,
});

/** Recurrent state: what output `output` of the run before said, zeros at the start of a stream. A 0 in `dims` is the batch. */
const stateInputSchema = z.object({
  kind: z.literal("state"),
  name: tensorNameSchema,
  output: tensorNameSchema,
  elementType: elementTypeSchema.default("float32"),
  dims: dimsSchema,
});

/** The same in every run, e.g. a sample rate. `values` in row-major order; one value fills the tensor; int64 as whole numbers. */
const constantInputSchema = z.object({
  kind: z.literal("constant"),
  name: tensorNameSchema,
  elementType: elementTypeSchema,
  dims: dimsSchema,
  values: z
    .array(z.union([z.number(), z.boolean(), z.string().max(1_024)]))
    .min(1)
    .max(4_096),
});

export const inputSchema = z.discriminatedUnion("kind", [
  imageInputSchema,
  windowInputSchema,
  tableInputSchema,
  tensorInputSchema,
  stateInputSchema,
  constantInputSchema,
]);

export type ModelInput = z.output<typeof inputSchema>;
export type ImageInput = z.output<typeof imageInputSchema>;
export type WindowInput = z.output<typeof windowInputSchema>;
export type WindowFeatures = z.output<typeof featuresSchema>;
export type TableInput = z.output<typeof tableInputSchema>;
export type ColumnEncoding = z.output<typeof columnEncodingSchema>;
export type TensorInput = z.output<typeof tensorInputSchema>;
export type StateInput = z.output<typeof stateInputSchema>;
export type ConstantInput = z.output<typeof constantInputSchema>;
