import type { SignalName } from "@fieldloop/protocol";
import type { TensorInfo } from "../backend.js";
import { imageInput, scalingOf, type ImageDefaults } from "./inputs.js";
import { COCO_KEYPOINTS } from "./labels.js";
import {
  itemLength,
  knownDims,
  labelsFor,
  onlyInput,
  quantizationOf,
  unsuitable,
  valuesOf,
  type ModelSignature,
  type Preset,
  type PresetOptions,
  type PresetResult,
} from "./preset.js";

/** Means and deviations of ImageNet, which most backbones were trained with. */
const IMAGENET: ImageDefaults = {
  range: "unit",
  colour: "rgb",
  mean: [0.485, 0.456, 0.406],
  std: [0.229, 0.224, 0.225],
};

const IMAGE_SIGNALS: readonly SignalName[] = ["margin", "entropy", "instability", "brightness"];
/** Smallest mask or heatmap in cells a side: less is a vector of features. */
const PLANE_MIN = 4;

export const DENSE_PRESETS = {
  segmentation: {
    title: "A class for every pixel: [1, labels, H, W], or class numbers [1, H, W]",
    build: buildSegmentation,
  },
  keypoints: {
    title: "Points of one object: heatmaps [1, K, H, W] or coordinates [1, K, 2 or 3]",
    build: buildKeypoints,
  },
  "image-to-image": {
    title: "An image from an image: RGB 0..255 both ways by default",
    recognizes: (signature) => picture(signature) !== undefined,
    build: buildImageToImage,
  },
} as const satisfies Record<string, Preset>;

function buildSegmentation(signature: ModelSignature, options: PresetOptions): PresetResult {
  const name = "segmentation";
  const image = imageInput(signature, onlyInput(name, signature), IMAGENET, options);
  const found = signature.outputs.map(planesOf).find((planes) => planes !== undefined);
  if (image === undefined || found === undefined) {
    throw unsuitable(
      name,
      signature,
      "one image → [1, labels, H, W], [1, H, W, labels] or class numbers [1, H, W]",
    );
  }
  const { info, count, layout } = found;
  const numbers = count === 0;
  const labels = segmentationLabels(count, options);
  return {
    task: "segmentation",
    inputs: [image],
    heads: [
      {
        name: "regions",
        kind: "segmentation",
        output: info.name,
        values: numbers ? "labels" : valuesOf(signature, info, options),
        layout,
        labels,
        ...(options.background === undefined ? {} : { background: options.background }),
        ...quantizationOf(signature, info, options.outputQuantization),
      },
    ],
    signals: [...IMAGE_SIGNALS],
  };
}

/** Class numbers do not tell how many labels there are. One channel may be of one label, or of two. */
function segmentationLabels(count: number, options: PresetOptions): string[] {
  if (options.labels !== undefined && (count === 0 || (count === 1 && options.labels.length === 2))) {
    return [...options.labels];
  }
  return labelsFor(count === 0 ? 256 : count, options);
}

interface Planes {
  readonly info: TensorInfo;
  /** 0 for class numbers. */
  readonly count: number;
  readonly layout: "nchw" | "nhwc";
}

function planesOf(info: TensorInfo): Planes | undefined {
  const dims = knownDims(info);
  const isInteger = info.type.startsWith("int") || info.type.startsWith("uint");
  if (isInteger && dims.length === 3) return { info, count: 0, layout: "nchw" };
  if (dims.length !== 4 || dims[0]! > 1) return undefined;
  const [, a = 0, b = 0, c = 0] = dims;
  if (isInteger && a === 1) return { info, count: 0, layout: "nchw" };
  // Channels are the shorter side: a mask has more rows than classes, where the file says both.
  const last = c > 0 && a > 0 && c < a && c < b;
  const count = last ? c : a;
  return count > 0 ? { info, count, layout: last ? "nhwc" : "nchw" } : undefined;
}

function buildKeypoints(signature: ModelSignature, options: PresetOptions): PresetResult {
  const name = "keypoints";
  const image = imageInput(signature, onlyInput(name, signature), IMAGENET, options);
  const heatmap = signature.outputs
    .map(planesOf)
    .find((planes) => planes !== undefined && isPlane(planes.info));
  const coordinates = signature.outputs.find((info) => itemLength(info) !== undefined);
  const info = heatmap?.info ?? coordinates;
  if (image === undefined || info === undefined || heatmap?.layout === "nhwc") {
    throw unsuitable(name, signature, "one image → [1, K, H, W] heatmaps or [1, K, 2 or 3] coordinates");
  }
  const { count, values } =
    heatmap === undefined
      ? coordinateCount(name, signature, info, options)
      : { count: heatmap.count, values: 2 as const };
  const labels = options.keypointLabels ?? options.labels;
  return {
    task: "keypoints",
    inputs: [image],
    heads: [
      {
        name: "points",
        kind: "keypoints",
        output: info.name,
        format: heatmap === undefined ? "coordinates" : "heatmap",
        values,
        units: options.units ?? "unit",
        ...orderOf(info, options),
        labels: labelsFor(count, labels === undefined ? {} : { labels }, COCO_KEYPOINTS),
        ...(options.scoreThreshold === undefined ? {} : { scoreThreshold: options.scoreThreshold }),
        ...quantizationOf(signature, info, options.outputQuantization),
      },
    ],
    signals: ["brightness"],
  };
}

/** MoveNet gives [1, 1, 17, 3] with y first (tfhub.dev/google/movenet); nearly all others x. */
function orderOf(info: TensorInfo, { order }: PresetOptions): { order?: "xy" | "yx" } {
  const usual = knownDims(info).join("×") === "1×1×17×3" ? "yx" : undefined;
  const found = order ?? usual;
  return found === undefined ? {} : { order: found };
}

function isPlane(info: TensorInfo): boolean {
  const [, , rows = 0, columns = 0] = knownDims(info);
  return (rows === 0 || rows >= PLANE_MIN) && (columns === 0 || columns >= PLANE_MIN);
}

/** Two values a point or three, by the last dimension or by the number of labels. */
function coordinateCount(
  name: string,
  signature: ModelSignature,
  info: TensorInfo,
  options: PresetOptions,
): { count: number; values: 2 | 3 } {
  const length = itemLength(info)!;
  const labels = options.keypointLabels ?? options.labels;
  if (labels === undefined && knownDims(info).length < 3) {
    throw unsuitable(name, signature, "points in a dimension of their own, or their names");
  }
  const last = knownDims(info).length > 2 ? knownDims(info).at(-1)! : length / (labels?.length ?? length / 2);
  const values = last === 3 ? 3 : 2;
  if ((last !== 2 && last !== 3) || length % values !== 0) {
    throw unsuitable(name, signature, "two or three values for each point");
  }
  return { count: length / values, values };
}

function picture(signature: ModelSignature): TensorInfo | undefined {
  const [input] = signature.inputs;
  const from = input && imageSizes(input);
  if (from === undefined || signature.outputs.length !== 1) return undefined;
  const to = imageSizes(signature.outputs[0]!);
  // Three small planes are rather a mask of three labels.
  return to?.every((size, at) => size >= from[at]! || size === 0) ? signature.outputs[0] : undefined;
}

/** Channels, rows, columns of an image tensor. */
function imageSizes(info: TensorInfo): number[] | undefined {
  const dims = knownDims(info);
  if (dims.length !== 4 || dims[0]! > 1) return undefined;
  const [, a = 0, b = 0, c = 0] = dims;
  if (a === 3) return [3, b, c];
  return c === 3 ? [3, a, b] : undefined;
}

function buildImageToImage(signature: ModelSignature, options: PresetOptions): PresetResult {
  const name = "image-to-image";
  const input = onlyInput(name, signature);
  const usual: ImageDefaults = { range: "byte", colour: "rgb" };
  const image = imageInput(signature, input, usual, options);
  const output = signature.outputs.find((info) => imageSizes(info) !== undefined);
  if (image === undefined || output === undefined) {
    throw unsuitable(name, signature, "one image → one image [1, 3, H, W] or [1, H, W, 3]");
  }
  // Pixels out are made of real numbers as pixels in become them; each side has integers of its own.
  const scaling = scalingOf(signature, input, usual, options);
  return {
    task: "image",
    inputs: [image],
    heads: [
      {
        name: "image",
        kind: "image",
        output: output.name,
        colour: image.colour,
        layout: knownDims(output)[1] === 3 ? "nchw" : "nhwc",
        ...scaling,
        ...quantizationOf(signature, output, options.outputQuantization),
      },
    ],
    signals: ["brightness"],
  };
}
