import { z } from "zod";
import { LIMITS } from "./limits.js";
import { labelSchema, modelNameSchema, sha256Schema, textSchema, versionSchema } from "./names.js";
import { SIGNAL_NAMES } from "./signals.js";

/**
 * `manifest.json` of a Package: everything that turns a frame into a prediction travels with the version.
 * The package's identity is the SHA-256 of the manifest's bytes; the manifest holds the SHA-256 of every other file.
 */

/** One path segment or two (`golden/1.bin`): letters, digits, `._-`; no leading dot, no `..`, no absolute path. */
const FILE_NAME = /^(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\/)?[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$/;
export const fileNameSchema = z
  .string()
  .regex(FILE_NAME)
  .refine((name) => !name.includes(".."));

const fileShape = {
  file: fileNameSchema,
  sha256: sha256Schema,
  bytes: z.int().min(0).max(LIMITS.packageFileBytesMax),
};
export const fileSchema = z.object(fileShape);

export const ELEMENT_TYPES = [
  "float32",
  "float64",
  "float16",
  "int8",
  "uint8",
  "int16",
  "uint16",
  "int32",
  "uint32",
  "int64",
  "uint64",
  "bool",
  "string",
] as const;
const elementTypeSchema = z.enum(ELEMENT_TYPES);
const tensorNameSchema = z.string().min(1).max(256);
const dimsSchema = z
  .array(
    z
      .int()
      .min(0)
      .max(1 << 30),
  )
  .max(8);

/** An image: decode → resize → colour order → `(value·range − mean) / std` → layout. */
const imageInputSchema = z.object({
  kind: z.literal("image"),
  name: tensorNameSchema,
  width: z.int().min(1).max(8192),
  height: z.int().min(1).max(8192),
  colour: z.enum(["rgb", "bgr", "gray"]),
  /** `stretch` ignores the aspect ratio, `letterbox` pads to it, `crop` cuts the centre. */
  resize: z.enum(["stretch", "letterbox", "crop"]),
  layout: z.enum(["nchw", "nhwc"]),
  /** Pixel values before mean and std: `unit` 0..1, `byte` 0..255. */
  range: z.enum(["unit", "byte"]),
  mean: z.array(z.number()).min(1).max(4).default([0]),
  std: z.array(z.number().positive()).min(1).max(4).default([1]),
  elementType: elementTypeSchema.default("float32"),
});

/** A window of a sampled signal: `length` samples of `channels`, advanced by `hop`. Tensor dims are [1, channels·length] or as declared. */
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
  sampleRateHz: z.number().positive(),
  /** `zscore` by the window's own mean and deviation; `fixed` by the declared ones. */
  normalization: z.enum(["none", "zscore", "fixed"]),
  mean: z.number().default(0),
  std: z.number().positive().default(1),
  dims: dimsSchema,
});

/** A tensor as it is, for models without declared pre-processing. A 0 in `dims` is the dynamic batch. */
const tensorInputSchema = z.object({
  kind: z.literal("tensor"),
  name: tensorNameSchema,
  elementType: elementTypeSchema,
  dims: dimsSchema,
});
export const inputSchema = z.discriminatedUnion("kind", [
  imageInputSchema,
  windowInputSchema,
  tensorInputSchema,
]);

const headShape = { name: z.string().min(1).max(64) };
const classificationHeadSchema = z.object({
  ...headShape,
  kind: z.literal("classification"),
  output: tensorNameSchema,
  labels: z.array(labelSchema).min(1).max(LIMITS.labelsMax),
  /** What the output holds: `logits`, or `probabilities` already. */
  values: z.enum(["logits", "probabilities"]),
  /** `softmax` for one label, `sigmoid` for several at once. */
  activation: z.enum(["softmax", "sigmoid"]).default("softmax"),
  /** Logits are divided by it before the activation (Guo et al. 2017). */
  temperature: z.number().positive().default(1),
});
export const DETECTION_FORMATS = ["ultraface"] as const;
const detectionHeadSchema = z.object({
  ...headShape,
  kind: z.literal("detection"),
  /** `ultraface`: `scores` [1, N, classes] with background first, `boxes` [1, N, 4] as corners in 0..1. */
  format: z.enum(DETECTION_FORMATS),
  boxes: tensorNameSchema,
  scores: tensorNameSchema,
  labels: z.array(labelSchema).min(1).max(LIMITS.labelsMax),
  scoreThreshold: z.number().min(0).max(1),
  /** Boxes of one class that overlap more than this are one (greedy non-maximum suppression). */
  iouThreshold: z.number().min(0).max(1),
  detectionsMax: z.int().min(1).max(LIMITS.detectionsMax).default(100),
});
const anomalyHeadSchema = z.object({
  ...headShape,
  kind: z.literal("anomaly"),
  /** Mean squared difference of the input and its reconstruction, over `threshold`: above 1 is anomalous. */
  method: z.literal("reconstruction"),
  output: tensorNameSchema,
  threshold: z.number().positive(),
  labels: z.tuple([labelSchema, labelSchema]).default(["normal", "anomalous"]),
});
const embeddingHeadSchema = z.object({
  ...headShape,
  kind: z.literal("embedding"),
  output: tensorNameSchema,
  length: z.int().min(1).max(LIMITS.embeddingLengthMax),
});
export const headSchema = z.discriminatedUnion("kind", [
  classificationHeadSchema,
  detectionHeadSchema,
  anomalyHeadSchema,
  embeddingHeadSchema,
]);

export const PRECISIONS = ["fp32", "fp16", "int8"] as const;
export const variantSchema = z.object({
  ...fileShape,
  name: z.string().regex(/^[a-z0-9][a-z0-9-]{0,31}$/),
  precision: z.enum(PRECISIONS),
  opset: z.int().min(1).max(100),
  /** Any one of these execution providers can run it. */
  executionProviders: z.array(z.string().max(32)).min(1).max(8),
  /** CPU flags it was made for; a device without them prefers another variant. */
  cpuFlags: z.array(z.string().max(32)).max(16).default([]),
  memoryBytesMax: z.int().positive().optional(),
});

const tensorFileSchema = z.object({
  ...fileShape,
  name: tensorNameSchema,
  elementType: elementTypeSchema,
  dims: dimsSchema,
});
const toleranceSchema = z.object({ absolute: z.number().min(0), relative: z.number().min(0) });
/** Raw little-endian tensors; |actual − expected| <= absolute + relative·|expected| element by element, per precision. */
export const goldenCaseSchema = z.object({
  name: z.string().min(1).max(64),
  inputs: z.array(tensorFileSchema).min(1).max(16),
  outputs: z.array(tensorFileSchema).min(1).max(16),
  tolerance: z.partialRecord(z.enum(PRECISIONS), toleranceSchema),
});

/** Training data that travels with the version: replay against forgetting, and a holdout for "old data no worse". */
const dataFileSchema = z.object({
  ...fileShape,
  count: z.int().min(1).max(100_000),
  /** CBOR `{ items: [{ media, label, payload }] }` over the protocol's CBOR subset, then raw DEFLATE. */
  format: z.literal("fieldloop-samples-1"),
});

export const lineageSchema = z.object({
  base: z.object({ model: modelNameSchema, version: versionSchema, sha256: sha256Schema }).nullable(),
  snapshot: sha256Schema.nullable(),
  trainer: textSchema,
  settings: z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()])),
  libraries: z.record(z.string(), z.string()),
  revision: z.string().max(64).nullable().default(null),
  metrics: z.record(z.string(), z.number()),
});

export const manifestSchema = z.object({
  schema: z.literal(1),
  model: modelNameSchema,
  version: versionSchema,
  created: z.iso.datetime(),
  task: z.enum(["classification", "detection", "anomaly", "embedding", "regression", "segmentation"]),
  description: textSchema.default(""),
  licence: z.string().min(1).max(64),
  inputs: z.array(inputSchema).min(1).max(16),
  heads: z.array(headSchema).min(1).max(16),
  /** The signals the device computes and sends, in this order. */
  signals: z.array(z.enum(SIGNAL_NAMES)).max(LIMITS.batchSignalsMax).default([]),
  variants: z.array(variantSchema).min(1).max(16),
  golden: z.array(goldenCaseSchema).max(32).default([]),
  baseline: fileSchema.optional(),
  replay: dataFileSchema.optional(),
  holdout: dataFileSchema.optional(),
  lineage: lineageSchema,
});

export type Manifest = z.output<typeof manifestSchema>;
export type ManifestInput = z.input<typeof manifestSchema>;
export type PackageFile = z.output<typeof fileSchema>;
export type Variant = z.output<typeof variantSchema>;
export type Head = z.output<typeof headSchema>;
export type ModelInput = z.output<typeof inputSchema>;
export type ImageInput = z.output<typeof imageInputSchema>;
export type WindowInput = z.output<typeof windowInputSchema>;
export type GoldenCase = z.output<typeof goldenCaseSchema>;
export type Lineage = z.output<typeof lineageSchema>;
export type Precision = (typeof PRECISIONS)[number];

/**
 * The files of a package, each once. `all` is what its folder holds beside `manifest.json`; `running` leaves out the training data, which
 * stays where models are made: a device never gets other devices' samples.
 */
export function manifestFiles(manifest: Manifest, purpose: "all" | "running" = "all"): PackageFile[] {
  const trainingData = purpose === "all" ? [manifest.replay, manifest.holdout] : [];
  const files = [
    ...manifest.variants,
    ...manifest.golden.flatMap((golden) => [...golden.inputs, ...golden.outputs]),
    ...[manifest.baseline, ...trainingData].filter((file) => file !== undefined),
  ];
  const byName = new Map<string, PackageFile>();
  for (const { file, sha256, bytes } of files) byName.set(file, { file, sha256, bytes });
  return [...byName.values()];
}
