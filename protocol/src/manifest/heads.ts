import { z } from "zod";
import { LIMITS } from "../limits.js";
import { labelSchema } from "../names.js";
import { affineSchema, tensorNameSchema } from "./tensors.js";

const headShape = { name: z.string().min(1).max(64) };
const labelsShape = { labels: z.array(labelSchema).min(1).max(LIMITS.labelsMax) };
/** Integer outputs only: what their values stand for. */
const quantizationShape = { quantization: affineSchema.optional() };

const classificationHeadSchema = z.object({
  ...headShape,
  ...labelsShape,
  ...quantizationShape,
  kind: z.literal("classification"),
  output: tensorNameSchema,
  /** What the output holds: `logits`, or `probabilities` already. */
  values: z.enum(["logits", "probabilities"]),
  /** `softmax` for one label, `sigmoid` for several at once. */
  activation: z.enum(["softmax", "sigmoid"]).default("softmax"),
  /** Logits are divided by it before the activation (Guo et al. 2017). */
  temperature: z.number().positive().default(1),
  /** `sigmoid` only: labels at least this likely are set; where none is, the prediction is "none of them". Without it the likeliest is. */
  threshold: z.number().min(0).max(1).optional(),
});

/**
 * Well-known output layouts of detectors; N boxes, C classes.
 * - `ultraface`: `scores` [1, N, 1 + C] with the background first, `boxes` [1, N, 4] as corners in 0..1
 * - `ssd`: as `ultraface`, but `boxes` are offsets (cx, cy, w, h) to the `anchors`; without a background column where `scores` has C
 * - `fastestdet`: `boxes` [1, 5 + C, rows, columns]: objectness, tanh offset, sigmoid size, classes
 * - `yolov5`: `boxes` [1, N, 5 + C], centre and size in pixels of the input, objectness, classes (also v3, v4, v7 with decoded boxes)
 * - `yolox`: as `yolov5`, but raw offsets to a grid over `strides`
 * - `yolov8`: `boxes` [1, 4 + C, N], centre and size in pixels, no objectness (also v9, v11 and v12)
 * - `yolov10`: `boxes` [1, N, 6]: corners in pixels, score, class; needs no suppression
 * - `rtdetr`: `boxes` [1, N, 4] as centre and size in 0..1, `scores` [1, N, C] logits; or one output [1, N, 4 + C]; needs no suppression
 * - `listed`: `boxes` [1, N, 4] or [N, 4] as corners in pixels, `scores` and `classes` [1, N] or [N]; chosen by the model itself
 */
export const DETECTION_FORMATS = [
  "ultraface",
  "ssd",
  "fastestdet",
  "yolov5",
  "yolox",
  "yolov8",
  "yolov10",
  "rtdetr",
  "listed",
] as const;

/** Prior boxes of single-shot detectors, made level by level: for each cell each size, centred. */
const anchorsSchema = z.object({
  levels: z
    .array(
      z.object({
        stride: z.int().min(1).max(1_024),
        /** Widths and heights in pixels of the input. */
        sizes: z
          .array(z.tuple([z.number().positive(), z.number().positive()]))
          .min(1)
          .max(32),
      }),
    )
    .min(1)
    .max(16),
  /** Of centre and of size (SSD, Liu et al. 2016, section 2.2). */
  variances: z.tuple([z.number().positive(), z.number().positive()]).default([0.1, 0.2]),
  /** Centres of cells: `stride` pixels apart from half a stride on (RetinaFace), or spread `even`ly over the input (UltraFace). */
  centres: z.enum(["stride", "even"]).default("stride"),
  /** Centres and sizes beyond the input are cut to it. */
  clip: z.boolean().default(false),
  /** Corners, not centre and size, are what the model gives already. */
  decoded: z.boolean().default(false),
});
export type Anchors = z.output<typeof anchorsSchema>;

const detectionHeadSchema = z.object({
  ...headShape,
  ...labelsShape,
  ...quantizationShape,
  kind: z.literal("detection"),
  format: z.enum(DETECTION_FORMATS),
  /** The output with the boxes; formats of one output hold the scores in it as well. */
  boxes: tensorNameSchema,
  scores: tensorNameSchema.optional(),
  /** `listed` only: the output with the number of each box's class, that of the first label, and the order of the corners (xyxy by default). */
  classes: tensorNameSchema.optional(),
  firstClass: z.int().min(0).max(LIMITS.labelsMax).optional(),
  corners: z.enum(["xyxy", "yxyx"]).optional(),
  /** What the scores are; `logits` pass a softmax (`ssd`) or a sigmoid (all others). By default `rtdetr` with two outputs has logits, the rest probabilities. */
  values: z.enum(["logits", "probabilities"]).optional(),
  /** `ssd` with logits only: how they become probabilities. */
  activation: z.enum(["softmax", "sigmoid"]).optional(),
  /** Where an export has its boxes in pixels of the input, or in 0..1, against the custom of its format; nothing to offsets (`ssd`, `yolox`, `fastestdet`). */
  units: z.enum(["pixel", "unit"]).optional(),
  anchors: anchorsSchema.optional(),
  /** Pixels of the image behind the model; by default those of its image input. For heads of a shared backbone. */
  inputSize: z.object({ width: z.int().min(1).max(8192), height: z.int().min(1).max(8192) }).optional(),
  /** `yolox` only: pixels of a cell of each grid. */
  strides: z.array(z.int().min(1).max(1_024)).min(1).max(8).default([8, 16, 32]),
  scoreThreshold: z.number().min(0).max(1),
  /** Boxes that overlap more than this are one (greedy non-maximum suppression). */
  iouThreshold: z.number().min(0).max(1),
  /** Among boxes of one class, among all, or not at all. */
  suppression: z.enum(["class", "all", "none"]).default("class"),
  detectionsMax: z.int().min(1).max(LIMITS.detectionsMax).default(100),
  /** Points of each box beside it in the same output (pose models): x, y and, where `scored`, a visibility. */
  keypoints: z
    .object({
      labels: z.array(labelSchema).min(1).max(256),
      scored: z.boolean().default(true),
      /** `ssd` only: the output with the points. */
      output: tensorNameSchema.optional(),
    })
    .optional(),
  /** Instance masks: `prototypes` [1, K, rows, columns] and K coefficients after the classes of each box (YOLACT, Bolya et al. 2019). */
  masks: z.object({ prototypes: tensorNameSchema, count: z.int().min(1).max(256) }).optional(),
});

const segmentationHeadSchema = z.object({
  ...headShape,
  ...labelsShape,
  ...quantizationShape,
  kind: z.literal("segmentation"),
  /** [1, C, rows, columns] or, `nhwc`, [1, rows, columns, C]; with one label a sigmoid; `labels`: [1, rows, columns] class numbers already. */
  output: tensorNameSchema,
  values: z.enum(["logits", "probabilities", "labels"]),
  layout: z.enum(["nchw", "nhwc"]).default("nchw"),
  /** Label that is not a finding; the decision is the largest of the others. */
  background: labelSchema.optional(),
});

const keypointsHeadSchema = z.object({
  ...headShape,
  ...labelsShape,
  ...quantizationShape,
  kind: z.literal("keypoints"),
  /** `heatmap` [1, K, rows, columns]; `coordinates` [1, K, 2 or 3] or [1, K·2 or 3], the third a score. */
  output: tensorNameSchema,
  format: z.enum(["heatmap", "coordinates"]),
  /** Of `coordinates`: 0..1 of the input, or its pixels. */
  units: z.enum(["unit", "pixel"]).default("unit"),
  /** Values a point has: 2, or 3 with its score. */
  values: z.union([z.literal(2), z.literal(3)]).default(2),
  /** Which of the two coordinates comes first; `xy` by default. */
  order: z.enum(["xy", "yx"]).optional(),
  scoreThreshold: z.number().min(0).max(1).default(0.3),
});

const regressionHeadSchema = z.object({
  ...headShape,
  ...quantizationShape,
  kind: z.literal("regression"),
  output: tensorNameSchema,
  /** One a value; `value = raw · scale + offset`. */
  targets: z
    .array(
      z.object({
        name: labelSchema,
        unit: z.string().max(32).default(""),
        scale: z.number().default(1),
        offset: z.number().default(0),
        /** What is to be expected; the `value` signal is the place in it, and a value outside raises `range`. */
        min: z.number().optional(),
        max: z.number().optional(),
      }),
    )
    .min(1)
    .max(1_024),
});

const anomalyHeadSchema = z.object({
  ...headShape,
  ...quantizationShape,
  kind: z.literal("anomaly"),
  /**
   * - `reconstruction`: mean squared difference of the input and its reconstruction
   * - `embedding`: distance of the embedding from the training data, by the package's baseline
   * - `score`: the output is the score
   * Each over `threshold`: above 1 is anomalous.
   */
  method: z.enum(["reconstruction", "embedding", "score"]),
  output: tensorNameSchema,
  threshold: z.number().positive(),
  labels: z.tuple([labelSchema, labelSchema]).default(["normal", "anomalous"]),
});

const embeddingHeadSchema = z.object({
  ...headShape,
  ...quantizationShape,
  kind: z.literal("embedding"),
  output: tensorNameSchema,
  length: z.int().min(1).max(LIMITS.embeddingLengthMax),
});

/** Image to image. `value = (raw · std + mean) / range`, clipped to a pixel. */
const imageHeadSchema = z.object({
  ...headShape,
  ...quantizationShape,
  kind: z.literal("image"),
  output: tensorNameSchema,
  colour: z.enum(["rgb", "bgr", "gray"]),
  layout: z.enum(["nchw", "nhwc"]),
  range: z.enum(["unit", "byte"]),
  mean: z.array(z.number()).min(1).max(4).default([0]),
  std: z.array(z.number().positive()).min(1).max(4).default([1]),
});

export const headSchema = z.discriminatedUnion("kind", [
  classificationHeadSchema,
  detectionHeadSchema,
  segmentationHeadSchema,
  keypointsHeadSchema,
  regressionHeadSchema,
  anomalyHeadSchema,
  embeddingHeadSchema,
  imageHeadSchema,
]);
export type Head = z.output<typeof headSchema>;
