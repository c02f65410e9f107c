import { FieldloopError, LIMITS, type ManifestInput, type SignalName } from "@fieldloop/protocol";
import type { TensorInfo } from "../backend.js";
import { imageInput, tensorInput, windowInput } from "./inputs.js";
import {
  itemLength,
  knownDims,
  unsuitable,
  type ModelSignature,
  type Preset,
  type PresetOptions,
  type PresetResult,
} from "./preset.js";

type DraftHead = ManifestInput["heads"][number];

export const PRESET_NAMES = [
  "classifier-logits",
  "classifier-softmax",
  "mnist",
  "ultraface",
  "anomaly-autoencoder",
  "tensor",
] as const;
export type PresetName = (typeof PRESET_NAMES)[number];

/** Presets of `fieldloop model import`: each turns the signature of a well-known kind of file into inputs, heads and signals. */
export const PRESETS: Readonly<Record<PresetName, Preset>> = {
  "classifier-logits": {
    title: "One label an image or tensor, from logits",
    build: (signature, options) => buildClassifier("classifier-logits", "logits", signature, options),
  },
  "classifier-softmax": {
    title: "One label an image or tensor, from probabilities",
    build: (signature, options) => buildClassifier("classifier-softmax", "probabilities", signature, options),
  },
  mnist: { title: "Handwritten digits: 1×28×28 gray, 0..255, ten logits", build: buildMnist },
  ultraface: {
    title: "UltraFace detectors (RFB and slim, 320 and 640): RGB, (x−127)/128",
    build: buildUltraface,
  },
  "anomaly-autoencoder": {
    title: "Windows of a signal, reconstructed by the model: needs a threshold",
    build: buildAutoencoder,
  },
  tensor: { title: "Tensors as they are; each float output is an embedding", build: buildTensor },
};

/**
 * Applies a preset by name.
 * @throws FieldloopError `preset_unknown`, or what the preset throws
 */
export function applyPreset(
  name: string,
  signature: ModelSignature,
  options: PresetOptions = {},
): PresetResult {
  if (!Object.hasOwn(PRESETS, name)) {
    throw new FieldloopError(
      "preset_unknown",
      `Apply preset "${name}": wanted one of ${PRESET_NAMES.join(", ")}`,
    );
  }
  return PRESETS[name as PresetName].build(signature, options);
}

function buildClassifier(
  name: PresetName,
  values: "logits" | "probabilities",
  signature: ModelSignature,
  options: PresetOptions,
): PresetResult {
  const input = onlyInput(name, signature);
  const output = signature.outputs.find((info) => info.name !== options.embeddingOutput && itemLength(info));
  const length = output && itemLength(output);
  if (output === undefined || length === undefined)
    throw unsuitable(name, signature, "an output of a known length");
  const image = imageInput(input, { range: "unit" }, options);
  const signals: SignalName[] = ["margin", "entropy"];
  if (values === "logits") signals.push("energy");
  signals.push("instability");
  if (image !== undefined) signals.push("brightness");
  return {
    task: "classification",
    inputs: [image ?? tensorInput(input)],
    heads: [
      {
        name: "class",
        kind: "classification",
        output: output.name,
        labels: labelsFor(length, options),
        values,
        activation: options.activation ?? "softmax",
        temperature: options.temperature ?? 1,
      },
      ...embeddingHeads(name, signature, options),
    ],
    signals,
  };
}

function buildMnist(signature: ModelSignature, options: PresetOptions): PresetResult {
  const input = onlyInput("mnist", signature);
  const output = signature.outputs[0];
  const image = imageInput(input, { range: "byte" }, options);
  const fits = image?.width === 28 && image.height === 28 && image.colour === "gray";
  if (!fits || output === undefined || itemLength(output) !== 10) {
    throw unsuitable("mnist", signature, "float32[1, 1, 28, 28] → float32[1, 10]");
  }
  return buildClassifier("mnist", "logits", signature, { range: "byte", ...options });
}

/** github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB: priors are decoded in the graph, boxes are corners in 0..1. */
function buildUltraface(signature: ModelSignature, options: PresetOptions): PresetResult {
  const input = onlyInput("ultraface", signature);
  const image = imageInput(input, { range: "byte", colour: "rgb", mean: [127], std: [128] }, options);
  const boxes = signature.outputs.find((info) => isColumns(info, 4));
  const labels = options.labels ?? ["face"];
  const scores = signature.outputs.find((info) => isColumns(info, labels.length + 1) && info !== boxes);
  if (image === undefined || boxes === undefined || scores === undefined) {
    throw unsuitable(
      "ultraface",
      signature,
      `float32[1, 3, H, W] → [1, N, ${labels.length + 1}] scores, [1, N, 4] boxes`,
    );
  }
  return {
    task: "detection",
    inputs: [image],
    heads: [
      {
        name: "faces",
        kind: "detection",
        format: "ultraface",
        boxes: boxes.name,
        scores: scores.name,
        labels: [...labels],
        scoreThreshold: options.scoreThreshold ?? 0.7,
        iouThreshold: options.iouThreshold ?? 0.3,
      },
    ],
    signals: ["margin", "entropy", "instability", "brightness"],
  };
}

function buildAutoencoder(signature: ModelSignature, options: PresetOptions): PresetResult {
  const input = onlyInput("anomaly-autoencoder", signature);
  const window = windowInput(input, options);
  const output = signature.outputs.find((info) => itemLength(info) === itemLength(input));
  if (window === undefined || output === undefined) {
    throw unsuitable("anomaly-autoencoder", signature, "a float32 window and an output of the same length");
  }
  if (options.threshold === undefined) {
    throw new FieldloopError(
      "invalid_argument",
      'Apply preset "anomaly-autoencoder": give the threshold, the reconstruction error above which a window is anomalous',
    );
  }
  return {
    task: "anomaly",
    inputs: [window],
    heads: [
      {
        name: "anomaly",
        kind: "anomaly",
        method: "reconstruction",
        output: output.name,
        threshold: options.threshold,
        ...(options.labels?.length === 2 ? { labels: [options.labels[0]!, options.labels[1]!] } : {}),
      },
      ...embeddingHeads("anomaly-autoencoder", signature, options),
    ],
    signals: ["reconstruction", "margin", "entropy", "instability"],
  };
}

function buildTensor(signature: ModelSignature, options: PresetOptions): PresetResult {
  const wanted = options.embeddingOutput;
  const outputs = signature.outputs.filter((info) => wanted === undefined || info.name === wanted);
  const heads: DraftHead[] = [];
  for (const info of outputs) {
    const length = itemLength(info);
    if (info.type === "string" || length === undefined || length > LIMITS.embeddingLengthMax) continue;
    heads.push({ name: `output-${heads.length}`, kind: "embedding", output: info.name, length });
  }
  if (heads.length === 0) {
    throw unsuitable(
      "tensor",
      signature,
      `an output of a known length of at most ${LIMITS.embeddingLengthMax}`,
    );
  }
  return { task: "embedding", inputs: signature.inputs.map(tensorInput), heads, signals: [] };
}

function embeddingHeads(name: PresetName, signature: ModelSignature, options: PresetOptions): DraftHead[] {
  if (options.embeddingOutput === undefined) return [];
  const info = signature.outputs.find((output) => output.name === options.embeddingOutput);
  const length = info && itemLength(info);
  if (info === undefined || length === undefined) {
    throw unsuitable(name, signature, `an output "${options.embeddingOutput}" of a known length`);
  }
  return [{ name: "embedding", kind: "embedding", output: info.name, length }];
}

function onlyInput(name: PresetName, signature: ModelSignature): TensorInfo {
  const input = signature.inputs[0];
  if (input === undefined || signature.inputs.length > 1) throw unsuitable(name, signature, "one input");
  return input;
}

/** [1, N, columns] with any N. */
function isColumns(info: TensorInfo, columns: number): boolean {
  const dims = knownDims(info);
  return info.type === "float32" && dims.length === 3 && dims[0]! <= 1 && dims[2] === columns;
}

function labelsFor(count: number, options: PresetOptions): string[] {
  if (options.labels === undefined) return Array.from({ length: count }, (_, index) => String(index));
  if (options.labels.length === count) return [...options.labels];
  throw new FieldloopError(
    "invalid_argument",
    `Read labels: ${options.labels.length} were given, the model has ${count} outputs`,
  );
}
