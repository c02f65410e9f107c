import { z } from "zod";
import { LIMITS } from "../limits.js";
import { countSchema, modelNameSchema, sha256Schema, timeSchema, versionSchema } from "../names.js";
import { SIGNAL_NAMES } from "../signals.js";
import { deliveryShape } from "./delivery.js";

/** Why the sampler took it: its worth, plain chance (so that estimates stay unbiased), or a campaign. */
export const STRATA = ["worth", "random", "campaign"] as const;
export type Stratum = (typeof STRATA)[number];

/** A window is float32 little-endian samples; JSON is one row of a table: values by column name. */
export const MEDIA_TYPES = [
  "image/jpeg",
  "image/png",
  "application/x-fieldloop-window",
  "application/json",
] as const;
export type MediaType = (typeof MEDIA_TYPES)[number];

const boxSchema = z.object({
  x0: z.number(),
  y0: z.number(),
  x1: z.number(),
  y1: z.number(),
  class: z.int(),
  score: z.number(),
});

/** What else was known of the moment. */
export const sampleContextSchema = z.object({
  /** What the candidate of a deployment in shadow answered to the same frame; the signal `disagreement` says how far it lies. */
  shadow: z
    .object({
      deployment: z.string().min(1).max(64),
      version: versionSchema,
      label: z.string().max(LIMITS.labelLengthMax),
      confidence: z.number().min(0).max(1),
    })
    .optional(),
});
export type SampleContext = z.output<typeof sampleContextSchema>;

/** Everything about a captured input but its bytes. A window's payload is float32 little-endian. */
export const sampleMetadataSchema = z.object({
  /** The prediction that this sample shows: number `n` within the message's boot, or within `predictionBoot`. */
  predictionBoot: z.int().min(1),
  n: countSchema,
  time: timeSchema,
  model: modelNameSchema,
  version: versionSchema,
  packageSha256: sha256Schema,
  variant: z.string().max(32),
  stratum: z.enum(STRATA),
  /** Probability with which the sampler took a frame like this, 0..1: the weight in an estimate is its inverse. */
  probability: z.number().gt(0).max(1),
  /** What the sampler thought it worth, 0..1. */
  worth: z.number().min(0).max(1),
  class: z.int().min(-1).max(65_534),
  label: z.string().max(LIMITS.labelLengthMax),
  confidence: z.number().min(0).max(1),
  latencyMs: z.number().min(0),
  signals: z.partialRecord(z.enum(SIGNAL_NAMES), z.number()),
  boxes: z.array(boxSchema).max(LIMITS.detectionsMax).optional(),
  embedding: z
    .instanceof(Float32Array)
    .refine((v) => v.length <= LIMITS.embeddingLengthMax)
    .optional(),
  mediaType: z.enum(MEDIA_TYPES),
  bytes: z.int().min(1).max(LIMITS.sampleBytesMax),
  sha256: sha256Schema,
  source: z.string().max(200),
  context: sampleContextSchema.optional(),
});
export type SampleMetadata = z.output<typeof sampleMetadataSchema>;

/** One part of a sample; `metadata` travels with part 0. Parts follow each other in the stream. */
export const sampleSchema = z
  .object({
    ...deliveryShape,
    sample: z.string().regex(/^smp_[0-9a-z]{8,40}$/),
    part: z
      .int()
      .min(0)
      .max(LIMITS.samplePartsMax - 1),
    parts: z.int().min(1).max(LIMITS.samplePartsMax),
    metadata: sampleMetadataSchema.optional(),
    payload: z
      .instanceof(Uint8Array)
      .refine((bytes) => bytes.length >= 1 && bytes.length <= LIMITS.samplePartBytesMax),
  })
  .refine(
    (message) => message.part < message.parts && (message.part === 0) === (message.metadata !== undefined),
  );
export type SampleMessage = z.output<typeof sampleSchema>;
