import { ANCHOR_PRESETS } from "./detect-anchors.js";
import { LISTED_PRESETS } from "./detect-listed.js";
import { detection, imageOf, isRows, isTable, type HeadPart } from "./detect-parts.js";
import type { ImageDefaults } from "./inputs.js";
import { COCO_KEYPOINTS, COCO_LABELS } from "./labels.js";
import {
  knownDims,
  labelsFor,
  unsuitable,
  type ModelSignature,
  type Preset,
  type PresetOptions,
  type PresetResult,
} from "./preset.js";

/** The grey that these nets were trained with around their images. */
const YOLO_FILL = 114;
const YOLO_IMAGE: ImageDefaults = {
  range: "unit",
  colour: "rgb",
  resize: "letterbox",
  letterbox: { fill: YOLO_FILL, align: "centre" },
  size: 640,
};
const YOLOX_IMAGE: ImageDefaults = {
  range: "byte",
  colour: "bgr",
  resize: "letterbox",
  letterbox: { fill: YOLO_FILL, align: "start" },
  size: 640,
};
const FASTESTDET_IMAGE: ImageDefaults = { range: "unit", colour: "bgr", size: 352 };
const RTDETR_IMAGE: ImageDefaults = { range: "unit", colour: "rgb", size: 640 };
export const DETECT_PRESETS = {
  ...ANCHOR_PRESETS,
  ...LISTED_PRESETS,
  fastestdet: {
    title: "FastestDet: BGR 0..1, one grid (COCO labels by default)",
    recognizes: isOneGrid,
    build: buildFastestdet,
  },
  yolov5: {
    title: "YOLOv3, v4, v5, v7: decoded rows with objectness, RGB 0..1 in a letterbox",
    recognizes: (signature) => gridBoxes(signature, 3),
    build: (signature, options) => buildRowsWithObjectness("yolov5", signature, options),
  },
  yolox: {
    title: "YOLOX without decoding in the graph: BGR 0..255 in a letterbox",
    recognizes: (signature) =>
      gridBoxes(signature, 1) && tableOf(signature)!.rows > tableOf(signature)!.columns,
    build: (signature, options) => buildRowsWithObjectness("yolox", signature, options),
  },
  yolov8: {
    title: "YOLOv8, v9, v11, v12: columns without objectness, RGB 0..1 in a letterbox",
    recognizes: (signature) => isTransposed(signature) && !isPose(signature) && !hasPrototypes(signature),
    build: (signature, options) => buildYolov8("yolov8", signature, options),
  },
  "yolov8-pose": {
    title: "YOLOv8-pose and its followers: boxes with points (17 of a person by default)",
    recognizes: (signature) => isTransposed(signature) && isPose(signature),
    build: (signature, options) => buildYolov8("yolov8-pose", signature, options),
  },
  "yolov8-seg": {
    title: "YOLOv8-seg and its followers: boxes with instance masks",
    recognizes: (signature) => hasPrototypes(signature) && tableOf(signature) !== undefined,
    build: (signature, options) => buildYolov8("yolov8-seg", signature, options),
  },
  yolov10: {
    title: "YOLOv10: rows of corners, score and class, chosen by the model itself",
    recognizes: (signature) => signature.outputs.length === 1 && isRows(signature.outputs[0]!, 6),
    build: buildYolov10,
  },
  rtdetr: {
    title: "RT-DETR: queries with boxes in 0..1, no suppression",
    recognizes: (signature) => queryOutputs(signature) !== undefined,
    build: buildRtdetr,
  },
} as const satisfies Record<string, Preset>;

function buildFastestdet(signature: ModelSignature, options: PresetOptions): PresetResult {
  const name = "fastestdet";
  const output = signature.outputs.find((info) => knownDims(info).length === 4);
  const columns = output === undefined ? 0 : knownDims(output)[1]!;
  const image = imageOf(name, signature, FASTESTDET_IMAGE, options);
  if (output === undefined || columns < 6 || image.width % 16 !== 0) {
    throw unsuitable(name, signature, "one image → [1, 5 + labels, rows, columns]");
  }
  const head: HeadPart = {
    format: "fastestdet",
    boxes: output.name,
    labels: labelsFor(columns - 5, options, COCO_LABELS),
  };
  return detection("objects", signature, options, image, head, { score: 0.65, iou: 0.45 });
}

function buildRowsWithObjectness(
  name: "yolov5" | "yolox",
  signature: ModelSignature,
  options: PresetOptions,
): PresetResult {
  const image = imageOf(name, signature, name === "yolox" ? YOLOX_IMAGE : YOLO_IMAGE, options);
  const table = tableOf(signature);
  const masks = masksOf(signature);
  const classes = (table?.columns ?? 0) - 5 - (masks?.count ?? 0);
  if (table === undefined || classes < 1) {
    throw unsuitable(name, signature, "one image → [1, N, 5 + labels]");
  }
  const strides = options.strides ?? [8, 16, 32];
  const cells = strides.reduce(
    (sum, stride) => sum + Math.floor(image.width / stride) * Math.floor(image.height / stride),
    0,
  );
  if (name === "yolox" && table.rows !== 0 && table.rows !== cells) {
    throw unsuitable(name, signature, `${cells} boxes, one for each cell of strides ${strides.join(", ")}`);
  }
  const head: HeadPart = {
    format: name,
    boxes: table.info.name,
    labels: labelsFor(classes, options, COCO_LABELS),
    ...(name === "yolox" ? { strides: [...strides] } : {}),
    ...(masks === undefined ? {} : { masks }),
    ...(options.values === undefined ? {} : { values: options.values }),
  };
  return detection("objects", signature, options, image, head, { score: 0.35, iou: 0.45 });
}

function buildYolov8(
  name: "yolov8" | "yolov8-pose" | "yolov8-seg",
  signature: ModelSignature,
  options: PresetOptions,
): PresetResult {
  const image = imageOf(name, signature, YOLO_IMAGE, options);
  const table = tableOf(signature);
  const masks = name === "yolov8-seg" ? masksOf(signature) : undefined;
  const points = name === "yolov8-pose" ? [...(options.keypointLabels ?? COCO_KEYPOINTS)] : [];
  const extra = points.length * 3 + (masks?.count ?? 0);
  const classes = (table?.columns ?? 0) - 4 - extra;
  if (table === undefined || classes < 1 || (name === "yolov8-seg" && masks === undefined)) {
    const more = name === "yolov8-seg" ? " and prototypes [1, K, rows, columns]" : "";
    throw unsuitable(
      name,
      signature,
      `one image → [1, 4 + labels${extra > 0 ? ` + ${extra}` : ""}, N]${more}`,
    );
  }
  const usual = name === "yolov8-pose" ? ["person"] : COCO_LABELS;
  const head: HeadPart = {
    format: "yolov8",
    boxes: table.info.name,
    labels: labelsFor(classes, options, usual),
    ...(points.length === 0 ? {} : { keypoints: { labels: points } }),
    ...(masks === undefined ? {} : { masks }),
    ...(options.values === undefined ? {} : { values: options.values }),
  };
  return detection("objects", signature, options, image, head, { score: 0.35, iou: 0.45 });
}

function buildYolov10(signature: ModelSignature, options: PresetOptions): PresetResult {
  const name = "yolov10";
  const image = imageOf(name, signature, YOLO_IMAGE, options);
  const output = signature.outputs.find((info) => isRows(info, 6));
  if (output === undefined) throw unsuitable(name, signature, "one image → [1, N, 6]");
  const head: HeadPart = {
    format: "yolov10",
    boxes: output.name,
    // The file does not tell how many classes there are.
    labels: [...(options.labels ?? COCO_LABELS)],
    suppression: "none",
  };
  return detection("objects", signature, options, image, head, { score: 0.35, iou: 0.45 });
}

function buildRtdetr(signature: ModelSignature, options: PresetOptions): PresetResult {
  const name = "rtdetr";
  const image = imageOf(name, signature, RTDETR_IMAGE, options);
  const found = queryOutputs(signature);
  if (found === undefined) {
    throw unsuitable(
      name,
      signature,
      "[1, N, labels] scores and [1, N, 4] boxes, or one output [1, N, 4 + labels]",
    );
  }
  const { boxes, scores, classes } = found;
  const operator = signature.computedBy?.[(scores ?? boxes).name];
  const usual = scores === undefined || operator === "Sigmoid" ? "probabilities" : "logits";
  const head: HeadPart = {
    format: "rtdetr",
    boxes: boxes.name,
    ...(scores === undefined ? {} : { scores: scores.name }),
    labels: labelsFor(classes, options, COCO_LABELS),
    values: options.values ?? usual,
    suppression: "none",
  };
  return detection("objects", signature, options, image, head, { score: 0.5, iou: 0.7 });
}

/** Queries of a transformer: a few hundred, fewer than the cells of any grid. */
const QUERIES_MAX = 1_000;

function queryOutputs(signature: ModelSignature) {
  const tables = signature.outputs.filter((info) => isTable(info) && knownDims(info)[1]! <= QUERIES_MAX);
  const boxes = tables.find((info) => isRows(info, 4));
  const scores = tables.find((info) => info !== boxes && knownDims(info)[2]! > 2);
  if (boxes !== undefined && scores !== undefined) return { boxes, scores, classes: knownDims(scores)[2]! };
  const [only] = tables;
  const [, rows = 0, columns = 0] = only === undefined ? [] : knownDims(only);
  // Rows with six columns are corners, score and class: another family.
  if (signature.outputs.length === 1 && only !== undefined && rows > columns && columns > 6) {
    return { boxes: only, scores: undefined, classes: columns - 4 };
  }
  return undefined;
}

/** The output of rank 3 whose longer side are the boxes. */
function tableOf(signature: ModelSignature) {
  const info = signature.outputs.find((candidate) => isTable(candidate));
  if (info === undefined) return undefined;
  const [, a = 0, b = 0] = knownDims(info);
  const transposed = b === 0 || (a !== 0 && a < b);
  return { info, columns: transposed ? a : b, rows: transposed ? b : a, transposed };
}

function isTransposed(signature: ModelSignature): boolean {
  const table = tableOf(signature);
  return table !== undefined && table.transposed && table.columns > 4;
}

function isPose(signature: ModelSignature): boolean {
  return tableOf(signature)?.columns === 5 + COCO_KEYPOINTS.length * 3;
}

function hasPrototypes(signature: ModelSignature): boolean {
  return masksOf(signature) !== undefined;
}

function masksOf(signature: ModelSignature): { prototypes: string; count: number } | undefined {
  const info = signature.outputs.find((candidate) => knownDims(candidate).length === 4);
  const count = info === undefined ? 0 : knownDims(info)[1]!;
  return info === undefined || count === 0 || signature.outputs.length < 2
    ? undefined
    : { prototypes: info.name, count };
}

/** As many rows as three grids of the usual strides have cells, each so many times. */
function gridBoxes(signature: ModelSignature, perCell: number): boolean {
  const table = tableOf(signature);
  const [, , height = 0, width = 0] = knownDims(signature.inputs[0]!);
  if (table === undefined || table.transposed || table.columns < 6 || width === 0) return false;
  const cells = [8, 16, 32].reduce(
    (sum, stride) => sum + Math.floor(width / stride) * Math.floor(height / stride),
    0,
  );
  return table.rows === cells * perCell;
}

/** One output of objectness, box and classes for each 16 × 16 pixels. */
function isOneGrid(signature: ModelSignature): boolean {
  const [output, ...more] = signature.outputs;
  const [, channels = 0, rows = 0, columns = 0] = output === undefined ? [] : knownDims(output);
  const [, , height = 0, width = 0] = knownDims(signature.inputs[0]!);
  return more.length === 0 && channels > 5 && rows * 16 === height && columns * 16 === width && width > 0;
}
