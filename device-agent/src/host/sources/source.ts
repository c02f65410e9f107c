import type { Readable } from "node:stream";
import type { FieldloopError } from "@fieldloop/protocol";
import type { Frame, Prediction } from "@fieldloop/runtime";
import type { Clock } from "../../clock.js";
import type { SourceSpec } from "../../source-spec.js";

/** What became of a frame: its prediction, the error that it met, or undefined where it was dropped. */
export type Outcome = { readonly id: string; readonly prediction: Prediction } | FieldloopError | undefined;

export interface SourceFrame {
  readonly frame: Frame;
  /** When it was taken, milliseconds since the epoch. */
  readonly time: number;
  /** The first of a stream, or the first after a gap in it: what a model carried from frames before does not fit it. */
  readonly fresh?: boolean;
  /** Which of the streams of its source it belongs to, where that has several: a topic, a connection. */
  readonly stream?: string;
  /** Not the source's own but pushed by another program: it carries nothing from the source's frames, and they nothing from it. */
  readonly isGuest?: true;
  /** Names the frame to its source again, when its prediction has a number. */
  readonly key?: number;
  /** Tells whoever pushed the frame. */
  readonly answer?: (outcome: Outcome) => void;
}

/** Where a source puts its frames. */
export interface FrameSink {
  offer(frame: SourceFrame): void;
  /** Resolves when there was a place: whoever waited beside may have taken it, so {@link isFull} is looked at again. */
  space(): Promise<void>;
  /** A frame that is offered now drops one, or is not taken. */
  readonly isFull: boolean;
  noteMissed(count: number): void;
}

/** `oldest`: a new frame drops the oldest waiting one. `wait`: the source waits. `refuse`: the new one is answered "busy". */
export type DropPolicy = "oldest" | "wait" | "refuse";

/** What a window model wants to be given; see `WindowInput` of the manifest. */
export interface WindowShape {
  /** Samples of each channel in a window. */
  readonly length: number;
  /** Samples from the begin of one window to that of the next. */
  readonly hop: number;
  readonly channels: number;
  readonly sampleRateHz: number;
}

export interface SourceContext {
  readonly sink: FrameSink;
  readonly clock: Clock;
  /**
   * The source cannot deliver, or a part of what it read was no use; undefined: everything told before is over. It goes on
   * trying by itself. Codes: `source_failed`, `row_malformed`.
   */
  readonly onTrouble: (error: FieldloopError | undefined) => void;
  /** All of it was delivered, and no more will come. */
  readonly onEnd?: () => void;
  /** Truth of earlier predictions, said by a source that knows it. */
  readonly onFeedback: (items: readonly { readonly n: number; readonly label: string }[]) => void;
  /** The window that the active model wants; undefined for a model of another kind. Asked again as the stream goes on. */
  readonly window?: () => WindowShape | undefined;
  /** Names of the table columns that the active model wants, in order; rows without names get them by position. */
  readonly columns?: () => readonly string[] | undefined;
  /** For `csv:-` and `ndjson:-`; the process's own where there is none. */
  readonly stdin?: Readable;
}

/** A source of frames: `open`, frames into the sink, `close`. */
export interface Source {
  readonly dropPolicy: DropPolicy;
  open(): Promise<void>;
  /** After it resolves no frame comes any more. */
  close(): Promise<void>;
  /** What it counted since it was made, e.g. rows, malformedRows, gaps, restarts; for metrics. */
  counts?(): Readonly<Record<string, number>>;
  /** Prediction number `n` was made of the frame with this key. */
  predicted?(key: number, n: number): void;
  /** Simulators only. @throws FieldloopError `invalid_argument` */
  setCondition?(condition: string): void;
  /** Simulators only: the truth of prediction `n`, while it is remembered. */
  truth?(n: number): string | undefined;
}

export type SourceKind = SourceSpec["kind"];
