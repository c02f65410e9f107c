import type { Socket } from "node:net";
import {
  FieldloopError,
  formatPredictionId,
  toFieldloopError,
  type PredictionRow,
  type ErrorCode,
} from "@fieldloop/protocol";
import { predictionWorth, type BatchItem, type Prediction } from "@fieldloop/runtime";
import type { Clock, RandomSource } from "../clock.js";
import { FrameMark } from "../control/frame-mark.js";
import type { PredictionOrigin } from "../control/prediction-batcher.js";
import type { LaneStart, StartMessage } from "../ipc.js";
import type { ShadowBeginRequest } from "../ipc-shadow.js";
import { hashFrame } from "./frame-hash.js";
import { FreshStreams, STREAMS_MAX } from "./fresh-streams.js";
import type { LaneProfile } from "./lane-profile.js";
import type { HostModel } from "./model.js";
import { LaneNumbers, type NumberBlocks } from "./numbers.js";
import { Reporter, type Send } from "./reporter.js";
import { RunTime } from "./run-time.js";
import { sampleMetadata, samplePayload, signalsOf, type SampleCandidate } from "./sample-maker.js";
import { type Decision, Sampler } from "./sampler.js";
import type { ShadowTap, ShadowVerdict } from "./shadow/tap.js";
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

/** A frame on its way through a turn. */
interface Entry {
  readonly item: SourceFrame;
  readonly sha256: string;
}

/** What became of it. */
interface Answered extends Entry {
  readonly outcome: BatchItem;
  readonly stream: string;
  /** Its stream begins with it. */
  readonly begins: boolean;
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
  #tap: ShadowTap | undefined;
  /** Of the model that runs while a candidate is beside it. */
  #shadowedOrigin: PredictionOrigin | undefined;

  constructor(options: LaneRunnerOptions) {
    const { start, lane, sampling, send, clock, random, blocks } = options;
    this.#options = options;
    this.#reporter = new Reporter(send, lane.spec.name, new LaneNumbers(blocks, lane.numbers));
    this.#mark = new FrameMark(lane.frameMarkPath, options.onTrouble);
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
    const allowed = items
      .map((item) => ({ item, sha256: hashFrame(item.frame) }))
      .filter((entry) => this.#admit(entry))
      .map(({ item, sha256 }) => ({ item: this.#fresh.pass(item), sha256 }));
    let predicted = 0;
    let runError: FieldloopError | undefined;
    for (const together of this.#groups(allowed)) {
      for (const answered of await this.#predict(model, together)) {
        const { outcome, item } = answered;
        if (outcome.ok) {
          predicted++;
          await this.#succeeded(model, answered, outcome.prediction);
        } else {
          runError = outcome.error;
          this.#failed(item, outcome.error);
        }
      }
    }
    return { predicted, runError };
  }

  /** From now on a candidate sees what is answered. */
  async beginShadow(request: ShadowBeginRequest, socket: Socket, cores: number): Promise<void> {
    // Loaded with the first shadow: a host that has none does without.
    const { ShadowTap } = await import("./shadow/tap.js");
    await this.endShadow();
    const { clock, random, send, lane } = this.#options;
    const onDisagreement = (n: number, value: number): void => {
      if (this.#reporter.setSignal(n, "disagreement", value)) return;
      void send({ kind: "disagreement", lane: lane.spec.name, n, value });
    };
    this.#tap = new ShadowTap({ request, socket, cores, clock, random, send, onDisagreement });
  }

  /** Resolves when everything that was counted is told. */
  async endShadow(): Promise<void> {
    const tap = this.#tap;
    this.#tap = undefined;
    this.#shadowedOrigin = undefined;
    await tap?.end();
  }

  /** Called every now and then. `isRestricted`: the device cannot do all that it is asked for, and a candidate waits. */
  tick(isRestricted: boolean): void {
    this.sampler.tick(this.#options.clock.monotonic());
    this.#tap?.tick(isRestricted);
  }

  /** Another model runs from now on: what it carries of these streams, from an earlier time or another lane, is not theirs. */
  modelChanged(): void {
    void this.#reporter.flush();
    this.times.forget();
    this.#begun.clear();
    this.#shadowedOrigin = undefined;
  }

  /** After the last run. */
  async close(): Promise<void> {
    await this.endShadow();
    await this.#reporter.flush();
    this.#mark.close();
  }

  /** A frame that killed a host is not run again. */
  #admit({ item, sha256 }: Entry): boolean {
    if (!this.#quarantined.has(sha256)) return true;
    this.#fresh.lost(item);
    const message = `Predict: frame ${sha256.slice(0, 16)} killed the host before`;
    this.#failed(item, new FieldloopError("frame_quarantined", message));
    return false;
  }

  /** All together; one by one where one of them is under suspicion. */
  #groups(entries: readonly Entry[]): (readonly Entry[])[] {
    if (entries.length === 0) return [];
    const isApart = entries.some(({ sha256 }) => this.#suspects.has(sha256));
    return isApart ? entries.map((entry) => [entry]) : [entries];
  }

  async #predict(model: HostModel, entries: readonly Entry[]): Promise<readonly Answered[]> {
    const { clock, lane } = this.#options;
    const begin = clock.monotonic();
    this.#busySince = begin;
    this.#running = entries.length;
    this.#mark.begin(entries.map(({ sha256 }) => sha256));
    try {
      const answered: Answered[] = [];
      for (const run of byStream(entries, lane.spec.name)) {
        const { stream } = run;
        const begins = run.fresh || !this.#begun.has(stream);
        if (begins && this.#begun.size >= STREAMS_MAX) this.#begun.clear();
        this.#begun.add(stream);
        const frames = run.entries.map(({ item }) => item.frame);
        const outcomes = await model.predict(frames, stream, begins);
        for (const [at, entry] of run.entries.entries()) {
          answered.push({ ...entry, outcome: outcomes[at]!, stream, begins: begins && at === 0 });
        }
      }
      return answered;
    } finally {
      this.#mark.end();
      this.times.note(entries.length, clock.monotonic() - begin);
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

  async #succeeded(model: HostModel, answered: Answered, prediction: Prediction): Promise<void> {
    const { start, profile, onPredicted } = this.#options;
    const { item, sha256, stream, begins } = answered;
    const origin = this.#originOf(model);
    const n = this.#reporter.add(origin, rowOf(origin, item, prediction));
    profile.add(prediction);
    if (item.key !== undefined) onPredicted(item.key, n);
    const settle = (verdict: ShadowVerdict | undefined): void =>
      this.#offerSample(model, item, prediction, n, verdict);
    const { packageSha256 } = model.origin;
    const seen = { frame: item.frame, sha256, stream, begins, packageSha256, prediction, n, settle };
    // What the candidate sees is offered when it has answered.
    if (!this.#tap?.take(seen)) settle(undefined);
    if (!item.answer) return;
    await this.#reporter.flush();
    item.answer({ id: formatPredictionId(start.boot, n), prediction });
  }

  /** While a candidate is beside the model, its predictions have one signal more. */
  #originOf(model: HostModel): PredictionOrigin {
    if (!this.#tap) return model.origin;
    this.#shadowedOrigin ??= withDisagreement(model.origin);
    return this.#shadowedOrigin;
  }

  #offerSample(
    model: HostModel,
    item: SourceFrame,
    prediction: Prediction,
    n: number,
    shadow: ShadowVerdict | undefined,
  ): void {
    const { start, sourceName, clock } = this.#options;
    const worth = predictionWorth(signalsOf(prediction, shadow), prediction.confidence, model.baseline);
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
      shadow,
    };
    this.sampler.offer(candidate, worth, clock.monotonic(), shadow?.isSought);
  }

  async #takeSample(candidate: SampleCandidate, decision: Decision): Promise<void> {
    const { send, clock } = this.#options;
    const { payload, mediaType } = await samplePayload(candidate.frame);
    const metadata = sampleMetadata(candidate, decision, payload, mediaType);
    this.sampler.spent(decision.stratum, payload.length, clock.monotonic());
    await send({ kind: "sample", metadata, payload });
  }
}

interface StreamRun {
  readonly stream: string;
  /** The first of its frames follows on nothing. */
  readonly fresh: boolean;
  readonly entries: Entry[];
}

/** Frames in their order, those of one stream together up to a gap in it. */
function byStream(entries: readonly Entry[], own: string): StreamRun[] {
  const runs: StreamRun[] = [];
  for (const entry of entries) {
    const { isGuest, stream: part, fresh = false } = entry.item;
    const stream = isGuest ? `${GUEST_STREAM}${own}` : part === undefined ? own : `${own} ${part}`;
    const last = runs.at(-1);
    if (last?.stream === stream && !fresh) last.entries.push(entry);
    else runs.push({ stream, fresh, entries: [entry] });
  }
  return runs;
}

function rowOf(origin: PredictionOrigin, item: SourceFrame, prediction: Prediction): PredictionRow {
  return {
    time: Math.round(item.time),
    class: prediction.class,
    confidence: prediction.confidence,
    latencyMs: prediction.latencyMs,
    signals: origin.signalNames.map((name) => prediction.signals[name] ?? Number.NaN),
    ...(prediction.boxes ? { boxes: prediction.boxes } : {}),
  };
}

function withDisagreement(origin: PredictionOrigin): PredictionOrigin {
  const { signalNames } = origin;
  return signalNames.includes("disagreement")
    ? origin
    : { ...origin, signalNames: [...signalNames, "disagreement"] };
}
