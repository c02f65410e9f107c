import {
  FieldloopError,
  formatPredictionId,
  toFieldloopError,
  type PredictionRow,
  type ErrorCode,
} from "@fieldloop/protocol";
import { predictionWorth, type BatchItem, type Frame, type Prediction } from "@fieldloop/runtime";
import type { Clock, RandomSource } from "../clock.js";
import { FrameMark } from "../control/frame-mark.js";
import type { LaneStart, StartMessage } from "../ipc.js";
import { hashFrame } from "./frame-hash.js";
import { FreshStreams, STREAMS_MAX } from "./fresh-streams.js";
import type { LaneProfile } from "./lane-profile.js";
import type { HostModel } from "./model.js";
import { LaneNumbers, type NumberBlocks } from "./numbers.js";
import { Reporter, type Send } from "./reporter.js";
import { RunTime } from "./run-time.js";
import { sampleMetadata, samplePayload, type SampleCandidate } from "./sample-maker.js";
import { type Decision, Sampler } from "./sampler.js";
import type { SourceFrame } from "./sources/source.js";

export interface LaneRunnerOptions {
  readonly start: StartMessage;
  readonly lane: LaneStart;
  readonly sampling: StartMessage["sampling"];
  readonly sourceName: string;
  readonly blocks: NumberBlocks;
  readonly profile: LaneProfile;
  readonly send: Send;
  readonly clock: Clock;
  readonly random: RandomSource;
  /** Prediction `n` was made of the frame with this key. */
  readonly onPredicted: (key: number, n: number) => void;
  readonly onTrouble: (error: FieldloopError) => void;
}

/** Before the name of a lane: no name of a lane holds a colon. */
const GUEST_STREAM = "guest:";
/** Errors that say something of a frame alone. */
const GUEST_FAULTS: ReadonlySet<ErrorCode> = new Set([
  "image_undecodable",
  "image_too_large",
  "image_type_refused",
  "window_invalid",
  "row_invalid",
  "row_malformed",
  "invalid_argument",
  "limit_exceeded",
]);

/** What a turn came to. */
export interface TurnResult {
  readonly predicted: number;
  /** Why frames failed in the model itself, the last of them. */
  readonly runError: FieldloopError | undefined;
}

/** Frames of one lane through a model: marked, run, numbered, added to the profile, offered to the sampler, answered. */
export class LaneRunner {
  readonly sampler: Sampler<SampleCandidate>;
  readonly times = new RunTime();
  readonly #options: LaneRunnerOptions;
  readonly #reporter: Reporter;
  readonly #mark: FrameMark;
  readonly #quarantined: ReadonlySet<string>;
  readonly #suspects: ReadonlySet<string>;
  readonly #fresh = new FreshStreams();
  /** Streams of which the model that runs has seen a frame. */
  readonly #begun = new Set<string>();
  #busySince = 0;
  #running = 0;
  #framesFailed = 0;

  constructor(options: LaneRunnerOptions) {
    const { start, lane, sampling, send, clock, random, blocks } = options;
    this.#options = options;
    this.#reporter = new Reporter(send, lane.spec.name, new LaneNumbers(blocks, lane.numbers));
    this.#mark = new FrameMark(lane.frameMarkPath);
    this.#quarantined = new Set(start.quarantined);
    this.#suspects = new Set(start.suspects);
    this.sampler = new Sampler(sampling, random, clock.monotonic(), (candidate, decision) => {
      this.#takeSample(candidate, decision).catch((error: unknown) =>
        options.onTrouble(toFieldloopError(error)),
      );
    });
  }

  get framesFailed(): number {
    return this.#framesFailed;
  }
  /** How long the run in hand takes already; 0 between runs. */
  get runningMs(): number {
    return this.#busySince === 0 ? 0 : this.#options.clock.monotonic() - this.#busySince;
  }
  /** What the run in hand, or the next single one, usually takes. */
  get expectedMs(): number {
    return this.times.expectedMs(Math.max(1, this.#running));
  }

  /** Never rejects: a frame that fails is counted, told and answered. */
  async run(model: HostModel, items: readonly SourceFrame[]): Promise<TurnResult> {
    const marked = items.map((item) => ({ item, sha256: hashFrame(item.frame) }));
    const allowed = marked
      .filter((frame) => this.#admit(frame))
      .map(({ item, sha256 }) => ({ item: this.#fresh.pass(item), sha256 }));
    let predicted = 0;
    let runError: FieldloopError | undefined;
    for (const together of this.#groups(allowed)) {
      const outcomes = await this.#predict(model, together);
      for (const [index, outcome] of outcomes.entries()) {
        const { item } = together[index]!;
        if (outcome.ok) {
          predicted++;
          await this.#succeeded(model, item, outcome.prediction);
        } else {
          runError = outcome.error;
          this.#failed(item, outcome.error);
        }
      }
    }
    return { predicted, runError };
  }

  /** Another model runs from now on: what it carries of these streams, from an earlier time or another lane, is not theirs. */
  modelChanged(): void {
    void this.#reporter.flush();
    this.times.forget();
    this.#begun.clear();
  }

  /** After the last run. */
  async close(): Promise<void> {
    await this.#reporter.flush();
    this.#mark.close();
  }

  /** A frame that killed a host is not run again. */
  #admit({ item, sha256 }: MarkedFrame): boolean {
    if (!this.#quarantined.has(sha256)) return true;
    this.#fresh.lost(item);
    const message = `Predict: frame ${sha256.slice(0, 16)} killed the host before`;
    this.#failed(item, new FieldloopError("frame_quarantined", message));
    return false;
  }

  /** All together; one by one where one of them is under suspicion. */
  #groups(frames: readonly MarkedFrame[]): (readonly MarkedFrame[])[] {
    if (frames.length === 0) return [];
    const isApart = frames.some(({ sha256 }) => this.#suspects.has(sha256));
    return isApart ? frames.map((frame) => [frame]) : [frames];
  }

  async #predict(model: HostModel, frames: readonly MarkedFrame[]): Promise<readonly BatchItem[]> {
    const { clock, lane } = this.#options;
    const begin = clock.monotonic();
    const items = frames.map(({ item }) => item);
    this.#busySince = begin;
    this.#running = items.length;
    this.#mark.begin(frames.map(({ sha256 }) => sha256));
    try {
      const outcomes: BatchItem[] = [];
      for (const { stream, fresh, frames } of byStream(items, lane.spec.name)) {
        const begins = !this.#begun.has(stream);
        if (begins && this.#begun.size >= STREAMS_MAX) this.#begun.clear();
        this.#begun.add(stream);
        outcomes.push(...(await model.predict(frames, stream, fresh || begins)));
      }
      return outcomes;
    } finally {
      this.#mark.end();
      this.times.note(items.length, clock.monotonic() - begin);
      this.#busySince = 0;
      this.#running = 0;
    }
  }

  #failed(item: SourceFrame, error: FieldloopError): void {
    // A program that pushes what is no frame is told so; neither source nor model is to blame.
    if (item.isGuest && GUEST_FAULTS.has(error.code)) {
      item.answer?.(error);
      return;
    }
    this.#framesFailed++;
    this.#options.profile.noteFailed();
    this.#options.onTrouble(error);
    item.answer?.(error);
  }

  async #succeeded(model: HostModel, item: SourceFrame, prediction: Prediction): Promise<void> {
    const { start, profile, onPredicted } = this.#options;
    const n = this.#reporter.add(model.origin, rowOf(model, item, prediction));
    profile.add(prediction);
    if (item.key !== undefined) onPredicted(item.key, n);
    this.#offerSample(model, item, prediction, n);
    if (!item.answer) return;
    await this.#reporter.flush();
    item.answer({ id: formatPredictionId(start.boot, n), prediction });
  }

  #offerSample(model: HostModel, item: SourceFrame, prediction: Prediction, n: number): void {
    const { start, sourceName, clock } = this.#options;
    const worth = predictionWorth(prediction.signals, prediction.confidence, model.baseline);
    const candidate: SampleCandidate = {
      frame: item.frame,
      prediction,
      worth,
      boot: start.boot,
      n,
      time: Math.round(item.time),
      origin: model.origin,
      variant: model.variant,
      source: sourceName,
    };
    this.sampler.offer(candidate, worth, clock.monotonic());
  }

  async #takeSample(candidate: SampleCandidate, decision: Decision): Promise<void> {
    const { send, clock } = this.#options;
    const { payload, mediaType } = await samplePayload(candidate.frame);
    const metadata = sampleMetadata(candidate, decision, payload, mediaType);
    this.sampler.spent(decision.stratum, payload.length, clock.monotonic());
    await send({ kind: "sample", metadata, payload });
  }
}

interface MarkedFrame {
  readonly item: SourceFrame;
  readonly sha256: string;
}

interface StreamRun {
  readonly stream: string;
  /** The first of its frames follows on nothing. */
  readonly fresh: boolean;
  readonly frames: Frame[];
}

/** Frames in their order, those of one stream together up to a gap in it. */
function byStream(items: readonly SourceFrame[], own: string): StreamRun[] {
  const runs: StreamRun[] = [];
  for (const { frame, isGuest, stream: part, fresh = false } of items) {
    const stream = isGuest ? `${GUEST_STREAM}${own}` : part === undefined ? own : `${own} ${part}`;
    const last = runs.at(-1);
    if (last?.stream === stream && !fresh) last.frames.push(frame);
    else runs.push({ stream, fresh, frames: [frame] });
  }
  return runs;
}

function rowOf(model: HostModel, item: SourceFrame, prediction: Prediction): PredictionRow {
  return {
    time: Math.round(item.time),
    class: prediction.class,
    confidence: prediction.confidence,
    latencyMs: prediction.latencyMs,
    signals: model.origin.signalNames.map((name) => prediction.signals[name] ?? Number.NaN),
    ...(prediction.boxes ? { boxes: prediction.boxes } : {}),
  };
}
