import { z } from "zod";
import { LIMITS } from "../limits.js";
import { deviceClassSchema, modelNameSchema, sha256Schema, textSchema, versionSchema } from "../names.js";
import { SIGNAL_NAMES } from "../signals.js";
import { ROOT_NODE } from "./deciding.js";
import { fileSchema, fileShape, type PackageFile } from "./files.js";
import { headSchema } from "./heads.js";
import { inputSchema } from "./inputs.js";
import { dimsSchema, elementTypeSchema, tensorNameSchema } from "./tensors.js";

/**
 * `manifest.json` of a Package: everything that turns a frame into a prediction travels with the version.
 * The package's identity is the SHA-256 of the manifest's bytes; the manifest holds the SHA-256 of every other file.
 */

/** `int4`: weights of 4 bits, computing in floats. */
export const PRECISIONS = ["fp32", "fp16", "int8", "int4"] as const;
/** What a version may cost where it runs: held at its self test, and the latency in its probation as well. */
const budgetShape = {
  /** What its session adds to the memory of the process. */
  memoryBytesMax: z.int().positive().optional(),
  /** Median of one run on the golden inputs, all parts of a pipeline together. */
  latencyMsMax: z.number().positive().optional(),
};
export const variantSchema = z.object({
  ...fileShape,
  name: z.string().regex(/^[a-z0-9][a-z0-9-]{0,31}$/),
  precision: z.enum(PRECISIONS),
  opset: z.int().min(1).max(100),
  /** Of the ONNX file; not checked before it is there where nobody says. */
  irVersion: z.int().min(1).max(1_000).optional(),
  /** Any one of these execution providers can run it. */
  executionProviders: z.array(z.string().max(32)).min(1).max(8),
  /** CPU flags it was made for; a device without them prefers another variant. */
  cpuFlags: z.array(z.string().max(32)).max(16).default([]),
  /** CPU flags of which it must have one: without, the numbers would be wrong. */
  cpuFlagsRequired: z.array(z.string().max(32)).min(1).max(16).optional(),
  ...budgetShape,
  /** Budgets of single device classes, where they differ. */
  budgets: z.record(deviceClassSchema, z.object(budgetShape)).optional(),
});

/** A name within the package. */
const nodeNameSchema = z.string().regex(/^[a-z0-9][a-z0-9-]{0,31}$/);
export const furtherNodeNameSchema = nodeNameSchema.refine((name) => name !== ROOT_NODE);

/** Where a node's frames come from. */
export const nodeSourceSchema = z.discriminatedUnion("kind", [
  /** The source's frame itself. */
  z.object({ kind: z.literal("frame") }),
  /** Tensors that another node computed: `tensors[input of this node] = output of that one`. A backbone runs once for all its heads. */
  z.object({
    kind: z.literal("tensors"),
    node: nodeNameSchema.default(ROOT_NODE),
    tensors: z.record(tensorNameSchema, tensorNameSchema),
  }),
  /** The part of the frame inside each box that a detection head of another node found. */
  z.object({
    kind: z.literal("crop"),
    node: nodeNameSchema.default(ROOT_NODE),
    head: z.string().min(1).max(64),
    /** Only boxes of these labels; all by default. */
    labels: z.array(z.string().max(LIMITS.labelLengthMax)).max(LIMITS.labelsMax).optional(),
    scoreThreshold: z.number().min(0).max(1).default(0),
    /** Best boxes first. */
    cropsMax: z.int().min(1).max(LIMITS.detectionsMax).default(16),
    /** Share of the box's size that is added on each side. */
    margin: z.number().min(0).max(2).default(0),
  }),
]);

/**
 * When a node runs: the decision of a head of another node (of a detection: of one of its boxes) has one of these labels and is at
 * least this sure. A node that takes tensors or crops of the very node it asks is asked for each of its results by itself.
 */
export const nodeConditionSchema = z.object({
  node: nodeNameSchema.default(ROOT_NODE),
  head: z.string().min(1).max(64),
  /** Any by default. */
  labels: z.array(z.string().max(LIMITS.labelLengthMax)).min(1).max(LIMITS.labelsMax).optional(),
  confidenceMin: z.number().min(0).max(1).default(0),
});

/**
 * A further model of a pipeline, versioned by itself: a new version of the package may change one node and leave the files of the others
 * as they are, and then only that node's files travel.
 */
const nodeSchema = z.object({
  name: furtherNodeNameSchema,
  model: modelNameSchema,
  version: versionSchema,
  from: nodeSourceSchema,
  /** Without it the node runs for every frame. */
  when: nodeConditionSchema.optional(),
  inputs: z.array(inputSchema).min(1).max(16),
  heads: z.array(headSchema).max(16),
  variants: z.array(variantSchema).min(1).max(16),
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
  /** Of the pipeline; the root by default. */
  node: nodeNameSchema.optional(),
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

export const TASKS = [
  "classification",
  "detection",
  "segmentation",
  "keypoints",
  "regression",
  "anomaly",
  "embedding",
  "image",
  "pipeline",
] as const;
export type Task = (typeof TASKS)[number];

/** Inputs, heads and variants are those of the root; a package without further `nodes` is a plain model. */
export const manifestSchema = z.object({
  schema: z.literal(1),
  model: modelNameSchema,
  version: versionSchema,
  created: z.iso.datetime(),
  task: z.enum(TASKS),
  description: textSchema.default(""),
  licence: z.string().min(1).max(64),
  inputs: z.array(inputSchema).min(1).max(16),
  /** May be empty where further nodes have heads. */
  heads: z.array(headSchema).max(16),
  nodes: z.array(nodeSchema).max(LIMITS.pipelineNodesMax).default([]),
  /** What the root is by itself, where the package is a pipeline: `model` and `version` are those of the whole. */
  root: z.object({ model: modelNameSchema, version: versionSchema }).optional(),
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
export type Variant = z.output<typeof variantSchema>;
export type PipelineNode = z.output<typeof nodeSchema>;
export type NodeSource = z.output<typeof nodeSourceSchema>;
export type NodeCondition = z.output<typeof nodeConditionSchema>;
export type GoldenCase = z.output<typeof goldenCaseSchema>;
export type Lineage = z.output<typeof lineageSchema>;
export type Precision = (typeof PRECISIONS)[number];

/** The models of a package: every variant of it and of its pipeline's nodes. */
export function modelFiles(manifest: Pick<Manifest, "variants" | "nodes">): PackageFile[] {
  return [...manifest.variants, ...manifest.nodes.flatMap((node) => node.variants)];
}

/**
 * The files of a package, each once. `all` is what its folder holds beside `manifest.json`; `running` leaves out the training data, which
 * stays where models are made: a device never gets other devices' samples.
 */
export function manifestFiles(manifest: Manifest, purpose: "all" | "running" = "all"): PackageFile[] {
  const trainingData = purpose === "all" ? [manifest.replay, manifest.holdout] : [];
  const files = [
    ...modelFiles(manifest),
    ...manifest.golden.flatMap((golden) => [...golden.inputs, ...golden.outputs]),
    ...[manifest.baseline, ...trainingData].filter((file) => file !== undefined),
  ];
  const byName = new Map<string, PackageFile>();
  for (const { file, sha256, bytes } of files) byName.set(file, { file, sha256, bytes });
  return [...byName.values()];
}
