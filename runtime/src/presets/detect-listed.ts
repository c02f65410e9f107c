import type { TensorInfo } from "../backend.js";
import { detection, type DraftImage, type HeadPart } from "./detect-parts.js";
import { imageInput, type ImageDefaults } from "./inputs.js";
import { COCO_LABELS } from "./labels.js";
import {
  knownDims,
  missing,
  unsuitable,
  type ModelSignature,
  type Preset,
  type PresetOptions,
  type PresetResult,
} from "./preset.js";

const NAME = "detections";
const LISTED_IMAGE: ImageDefaults = { range: "unit", colour: "rgb" };
/** RT-DETR's authors export with an input for the size that boxes are scaled to, width first (github.com/lyuwenyu/RT-DETR, tools/export_onnx.py). */
const SIZE_INPUT = "orig_target_sizes";
const RTDETR_SIZE = 640;
/** TensorFlow's object detection API: corners as y, x in 0..1, and class 0 the background. */
const TENSORFLOW_CLASSES = /detection_classes/;

export const LISTED_PRESETS = {
  [NAME]: {
    title:
      "Detectors that end with boxes, scores and classes (torchvision, TensorFlow, RT-DETR with its own end)",
    recognizes: (signature) => listedOutputs(signature) !== undefined,
    build: buildListed,
  },
} as const satisfies Record<string, Preset>;

function buildListed(signature: ModelSignature, options: PresetOptions): PresetResult {
  const sizes = signature.inputs.find(({ name }) => name === SIZE_INPUT);
  const defaults = sizes === undefined ? LISTED_IMAGE : { ...LISTED_IMAGE, size: RTDETR_SIZE };
  const [input, ...more] = signature.inputs.filter((info) => info !== sizes);
  const image = input && imageInput(signature, input, defaults, options);
  const found = listedOutputs(signature);
  if (image === undefined || more.length > 0 || found === undefined) {
    throw unsuitable(NAME, signature, "one image → boxes [1, N, 4], scores [1, N] and classes [1, N]");
  }
  const labels = options.labels ?? (sizes === undefined ? undefined : COCO_LABELS);
  if (labels === undefined) {
    throw missing(NAME, "--labels, and --first-class 1 where number 0 is the background (torchvision)");
  }
  const isTensorflow = TENSORFLOW_CLASSES.test(found.classes.name);
  const firstClass = options.firstClass ?? (isTensorflow ? 1 : 0);
  const corners = options.corners ?? (isTensorflow ? "yxyx" : "xyxy");
  const head: HeadPart = {
    format: "listed",
    boxes: found.boxes.name,
    scores: found.scores.name,
    classes: found.classes.name,
    labels: [...labels],
    suppression: "none",
    ...(firstClass === 0 ? {} : { firstClass }),
    ...(corners === "xyxy" ? {} : { corners }),
    ...(isTensorflow ? { units: "unit" } : {}),
  };
  const result = detection("objects", signature, options, image, head, { score: 0.5, iou: 0.5 });
  return sizes === undefined ? result : { ...result, inputs: [...result.inputs, sizeOf(sizes, image)] };
}

function sizeOf(info: TensorInfo, { width, height }: DraftImage): PresetResult["inputs"][number] {
  const dims = knownDims(info).map((size) => Math.max(size, 1));
  return {
    kind: "constant",
    name: info.name,
    elementType: info.type,
    dims: dims.length === 1 ? [2] : [1, 2],
    values: [width, height],
  };
}

function listedOutputs(signature: ModelSignature) {
  const boxes = signature.outputs.find((info) => {
    const dims = knownDims(info);
    const rank = dims.length;
    return dims.at(-1) === 4 && (rank === 2 || (rank === 3 && dims[0]! <= 1)) && info.type !== "string";
  });
  const lists = signature.outputs.filter(
    (info) => info !== boxes && isList(info) && !/num|count/i.test(info.name),
  );
  const classes =
    lists.find(({ name }) => /class|label/i.test(name)) ?? lists.find(({ type }) => /^u?int/.test(type));
  const rest = lists.filter((info) => info !== classes && info.type.startsWith("float"));
  const scores = rest.find(({ name }) => /score|conf|prob/i.test(name)) ?? rest[0];
  return boxes && classes && scores ? { boxes, classes, scores } : undefined;
}

/** [N] or [1, N] */
function isList(info: TensorInfo): boolean {
  const dims = knownDims(info);
  return info.type !== "string" && (dims.length === 1 || (dims.length === 2 && dims[0]! <= 1));
}
