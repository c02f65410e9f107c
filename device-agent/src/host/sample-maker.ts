import { createHash } from "node:crypto";
import { FieldloopError, LIMITS, type MediaType, type SampleMetadata } from "@fieldloop/protocol";
import { formatRow, type Frame, type Prediction } from "@fieldloop/runtime";
import { encodeJpeg, imageTypeOf } from "@fieldloop/runtime/node";
import type { PredictionOrigin } from "../control/prediction-batcher.js";
import { AGENT_LIMITS } from "../limits.js";
import type { Decision } from "./sampler.js";
import type { ShadowVerdict } from "./shadow/tap.js";

/** A frame with its prediction, while the sampler thinks about it. */
export interface SampleCandidate {
  readonly frame: Frame;
  readonly prediction: Prediction;
  readonly worth: number;
  readonly boot: number;
  readonly n: number;
  readonly time: number;
  readonly origin: PredictionOrigin;
  readonly variant: string;
  readonly source: string;
  /** What the candidate in shadow made of it, where it saw the frame. */
  readonly shadow: ShadowVerdict | undefined;
}

/** The active version's, and how far the candidate's answer lies from its own. */
export function signalsOf(prediction: Prediction, shadow: ShadowVerdict | undefined): Prediction["signals"] {
  const disagreement = shadow?.disagreement;
  return disagreement === undefined ? prediction.signals : { ...prediction.signals, disagreement };
}

/**
 * The bytes of a sample: an image as it came, or pixels as JPEG (the model saw the pixels themselves), or a window as
 * float32 little-endian. @throws FieldloopError `limit_exceeded`, `image_undecodable`
 */
export async function samplePayload(frame: Frame): Promise<{ payload: Uint8Array; mediaType: MediaType }> {
  const result = await encode(frame);
  if (result.payload.length > LIMITS.sampleBytesMax) {
    throw new FieldloopError("limit_exceeded", `Take sample: ${result.payload.length} bytes`);
  }
  return result;
}

async function encode(frame: Frame): Promise<{ payload: Uint8Array; mediaType: MediaType }> {
  switch (frame.kind) {
    case "encoded": {
      const type = imageTypeOf(frame.bytes);
      if (type === "image/jpeg" || type === "image/png") return { payload: frame.bytes, mediaType: type };
      const payload = await encodeJpeg(frame, AGENT_LIMITS.sampleJpegQuality);
      return { payload, mediaType: "image/jpeg" };
    }
    case "pixels":
      return { payload: await encodeJpeg(frame, AGENT_LIMITS.sampleJpegQuality), mediaType: "image/jpeg" };
    case "window": {
      const { buffer, byteOffset, byteLength } = frame.samples;
      return {
        payload: new Uint8Array(buffer, byteOffset, byteLength).slice(),
        mediaType: "application/x-fieldloop-window",
      };
    }
    case "row":
      return { payload: formatRow(frame), mediaType: "application/json" };
    case "tensors":
      throw new FieldloopError(
        "invalid_argument",
        "Take sample: tensors have no form that a person can label",
      );
  }
}

export function sampleMetadata(
  candidate: SampleCandidate,
  decision: Decision,
  payload: Uint8Array,
  mediaType: MediaType,
): SampleMetadata {
  const { prediction, origin, shadow } = candidate;
  return {
    predictionBoot: candidate.boot,
    n: candidate.n,
    time: candidate.time,
    model: origin.model,
    version: origin.version,
    packageSha256: origin.packageSha256,
    variant: candidate.variant,
    stratum: decision.stratum,
    probability: decision.probability,
    worth: clampShare(candidate.worth),
    class: prediction.class,
    label: prediction.label,
    confidence: clampShare(prediction.confidence),
    latencyMs: Math.max(0, prediction.latencyMs),
    signals: finiteOnly(signalsOf(prediction, shadow)),
    ...(prediction.boxes ? { boxes: prediction.boxes.map((box) => ({ ...box })) } : {}),
    ...(prediction.embedding ? { embedding: new Float32Array(prediction.embedding) } : {}),
    mediaType,
    bytes: payload.length,
    sha256: createHash("sha256").update(payload).digest("hex"),
    source: candidate.source,
    ...(shadow?.context ? { context: { shadow: shadow.context } } : {}),
  };
}

function clampShare(value: number): number {
  return Math.min(1, Math.max(0, Number.isNaN(value) ? 0 : value));
}

function finiteOnly(signals: Prediction["signals"]): SampleMetadata["signals"] {
  return Object.fromEntries(Object.entries(signals).filter(([, value]) => Number.isFinite(value)));
}
