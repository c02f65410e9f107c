import type { Anchors } from "@fieldloop/protocol";
import type { TensorInfo } from "../backend.js";
import { priorCount } from "../heads/detection/anchors.js";
import {
  detection,
  imageOf,
  isRows,
  isTable,
  type DraftHead,
  type DraftImage,
  type HeadPart,
} from "./detect-parts.js";
import { imageInput, type ImageDefaults } from "./inputs.js";
import {
  hasOperator,
  knownDims,
  labelsFor,
  missing,
  onlyInput,
  unsuitable,
  type ModelSignature,
  type Preset,
  type PresetOptions,
  type PresetResult,
} from "./preset.js";

type Levels = Anchors["levels"];

const ULTRAFACE_IMAGE: ImageDefaults = { range: "byte", colour: "rgb", mean: [127], std: [128] };
/** Of github.com/biubug6/Pytorch_Retinaface: channel means of ImageNet in the order blue, green, red. */
const RETINAFACE_IMAGE: ImageDefaults = {
  range: "byte",
  colour: "bgr",
  mean: [104, 117, 123],
  std: [1],
  size: 640,
};
const SSD_IMAGE: ImageDefaults = { range: "byte", colour: "rgb", mean: [127.5], std: [127.5], size: 300 };

const square = (stride: number, ...sides: number[]): Levels[number] => ({
  stride,
  sizes: sides.map((side) => [side, side]),
});
/** `vision/ssd/config/fd_config.py` of github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB. */
const ULTRAFACE_LEVELS: Levels = [
  square(8, 10, 16, 24),
  square(16, 32, 48),
  square(32, 64, 96),
  square(64, 128, 192, 256),
];
/** `data/config.py` of Pytorch_Retinaface. */
const RETINAFACE_LEVELS: Levels = [square(8, 16, 32), square(16, 64, 128), square(32, 256, 512)];
const FACE_POINTS = ["right eye", "left eye", "nose", "right mouth corner", "left mouth corner"];

export const ANCHOR_PRESETS = {
  ultraface: {
    title: "UltraFace detectors (RFB and slim, 320 and 640): RGB, (x−127)/128",
    recognizes: (signature) => looksLikeUltraface(signature) && hasOperator(signature, "Exp") !== false,
    build: buildUltraface,
  },
  "ultraface-raw": {
    title: "UltraFace detectors without post-processing: offsets to prior boxes",
    recognizes: (signature) => looksLikeUltraface(signature) && hasOperator(signature, "Exp") !== true,
    build: buildUltrafaceRaw,
  },
  retinaface: {
    title: "RetinaFace with five landmarks: BGR minus the channel means, prior boxes from the input's size",
    recognizes: (signature) => signature.outputs.some((info) => isRows(info, FACE_POINTS.length * 2)),
    build: buildRetinaface,
  },
  ssd: { title: "Single-shot detectors: needs --anchors", build: buildSsd },
} as const satisfies Record<string, Preset>;

function buildUltraface(signature: ModelSignature, options: PresetOptions): PresetResult {
  const { image, scores, boxes, labels } = faceOutputs("ultraface", signature, options);
  const head: HeadPart = { format: "ultraface", boxes: boxes.name, scores: scores.name, labels };
  return detection("faces", signature, options, image, head, { score: 0.7, iou: 0.3 });
}

function buildUltrafaceRaw(signature: ModelSignature, options: PresetOptions): PresetResult {
  const name = "ultraface-raw";
  const { image, scores, boxes, labels } = faceOutputs(name, signature, options);
  checkPriors(name, signature, boxes, ULTRAFACE_LEVELS, image);
  const anchors: DraftHead["anchors"] = { levels: ULTRAFACE_LEVELS, centres: "even", clip: true };
  const head: HeadPart = {
    format: "ssd",
    boxes: boxes.name,
    scores: scores.name,
    labels,
    anchors,
    values: options.values ?? "probabilities",
  };
  return detection("faces", signature, options, image, head, { score: 0.7, iou: 0.3 });
}

function faceOutputs(name: string, signature: ModelSignature, options: PresetOptions) {
  const image = imageInput(signature, onlyInput(name, signature), ULTRAFACE_IMAGE, options);
  const boxes = signature.outputs.find((info) => isRows(info, 4));
  const labels = [...(options.labels ?? ["face"])];
  const scores = signature.outputs.find((info) => isRows(info, labels.length + 1) && info !== boxes);
  if (image === undefined || boxes === undefined || scores === undefined) {
    throw unsuitable(
      name,
      signature,
      `float32[1, 3, H, W] → [1, N, ${labels.length + 1}] scores, [1, N, 4] boxes`,
    );
  }
  return { image, boxes, scores, labels };
}

function looksLikeUltraface(signature: ModelSignature): boolean {
  const { outputs } = signature;
  return (
    outputs.length === 2 && outputs.some((info) => isRows(info, 4)) && outputs.some((info) => isRows(info, 2))
  );
}

function checkPriors(
  name: string,
  signature: ModelSignature,
  boxes: TensorInfo,
  levels: Levels,
  image: DraftImage,
): void {
  const found = knownDims(boxes)[1]!;
  const made = priorCount({ levels }, image);
  if (found === 0 || found === made) return;
  throw unsuitable(name, signature, `${made} boxes for an input of ${image.width} × ${image.height}`);
}

function buildRetinaface(signature: ModelSignature, options: PresetOptions): PresetResult {
  const name = "retinaface";
  const image = imageOf(name, signature, RETINAFACE_IMAGE, options);
  const points = [...(options.keypointLabels ?? FACE_POINTS)];
  const boxes = signature.outputs.find((info) => isRows(info, 4));
  const scores = signature.outputs.find((info) => isRows(info, 2));
  const landmarks = signature.outputs.find((info) => isRows(info, points.length * 2) && info !== boxes);
  if (boxes === undefined || scores === undefined || landmarks === undefined) {
    throw unsuitable(
      name,
      signature,
      `[1, N, 4] boxes, [1, N, 2] scores, [1, N, ${points.length * 2}] landmarks`,
    );
  }
  checkPriors(name, signature, boxes, RETINAFACE_LEVELS, image);
  const softmaxed = signature.computedBy?.[scores.name];
  const head: HeadPart = {
    format: "ssd",
    boxes: boxes.name,
    scores: scores.name,
    labels: [...(options.labels ?? ["face"])],
    anchors: { levels: RETINAFACE_LEVELS },
    values:
      options.values ?? (softmaxed === undefined || softmaxed === "Softmax" ? "probabilities" : "logits"),
    keypoints: { labels: points, scored: false, output: landmarks.name },
  };
  return detection("faces", signature, options, image, head, { score: 0.6, iou: 0.4 });
}

function buildSsd(signature: ModelSignature, options: PresetOptions): PresetResult {
  const name = "ssd";
  const image = imageOf(name, signature, SSD_IMAGE, options);
  const boxes = signature.outputs.find((info) => isRows(info, 4));
  const scores = signature.outputs.find((info) => info !== boxes && isTable(info));
  if (boxes === undefined || scores === undefined) {
    throw unsuitable(name, signature, "[1, N, 4] boxes and [1, N, 1 + labels] scores");
  }
  if (options.anchors === undefined) {
    throw missing(name, 'the anchors, e.g. { "levels": [{ "stride": 16, "sizes": [[30, 30], [42, 42]] }] }');
  }
  checkPriors(name, signature, boxes, options.anchors.levels, image);
  const columns = knownDims(scores)[2]!;
  const labels = options.labels ? [...options.labels] : labelsFor(Math.max(columns - 1, 1), options);
  if (columns !== 0 && columns !== labels.length && columns !== labels.length + 1) {
    throw missing(name, `${columns - 1} labels (or ${columns} where no column is the background)`);
  }
  const operator = signature.computedBy?.[scores.name];
  const activated = operator === "Softmax" || operator === "Sigmoid";
  const head: HeadPart = {
    format: "ssd",
    boxes: boxes.name,
    scores: scores.name,
    labels,
    anchors: options.anchors,
    values: options.values ?? (activated ? "probabilities" : "logits"),
    ...(options.activation === undefined ? {} : { activation: options.activation }),
  };
  return detection("objects", signature, options, image, head, { score: 0.5, iou: 0.45 });
}
