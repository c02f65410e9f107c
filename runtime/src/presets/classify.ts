import type { ManifestInput, SignalName } from "@fieldloop/protocol";
import type { TensorInfo } from "../backend.js";
import { imageInput, tensorInput, windowInput } from "./inputs.js";
import {
  itemLength,
  knownDims,
  labelsFor,
  missing,
  onlyInput,
  quantizationOf,
  unsuitable,
  valuesOf,
  type ModelSignature,
  type Preset,
  type PresetOptions,
  type PresetResult,
} from "./preset.js";

type DraftHead = ManifestInput["heads"][number];
type DraftInput = ManifestInput["inputs"][number];

/** Median distance of an embedding is 1; three times that is far. */
const NOVELTY_THRESHOLD = 3;

export const CLASSIFY_PRESETS = {
  "classifier-logits": {
    title: "One label an image, window or tensor, from logits",
    build: (signature, options) => buildClassifier("classifier-logits", "logits", signature, options),
  },
  "classifier-softmax": {
    title: "One label an image, window or tensor, from probabilities",
    build: (signature, options) => buildClassifier("classifier-softmax", "probabilities", signature, options),
  },
  multilabel: {
    title: "Several labels at once, each set at --threshold (default 0.5)",
    build: buildMultilabel,
  },
  mnist: {
    title: "Handwritten digits: 1×28×28 gray, 0..255, ten logits",
    recognizes: (signature) => signature.inputs.some((info) => isDigits(info)),
    build: buildMnist,
  },
  regression: { title: "Numbers from an image, window or tensor", build: buildRegression },
  "tabular-classifier": { title: "One label a row of a table", build: buildTabularClassifier },
  "tabular-regressor": { title: "Numbers for a row of a table", build: buildTabularRegressor },
  "anomaly-embedding": {
    title: "How far an embedding lies from the training data; the package needs a baseline",
    build: buildAnomalyEmbedding,
  },
} as const satisfies Record<string, Preset>;

function buildClassifier(
  name: string,
  values: "logits" | "probabilities",
  signature: ModelSignature,
  options: PresetOptions,
): PresetResult {
  const { input, image } = pictureOrTensor(name, signature, options);
  const { output, length } = mainOutput(name, signature, options);
  refuseActivated(name, values, signature, output);
  return {
    task: "classification",
    inputs: [input],
    heads: [
      {
        name: "class",
        kind: "classification",
        output: output.name,
        labels: labelsFor(length, options),
        values,
        activation: options.activation ?? "softmax",
        temperature: options.temperature ?? 1,
        ...quantizationOf(signature, output, options.outputQuantization),
      },
      ...embeddingHeads(name, signature, options),
    ],
    signals: classSignals(values, image),
  };
}

/** A softmax over a softmax would hide all confidence: where the graph ends in one, probabilities are what it gives. */
function refuseActivated(
  name: string,
  values: "logits" | "probabilities",
  signature: ModelSignature,
  output: TensorInfo,
): void {
  const operator = signature.computedBy?.[output.name];
  if (values === "logits" && (operator === "Softmax" || operator === "Sigmoid")) {
    throw unsuitable(name, signature, `logits, but "${output.name}" comes from a ${operator}`);
  }
}

function classSignals(values: "logits" | "probabilities", image: boolean): SignalName[] {
  const signals: SignalName[] = ["margin", "entropy"];
  if (values === "logits") signals.push("energy");
  signals.push("instability");
  if (image) signals.push("brightness");
  return signals;
}

function buildMultilabel(signature: ModelSignature, options: PresetOptions): PresetResult {
  const { input, image } = pictureOrTensor("multilabel", signature, options);
  const { output, length } = mainOutput("multilabel", signature, options);
  if (signature.computedBy?.[output.name] === "Softmax") {
    throw unsuitable(
      "multilabel",
      signature,
      `independent labels, but "${output.name}" comes from a Softmax`,
    );
  }
  const values = valuesOf(signature, output, options);
  return {
    task: "classification",
    inputs: [input],
    heads: [
      {
        name: "labels",
        kind: "classification",
        output: output.name,
        labels: labelsFor(length, options),
        values,
        activation: "sigmoid",
        temperature: options.temperature ?? 1,
        threshold: options.threshold ?? 0.5,
        ...quantizationOf(signature, output, options.outputQuantization),
      },
      ...embeddingHeads("multilabel", signature, options),
    ],
    signals: classSignals(values, image),
  };
}

function isDigits(info: TensorInfo): boolean {
  return knownDims(info).slice(-3).join("×") === "1×28×28";
}

function buildMnist(signature: ModelSignature, options: PresetOptions): PresetResult {
  const input = onlyInput("mnist", signature);
  const output = signature.outputs[0];
  const image = imageInput(signature, input, { range: "byte" }, options);
  const fits = image?.width === 28 && image.height === 28 && image.colour === "gray";
  if (!fits || output === undefined || itemLength(output) !== 10) {
    throw unsuitable("mnist", signature, "float32[1, 1, 28, 28] → float32[1, 10]");
  }
  return buildClassifier("mnist", "logits", signature, { range: "byte", ...options });
}

function buildRegression(signature: ModelSignature, options: PresetOptions): PresetResult {
  const { input, image } = pictureOrTensor("regression", signature, options);
  return regressionOf("regression", signature, options, input, image);
}

function buildTabularRegressor(signature: ModelSignature, options: PresetOptions): PresetResult {
  const input = tableInput("tabular-regressor", signature, options);
  return regressionOf("tabular-regressor", signature, options, input, false);
}

function regressionOf(
  name: string,
  signature: ModelSignature,
  options: PresetOptions,
  input: DraftInput,
  image: boolean,
): PresetResult {
  const { output, length } = mainOutput(name, signature, options);
  const targets: NonNullable<PresetOptions["targets"]> =
    options.targets ?? labelsFor(length, options).map((label) => ({ name: label }));
  if (targets.length !== length) {
    throw missing(
      name,
      `${length} targets, one for each value of "${output.name}": ${targets.length} were given`,
    );
  }
  const [first] = targets;
  const signals: SignalName[] = first?.min === undefined || first.max === undefined ? [] : ["value"];
  if (image) signals.push("brightness");
  return {
    task: "regression",
    inputs: [input],
    heads: [
      {
        name: "values",
        kind: "regression",
        output: output.name,
        targets: [...targets],
        ...quantizationOf(signature, output, options.outputQuantization),
      },
      ...embeddingHeads(name, signature, options),
    ],
    signals,
  };
}

function buildTabularClassifier(signature: ModelSignature, options: PresetOptions): PresetResult {
  const name = "tabular-classifier";
  const input = tableInput(name, signature, options);
  const { output } = mainOutput(name, signature, options);
  const result = buildClassifier(name, valuesOf(signature, output, options), signature, options);
  return { ...result, inputs: [input] };
}

/** Columns as given, or as many numbers as the model takes. */
function tableInput(name: string, signature: ModelSignature, options: PresetOptions): DraftInput {
  const info = onlyInput(name, signature);
  const dims = knownDims(info);
  const width = dims[1];
  if (dims.length !== 2 || width === undefined || width === 0 || info.type === "bool") {
    throw unsuitable(name, signature, "one input [rows, columns]");
  }
  const columns =
    options.columns ??
    Array.from({ length: width }, (_, index) => ({
      name: `column-${index + 1}`,
      encoding: { kind: "number" as const },
    }));
  const numbers = columns.reduce(
    (sum, { encoding }) => sum + (encoding.kind === "one-hot" ? encoding.categories.length : 1),
    0,
  );
  if (numbers !== width) {
    throw missing(
      name,
      `columns for the ${width} numbers of a row: ${columns.length} were given, making ${numbers}`,
    );
  }
  return { kind: "table", name: info.name, columns: [...columns], elementType: info.type, dims };
}

function buildAnomalyEmbedding(signature: ModelSignature, options: PresetOptions): PresetResult {
  const name = "anomaly-embedding";
  const { input, image } = pictureOrTensor(name, signature, options);
  const wanted = options.embeddingOutput;
  const { output, length } =
    wanted === undefined ? mainOutput(name, signature, options) : outputNamed(name, signature, wanted);
  return {
    task: "anomaly",
    inputs: [input],
    heads: [
      {
        name: "anomaly",
        kind: "anomaly",
        method: "embedding",
        output: output.name,
        threshold: options.threshold ?? NOVELTY_THRESHOLD,
        ...(options.labels?.length === 2 ? { labels: [options.labels[0]!, options.labels[1]!] } : {}),
        ...quantizationOf(signature, output, options.outputQuantization),
      },
      {
        name: "embedding",
        kind: "embedding",
        output: output.name,
        length,
        ...quantizationOf(signature, output, options.outputQuantization),
      },
    ],
    signals: ["novelty", "margin", "entropy", "instability", ...(image ? (["brightness"] as const) : [])],
  };
}

function pictureOrTensor(
  name: string,
  signature: ModelSignature,
  options: PresetOptions,
): { input: DraftInput; image: boolean } {
  const info = onlyInput(name, signature);
  // A sample rate says that the numbers are a signal, which a source cuts into windows.
  if (options.sampleRateHz !== undefined) {
    const window = windowInput(info, options, quantizationOf(signature, info, options.inputQuantization));
    if (window === undefined) {
      throw unsuitable(
        name,
        signature,
        `a window of a known length, ${options.channels ?? 1} values a sample`,
      );
    }
    return { input: window, image: false };
  }
  const image = imageInput(signature, info, { range: "unit" }, options);
  return { input: image ?? tensorInput(info), image: image !== undefined };
}

/**
 * The first output of a known length that is not the embedding. Whole numbers of 32 or 64 bits come last: they may be the class that a
 * classifier has chosen by itself (ai.onnx.ml).
 */
function mainOutput(
  name: string,
  signature: ModelSignature,
  options: PresetOptions,
): { output: TensorInfo; length: number } {
  const known = signature.outputs.filter(
    (info) => info.name !== options.embeddingOutput && info.type !== "string" && itemLength(info),
  );
  const output = known.find(({ type }) => type !== "int64" && type !== "int32") ?? known[0];
  const length = output && itemLength(output);
  const axes =
    output &&
    knownDims(output)
      .slice(1)
      .filter((size) => size !== 1);
  if (output === undefined || length === undefined || (axes?.length ?? 0) > 1) {
    throw unsuitable(name, signature, "an output [1, N] of a known length");
  }
  return { output, length };
}

function outputNamed(name: string, signature: ModelSignature, wanted: string) {
  const output = signature.outputs.find((info) => info.name === wanted);
  const length = output && itemLength(output);
  if (output === undefined || length === undefined) {
    throw unsuitable(name, signature, `an output "${wanted}" of a known length`);
  }
  return { output, length };
}

export function embeddingHeads(name: string, signature: ModelSignature, options: PresetOptions): DraftHead[] {
  if (options.embeddingOutput === undefined) return [];
  const { output, length } = outputNamed(name, signature, options.embeddingOutput);
  // Its integers have a scale of their own, which the option for the other output does not say.
  const quantization = quantizationOf(signature, output, undefined);
  return [{ name: "embedding", kind: "embedding", output: output.name, length, ...quantization }];
}
