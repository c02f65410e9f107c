import type { Tensor } from "../backend.js";

/** A JPEG, PNG or WebP file as it came from the camera or the disk. */
export interface EncodedFrame {
  readonly kind: "encoded";
  readonly bytes: Uint8Array;
}

/** Decoded pixels: rows × columns × channels, RGB or gray, 0..255, no padding between rows. */
export interface PixelFrame {
  readonly kind: "pixels";
  readonly data: Uint8Array;
  readonly width: number;
  readonly height: number;
  readonly channels: 1 | 3;
}

/** One window of a sampled signal: `length · channels` new values as the manifest declares, before context and normalization. */
export interface WindowFrame {
  readonly kind: "window";
  readonly samples: Float32Array;
}

/**
 * Tensors by input name, for models without declared pre-processing, nodes of a pipeline and golden cases. State and
 * constant inputs may be left out: they are filled in.
 */
export interface TensorFrame {
  readonly kind: "tensors";
  readonly feeds: Readonly<Record<string, Tensor>>;
}

export type RowValue = number | string | boolean | null;

/** One row of a table by column name, before the manifest's encodings. */
export interface RowFrame {
  readonly kind: "row";
  readonly values: Readonly<Record<string, RowValue>>;
}

/** What a source delivers and a model predicts on. */
export type Frame = EncodedFrame | PixelFrame | WindowFrame | RowFrame | TensorFrame;

/**
 * Where the model's input lies in the source image: `source = model · scale + offset`, both in 0..1 of their own size.
 * The identity for `stretch`; a part of the model's input is padding for `letterbox`, a part of the source is unseen for `crop`.
 */
export interface Geometry {
  readonly scaleX: number;
  readonly scaleY: number;
  readonly offsetX: number;
  readonly offsetY: number;
}

export const IDENTITY_GEOMETRY: Geometry = { scaleX: 1, scaleY: 1, offsetX: 0, offsetY: 0 };

/** A frame made ready for the session. */
export interface PreparedFrame {
  readonly feeds: Readonly<Record<string, Tensor>>;
  readonly geometry: Geometry;
  /** Mean of the pixels the model sees, 0..1; only for images. */
  readonly brightness?: number;
  /** What the stream keeps of its windows for the next one, by input name; it takes effect when the run succeeds. */
  readonly contexts?: ReadonlyMap<string, Float32Array>;
  /** Memory of the preparer among the feeds, which the next frame may reuse. */
  readonly reusable?: Tensor;
}
