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
  /** Names the frame to its source again, when its prediction has a number. */
  readonly key?: number;
  /** Tells whoever pushed the frame. */
  readonly answer?: (outcome: Outcome) => void;
}

/** Where a source puts its frames. */
export interface FrameSink {
  offer(frame: SourceFrame): void;
  /** Resolves when a frame can be offered without dropping one. */
  space(): Promise<void>;
  readonly isFull: boolean;
  noteMissed(count: number): void;
}

/** `oldest`: a new frame drops the oldest waiting one. `wait`: the source waits. `refuse`: the new one is answered "busy". */
export type DropPolicy = "oldest" | "wait" | "refuse";

export interface SourceContext {
  readonly sink: FrameSink;
  readonly clock: Clock;
  /** The source cannot deliver, or can again (undefined). It goes on trying by itself. */
  readonly onTrouble: (error: FieldloopError | undefined) => void;
  /** Truth of earlier predictions, said by a source that knows it. */
  readonly onFeedback: (items: readonly { readonly n: number; readonly label: string }[]) => void;
}

/** A source of frames: `open`, frames into the sink, `close`. */
export interface Source {
  readonly dropPolicy: DropPolicy;
  open(): Promise<void>;
  /** After it resolves no frame comes any more. */
  close(): Promise<void>;
  /** Prediction number `n` was made of the frame with this key. */
  predicted?(key: number, n: number): void;
  /** Simulators only. @throws FieldloopError `invalid_argument` */
  setCondition?(condition: string): void;
  /** Simulators only: the truth of prediction `n`, while it is remembered. */
  truth?(n: number): string | undefined;
}

export type SourceKind = SourceSpec["kind"];
