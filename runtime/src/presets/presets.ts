import { FieldloopError, LIMITS, type ManifestInput } from "@fieldloop/protocol";
import { withCarried, withoutCarried } from "./carried.js";
import { CLASSIFY_PRESETS } from "./classify.js";
import { DENSE_PRESETS } from "./dense.js";
import { DETECT_PRESETS } from "./detect.js";
import { tensorInput } from "./inputs.js";
import {
  itemLength,
  unsuitable,
  type ModelSignature,
  type Preset,
  type PresetOptions,
  type PresetResult,
} from "./preset.js";
import { SERIES_PRESETS } from "./series.js";

type DraftHead = ManifestInput["heads"][number];

const TENSOR_PRESET: Preset = {
  title: "Tensors as they are; each output of a known length is an embedding",
  build: buildTensor,
};

const ALL = {
  ...CLASSIFY_PRESETS,
  ...DETECT_PRESETS,
  ...DENSE_PRESETS,
  ...SERIES_PRESETS,
  tensor: TENSOR_PRESET,
} as const;
export type PresetName = keyof typeof ALL;

/** Presets of `fieldloop model import`: each turns the signature of a well-known kind of file into inputs, heads and signals. */
export const PRESETS: Readonly<Record<PresetName, Preset>> = ALL;
export const PRESET_NAMES = Object.keys(PRESETS) as PresetName[];

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
  const { build } = PRESETS[name as PresetName];
  return withCarried(build(withoutCarried(signature, options), options), signature, options);
}

/**
 * The presets that a file fits, by its signature: those that recognize it; or, where none does, the general ones. One that lacks an
 * option still fits. `tensor`, which takes nearly any file, is named only where nothing else fits.
 */
export function suggestPreset(whole: ModelSignature, options: PresetOptions = {}): PresetName[] {
  const signature = withoutCarried(whole, options);
  if (signature.inputs.length === 0) return [];
  const fitting = PRESET_NAMES.filter((name) => fits(PRESETS[name], signature, options));
  const recognized = fitting.filter((name) => PRESETS[name].recognizes?.(signature));
  if (recognized.length > 0) return recognized;
  const general = fitting.filter((name) => PRESETS[name].recognizes === undefined);
  const telling = general.filter((name) => name !== "tensor");
  return telling.length > 0 ? telling : general;
}

function fits(preset: Preset, signature: ModelSignature, options: PresetOptions): boolean {
  try {
    preset.build(signature, options);
    return true;
  } catch (error) {
    return error instanceof FieldloopError && error.code === "invalid_argument";
  }
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
  const inputs = signature.inputs.map(tensorInput);
  if (heads.length > 0) return { task: "embedding", inputs, heads, signals: [] };
  if (wanted !== undefined) {
    throw unsuitable(
      "tensor",
      signature,
      `an output "${wanted}" of a known length of at most ${LIMITS.embeddingLengthMax}`,
    );
  }
  // Text, open sizes, large maps: no head reads them, and whoever asks for the graph's own outputs has them all.
  return { task: "pipeline", inputs, heads, signals: [] };
}
