import { z } from "zod";
import {
  countSchema,
  deviceIdSchema,
  modelNameSchema,
  sha256Schema,
  timeSchema,
  versionSchema,
} from "../names.js";

/**
 * Of the frames that both versions answered and whose truth is known (a person's label, else the application's feedback): who was right.
 * The two in the middle are the discordant pairs of McNemar's test (1947).
 */
export const shadowLabelledSchema = z.object({
  bothRight: countSchema,
  onlyActiveRight: countSchema,
  onlyCandidateRight: countSchema,
  bothWrong: countSchema,
});

/** What a shadow came to, for a gate. Of frames that agree only a few are sampled: `labelled` is about the disagreements first of all. */
export const shadowCountsSchema = z.object({
  frames: countSchema,
  compared: countSchema,
  disagreements: countSchema,
  labelled: shadowLabelledSchema,
});
export type ShadowCounts = z.output<typeof shadowCountsSchema>;

/** `GET /api/v1/deployments/{deployment}/shadow`. */
export const shadowViewSchema = shadowCountsSchema.extend({
  deployment: z.string(),
  device: deviceIdSchema,
  rollout: z.string().nullable(),
  model: modelNameSchema,
  version: versionSchema,
  against: z.object({ version: versionSchema, packageSha256: sha256Schema }),
  /** Begin of the first shadow of the deployment, and what was told last. */
  from: timeSchema,
  to: timeSchema,
  /** Not shown to the candidate, beyond its share of the processor. */
  skipped: countSchema,
  failed: countSchema,
  candidateMeanMs: z.number().nullable(),
  activeMeanMs: z.number().nullable(),
  /** Share of all cores' time that the candidate took, 0..1. */
  cpuShare: z.number(),
  /** What the active version said, what the candidate said, how often: the most frequent first. */
  classFlips: z.array(z.object({ active: z.string(), candidate: z.string(), count: countSchema })),
  /** Samples of disagreements, and how many of them have no label yet. */
  samples: z.object({ disagreements: countSchema, unlabelled: countSchema }),
});
export type ShadowView = z.output<typeof shadowViewSchema>;
