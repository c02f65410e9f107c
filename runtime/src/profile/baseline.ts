import {
  FieldloopError,
  decodeCbor,
  encodeCbor,
  profileStatisticsSchema,
  type CborValue,
} from "@fieldloop/protocol";
import { z } from "zod";

/** Where training embeddings lie, for the novelty signal: `count` centroids of `length` values, each of unit length. */
const noveltyReferenceSchema = z
  .object({
    /** Row after row. */
    centroids: z.custom<Float32Array>((value) => value instanceof Float32Array),
    count: z.int().min(1).max(4_096),
    length: z.int().min(1).max(4_096),
    /** Median distance of validation embeddings to their nearest centroid: novelty 1. */
    median: z.number().positive(),
  })
  .refine((novelty) => novelty.centroids.length === novelty.count * novelty.length, {
    message: "centroids do not hold count · length values",
  });
export type NoveltyReference = z.output<typeof noveltyReferenceSchema>;

const baselineSchema = z.object({
  /** Statistics of the validation data, in the same form as a device's profile. */
  statistics: profileStatisticsSchema,
  novelty: noveltyReferenceSchema.optional(),
  /** Lowest and highest value of the first input over the training data, after pre-processing: the `range` signal. */
  inputRange: z.object({ min: z.number(), max: z.number() }).optional(),
});

/** `baseline.cbor` of a package: what healthy looks like. */
export type Baseline = z.output<typeof baselineSchema>;

export function encodeBaseline(baseline: Baseline): Uint8Array {
  return encodeCbor(baselineSchema.parse(baseline) as unknown as CborValue);
}

/** @throws FieldloopError a `cbor_*` code, or `manifest_invalid` where the file holds something else */
export function decodeBaseline(bytes: Uint8Array): Baseline {
  const parsed = baselineSchema.safeParse(decodeCbor(bytes));
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw new FieldloopError("manifest_invalid", `Read baseline: ${issue.path.join(".")}: ${issue.message}`, {
    cause: parsed.error,
  });
}
