import { LIMITS, type ModelInput, type WindowFeatures } from "@fieldloop/protocol";
import { elementCountOf } from "../package/tensor-bytes.js";
import { concreteDims } from "./elements.js";
import { INPUT_LIMITS } from "./limits.js";
import { encodedWidth } from "./table.js";

/** A text takes about as much memory as so many numbers. */
const NUMBERS_PER_TEXT = 8;

/** Values that one frame of an input takes in memory, the larger of before and after its features; dynamic dims count as 1. */
export function inputExtent(input: ModelInput): number {
  const weight = input.elementType === "string" ? NUMBERS_PER_TEXT : 1;
  switch (input.kind) {
    case "image":
      return input.width * input.height * (input.colour === "gray" ? 1 : 3);
    case "window": {
      const samples = (input.context + input.length) * input.channels;
      return input.features === undefined
        ? samples
        : Math.max(samples, featureExtent(input.features, samples));
    }
    case "table":
      return weight * encodedWidth(input);
    case "tensor":
    case "state":
    case "constant":
      return weight * elementCountOf(concreteDims(input.dims));
  }
}

/** What decides how many frames there are. */
export type FrameSettings = Pick<
  WindowFeatures,
  "frameLength" | "frameHop" | "fftLength" | "alignment" | "padding"
>;

/** Samples that are put before and behind a window. */
export function paddingLength({ padding = "none", fftLength }: FrameSettings): number {
  return padding === "none" ? 0 : Math.floor(fftLength / 2);
}

/** Frames of features in so many samples: whole ones only, over what is padded. */
export function featureFrames(features: FrameSettings, samples: number): number {
  const frame = features.alignment === "centre" ? features.fftLength : features.frameLength;
  const length = samples + 2 * paddingLength(features);
  return Math.max(0, 1 + Math.floor((length - frame) / features.frameHop));
}

function featureExtent(features: WindowFeatures, samples: number): number {
  const { kind, fftLength, mel, coefficients } = features;
  const bins = fftLength / 2 + 1;
  const size = { spectrogram: bins, mel: mel?.bins ?? 0, mfcc: coefficients ?? mel?.bins ?? 0 }[kind];
  return featureFrames(features, samples) * size;
}

/** Frames that may be stacked for one run, at least one. */
export function batchFramesMax(
  inputs: readonly ModelInput[],
  max: number = INPUT_LIMITS.batchFramesMax,
): number {
  const values = inputs.reduce((sum, input) => sum + inputExtent(input), 0);
  return Math.min(Math.max(Math.floor(INPUT_LIMITS.batchElementsMax / Math.max(values, 1)), 1), max);
}

/** Why an input is refused; undefined where nothing speaks against it. */
export function inputProblem(input: ModelInput): string | undefined {
  const values = inputExtent(input);
  if (values > INPUT_LIMITS.elementsMax) {
    return `input "${input.name}" holds ${values} values, at most ${INPUT_LIMITS.elementsMax} allowed`;
  }
  if (input.kind === "image" && input.width * input.height > LIMITS.imagePixelsMax) {
    return `input "${input.name}" is ${input.width}×${input.height} pixels, at most ${LIMITS.imagePixelsMax} allowed`;
  }
  if (input.kind !== "window" || input.features === undefined) return undefined;
  const frames = featureFrames(input.features, (input.context + input.length) * input.channels);
  const transformed = frames * input.features.fftLength;
  if (transformed <= INPUT_LIMITS.transformedSamplesMax) return undefined;
  return `input "${input.name}" takes ${frames} transforms of ${input.features.fftLength} samples for a window, at most ${INPUT_LIMITS.transformedSamplesMax} samples allowed`;
}
