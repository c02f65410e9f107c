import { FieldloopError } from "@fieldloop/protocol";
import type { TensorInfo } from "../backend.js";
import { embeddingHeads } from "./classify.js";
import { windowInput } from "./inputs.js";
import { KEYWORD_LABELS } from "./labels.js";
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

/** Silero: 32 ms a window, after the last 4 ms of the one before (github.com/snakers4/silero-vad, utils_vad.py). */
const SILERO = { sampleRateHz: 16_000, stateLength: 128 } as const;
const SILERO_WINDOWS: Readonly<Record<number, { readonly length: number; readonly context: number }>> = {
  16_000: { length: 512, context: 64 },
  8_000: { length: 256, context: 32 },
};
/** Features of a keyword spotter: 49 steps of 20 ms with 40 mel energies each (TensorFlow's micro_speech front-end). */
const KEYWORDS = { features: 1_960, channels: 40, sampleRateHz: 50, hop: 10 } as const;

export const SERIES_PRESETS = {
  "anomaly-autoencoder": {
    title: "Windows of a signal, reconstructed by the model: needs a threshold",
    build: buildAutoencoder,
  },
  "silero-vad": {
    title: "Speech or not, 32 ms at 16 or 8 kHz with carried state (Silero v5 and v6)",
    recognizes: (signature) => sileroState(signature) !== undefined,
    build: buildSilero,
  },
  keywords: {
    title: "Spoken words from windows of 49 × 40 features, floats or 8-bit",
    recognizes: (signature) =>
      signature.inputs.length === 1 && itemLength(signature.inputs[0]!) === KEYWORDS.features,
    build: buildKeywords,
  },
} as const satisfies Record<string, Preset>;

function buildAutoencoder(signature: ModelSignature, options: PresetOptions): PresetResult {
  const name = "anomaly-autoencoder";
  const input = onlyInput(name, signature);
  const window = windowInput(input, options, quantizationOf(signature, input, options.inputQuantization));
  const output = signature.outputs.find((info) => itemLength(info) === itemLength(input));
  if (window === undefined || output === undefined) {
    throw unsuitable(name, signature, "a float32 window and an output of the same length");
  }
  if (options.threshold === undefined) {
    throw missing(name, "the threshold, the reconstruction error above which a window is anomalous");
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
        ...quantizationOf(signature, output, options.outputQuantization),
      },
      ...embeddingHeads(name, signature, options),
    ],
    signals: ["reconstruction", "margin", "entropy", "instability"],
  };
}

function buildSilero(signature: ModelSignature, options: PresetOptions): PresetResult {
  const name = "silero-vad";
  const state = sileroState(signature);
  const samples = signature.inputs.find((info) => info !== state && info.type === "float32");
  const rate = signature.inputs.find((info) => info.type === "int64");
  const next = signature.outputs.find((info) => info.name === "stateN") ?? signature.outputs[1];
  const output = signature.outputs.find((info) => info !== next && knownDims(info).length === 2);
  const extra = signature.inputs.filter((info) => info !== state && info !== samples && info !== rate);
  if (
    state === undefined ||
    samples === undefined ||
    output === undefined ||
    next === undefined ||
    extra.length > 0
  ) {
    throw unsuitable(
      name,
      signature,
      "samples [1, N], state [2, 1, 128] and maybe a sample rate → speech [1, 1], the next state",
    );
  }
  const { stateLength } = SILERO;
  const sampleRateHz = options.sampleRateHz ?? SILERO.sampleRateHz;
  const shape = SILERO_WINDOWS[sampleRateHz];
  if (shape === undefined) {
    throw new FieldloopError(
      "invalid_argument",
      `Apply preset "${name}": ${sampleRateHz} samples a second, the model knows ${Object.keys(SILERO_WINDOWS).join(" and ")}`,
    );
  }
  const { length, context } = shape;
  return {
    task: "classification",
    inputs: [
      {
        kind: "window",
        name: samples.name,
        length,
        hop: options.hop ?? length,
        context,
        sampleRateHz,
        normalization: "none",
        dims: [1, context + length],
      },
      { kind: "state", name: state.name, output: next.name, dims: [2, 1, stateLength] },
      ...(rate === undefined
        ? []
        : [
            {
              kind: "constant" as const,
              name: rate.name,
              elementType: rate.type,
              dims: knownDims(rate).map(() => 1),
              values: [sampleRateHz],
            },
          ]),
    ],
    heads: [
      {
        name: "speech",
        kind: "classification",
        output: output.name,
        labels: labelsFor(1, options, ["speech"]),
        values: "probabilities",
        activation: "sigmoid",
        threshold: options.threshold ?? 0.5,
      },
    ],
    signals: ["margin", "entropy", "instability"],
  };
}

/** [2, batch, 128] */
function sileroState(signature: ModelSignature): TensorInfo | undefined {
  return signature.inputs.find((info) => {
    const dims = knownDims(info);
    return dims.length === 3 && dims[0] === 2 && dims[2] === SILERO.stateLength;
  });
}

function buildKeywords(signature: ModelSignature, options: PresetOptions): PresetResult {
  const name = "keywords";
  const input = onlyInput(name, signature);
  const [output] = signature.outputs;
  const length = output && itemLength(output);
  if (output === undefined || length === undefined || itemLength(input) === undefined) {
    throw unsuitable(name, signature, "one input of a known length → [1, labels]");
  }
  const quantization = quantizationOf(signature, input, options.inputQuantization);
  const usual = itemLength(input) === KEYWORDS.features ? KEYWORDS : { channels: 1, hop: undefined };
  const window = windowInput(
    input,
    {
      ...options,
      channels: options.channels ?? usual.channels,
      sampleRateHz: options.sampleRateHz ?? KEYWORDS.sampleRateHz,
      ...(options.hop === undefined && usual.hop !== undefined ? { hop: usual.hop } : {}),
    },
    quantization,
  );
  if (window === undefined) {
    throw missing(
      name,
      `what the ${input.type} values of "${input.name}" stand for: a scale and a zero point`,
    );
  }
  const values = valuesOf(signature, output, options);
  return {
    task: "classification",
    inputs: [window],
    heads: [
      {
        name: "word",
        kind: "classification",
        output: output.name,
        labels: labelsFor(length, options, KEYWORD_LABELS),
        values,
        activation: options.activation ?? "softmax",
        temperature: options.temperature ?? 1,
        ...quantizationOf(signature, output, options.outputQuantization),
      },
      ...embeddingHeads(name, signature, options),
    ],
    signals: ["margin", "entropy", ...(values === "logits" ? (["energy"] as const) : []), "instability"],
  };
}
