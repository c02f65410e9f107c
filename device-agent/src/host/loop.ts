import { createHash } from "node:crypto";
import {
  FieldloopError,
  formatPredictionId,
  toFieldloopError,
  type PredictionRow,
} from "@fieldloop/protocol";
import { predictionWorth, ProfileAccumulator, type Frame, type Prediction } from "@fieldloop/runtime";
import type { Clock, RandomSource } from "../clock.js";
import { FrameMark } from "../control/frame-mark.js";
import type { Activation, Heartbeat, PackageToRun, StartMessage } from "../ipc.js";
import { AGENT_LIMITS } from "../limits.js";
import { sourceName } from "../source-spec.js";
import { FrameQueue } from "./frame-queue.js";
import { HostModel } from "./model.js";
import { Reporter, type Send } from "./reporter.js";
import { sampleMetadata, samplePayload, type SampleCandidate } from "./sample-maker.js";
import { type Decision, Sampler } from "./sampler.js";
import { createSource } from "./sources/open.js";
import type { Source, SourceFrame } from "./sources/source.js";

export interface LoopOptions {
  readonly start: StartMessage;
  readonly send: Send;
  readonly clock: Clock;
  readonly random: RandomSource;
}

/** Scenes of a simulator begin so far apart that no start of the agent shows a frame of another. */
const FRAMES_PER_BOOT = 10_000_000;
/** Weight of the newest run in the running mean of run times. */
const EXPECTED_WEIGHT = 0.1;

/** source → queue → model → numbers, profile, sampler: one frame at a time, and a new model between two of them. */
export class InferenceLoop {
  readonly #start: StartMessage;
  readonly #send: Send;
  readonly #clock: Clock;
  readonly #queue = new FrameQueue(AGENT_LIMITS.frameQueueMax);
  readonly #reporter: Reporter;
  readonly #sampler: Sampler<SampleCandidate>;
  readonly #source: Source;
  readonly #mark: FrameMark;
  readonly #quarantined: ReadonlySet<string>;
  readonly #sourceName: string;
  #profile = new ProfileAccumulator();
  #profileFrom: number;
  #profileDropped = 0;
  #profileFailed = 0;
  #profileIntervalMs: number;
  #model: HostModel | undefined;
  #betweenFrames: (() => void) | undefined;
  #busySince = 0;
  #expectedMs = 0;
  #framesFailed = 0;
  #samplesTaken = 0;
  #sourceOpen = false;
  #running: Promise<void> = Promise.resolve();
  #timers: NodeJS.Timeout[] = [];
  #troubles = new Set<string>();

  constructor(options: LoopOptions) {
    const { start, clock } = options;
    this.#start = start;
    this.#send = options.send;
    this.#clock = clock;
    this.#reporter = new Reporter(options.send, start.nextN);
    this.#sampler = new Sampler(start.sampling, options.random, clock.monotonic(), (candidate, decision) => {
      this.#takeSample(candidate, decision).catch((error: unknown) => this.#warn(toFieldloopError(error)));
    });
    this.#mark = new FrameMark(start.frameMarkPath);
    this.#quarantined = new Set(start.quarantined);
    this.#sourceName = sourceName(start.source);
    this.#profileFrom = clock.now();
    this.#profileIntervalMs = start.profileIntervalSeconds * 1000;
    this.#source = createSource(
      start.source,
      {
        sink: this.#queue,
        clock,
        onTrouble: (error) => {
          if (error) this.#warn(error);
          else this.#clear("source_failed");
        },
        onFeedback: (items) => void this.#send({ kind: "feedback", items }),
      },
      start.boot * FRAMES_PER_BOOT + start.nextN,
    );
  }

  /** Begins to take frames; the source opens with the first model. */
  start(): void {
    this.#running = this.#run();
    this.#timers = [
      setInterval(() => void this.#send(this.#heartbeat()), AGENT_LIMITS.heartbeatIntervalMs),
      setInterval(() => this.#tick(), 250),
    ];
  }

  /** Awaits the run in hand, then releases everything. */
  async stop(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    await this.#source.close();
    this.#queue.close();
    await this.#running;
    this.#cutProfile();
    await this.#reporter.flush();
    await this.#model?.close();
    this.#mark.close();
  }

  /** Loads and warms beside the model that runs, then swaps between two frames. @throws FieldloopError with the old one still running */
  async activate(target: PackageToRun): Promise<Activation> {
    const droppedBefore = this.#queue.dropped;
    const current = this.#model;
    if (current?.origin.packageSha256 === target.packageSha256) return activationOf(current, 0, 0, 0);
    this.#queue.resize(AGENT_LIMITS.frameQueueSwapMax);
    let next: HostModel;
    let swapGapMs: number;
    try {
      next = await HostModel.load(target, this.#start.threadCount);
      swapGapMs = await this.#swap(next);
      await current?.close();
    } finally {
      this.#queue.shrinkWhenDrained(AGENT_LIMITS.frameQueueMax);
      // A model too slow to catch up must not lag behind its camera for ever.
      setTimeout(() => this.#queue.resize(AGENT_LIMITS.frameQueueMax), AGENT_LIMITS.frameCatchUpMs).unref();
    }
    const framesDroppedDuringSwap = this.#queue.dropped - droppedBefore;
    await this.#openSource();
    return activationOf(next, Math.round(next.loadMs), swapGapMs, framesDroppedDuringSwap);
  }

  async deactivate(): Promise<void> {
    const old = this.#model;
    await this.#swap(undefined);
    await old?.close();
  }

  setPolicy(sampling: StartMessage["sampling"], profileIntervalSeconds: number): void {
    this.#sampler.setPolicy(sampling, this.#clock.monotonic());
    this.#profileIntervalMs = profileIntervalSeconds * 1000;
  }

  capture(count: number): void {
    this.#sampler.capture(count);
  }

  /** @throws FieldloopError `invalid_argument`, `conflict` where the source is no simulator */
  setCondition(condition: string): void {
    if (!this.#source.setCondition) throw noSimulator(this.#sourceName);
    this.#source.setCondition(condition);
  }

  /** @throws FieldloopError `conflict` where the source is no simulator */
  truth(n: number): string | undefined {
    if (!this.#source.truth) throw noSimulator(this.#sourceName);
    return this.#source.truth(n);
  }

  async #openSource(): Promise<void> {
    if (this.#sourceOpen) return;
    this.#sourceOpen = true;
    try {
      await this.#source.open();
      this.#clear("source_failed");
    } catch (error) {
      this.#sourceOpen = false;
      this.#warn(toFieldloopError(error));
      setTimeout(() => void this.#openSource(), AGENT_LIMITS.sourceRestartMaxMs / 4).unref();
    }
  }

  /** Milliseconds that the loop could take no frame: what is done between two frames is an assignment. */
  #swap(next: HostModel | undefined): Promise<number> {
    return new Promise((resolve) => {
      const swap = (): void => {
        const begin = performance.now();
        this.#cutProfile();
        void this.#reporter.flush();
        this.#model = next;
        this.#expectedMs = 0;
        resolve(performance.now() - begin);
      };
      if (this.#busySince === 0) swap();
      else this.#betweenFrames = swap;
    });
  }

  async #run(): Promise<void> {
    for (;;) {
      const item = await this.#queue.take();
      if (item === undefined) return;
      const model = this.#model;
      if (!model) {
        item.answer?.(new FieldloopError("unavailable", "Predict: no model is active yet"));
        continue;
      }
      this.#busySince = this.#clock.monotonic();
      try {
        await this.#predict(model, item);
      } catch (error) {
        this.#framesFailed++;
        this.#profileFailed++;
        const coded = toFieldloopError(error);
        this.#warn(coded);
        item.answer?.(coded);
      }
      this.#busySince = 0;
      const swap = this.#betweenFrames;
      this.#betweenFrames = undefined;
      swap?.();
    }
  }

  async #predict(model: HostModel, item: SourceFrame): Promise<void> {
    const sha256 = hashFrame(item.frame);
    if (this.#quarantined.has(sha256)) {
      throw new FieldloopError(
        "frame_quarantined",
        `Predict: frame ${sha256.slice(0, 16)} killed the host before`,
      );
    }
    const begin = this.#clock.monotonic();
    this.#mark.begin(sha256);
    let prediction: Prediction;
    try {
      prediction = await model.predict(item.frame);
    } finally {
      this.#mark.end();
    }
    const tookMs = this.#clock.monotonic() - begin;
    this.#expectedMs =
      this.#expectedMs === 0 ? tookMs : this.#expectedMs + EXPECTED_WEIGHT * (tookMs - this.#expectedMs);
    const n = this.#reporter.add(model.origin, rowOf(model, item, prediction));
    this.#profile.add(prediction);
    if (item.key !== undefined) this.#source.predicted?.(item.key, n);
    this.#offerSample(model, item, prediction, n);
    this.#clear("model_run_failed");
    if (item.answer) {
      await this.#reporter.flush();
      item.answer({ id: formatPredictionId(this.#start.boot, n), prediction });
    }
  }

  #offerSample(model: HostModel, item: SourceFrame, prediction: Prediction, n: number): void {
    const worth = predictionWorth(prediction.signals, prediction.confidence, model.baseline);
    const candidate: SampleCandidate = {
      frame: item.frame,
      prediction,
      worth,
      boot: this.#start.boot,
      n,
      time: Math.round(item.time),
      origin: model.origin,
      variant: model.variant,
      source: this.#sourceName,
    };
    this.#sampler.offer(candidate, worth, this.#clock.monotonic());
  }

  async #takeSample(candidate: SampleCandidate, decision: Decision): Promise<void> {
    const { payload, mediaType } = await samplePayload(candidate.frame);
    const metadata = sampleMetadata(candidate, decision, payload, mediaType);
    this.#sampler.spent(decision.stratum, payload.length, this.#clock.monotonic());
    this.#samplesTaken++;
    await this.#send({ kind: "sample", metadata, payload });
  }

  #tick(): void {
    this.#sampler.tick(this.#clock.monotonic());
    if (this.#clock.now() - this.#profileFrom >= this.#profileIntervalMs) this.#cutProfile();
  }

  #cutProfile(): void {
    const from = this.#profileFrom;
    const to = Math.max(from, this.#clock.now());
    const framesDropped = this.#queue.dropped - this.#profileDropped;
    const framesFailed = this.#profileFailed;
    const model = this.#model;
    this.#profileFrom = to;
    if (!model || (this.#profile.count === 0 && framesDropped === 0 && framesFailed === 0)) return;
    this.#profileDropped = this.#queue.dropped;
    this.#profileFailed = 0;
    const statistics = this.#profile.take();
    const { model: name, version } = model.origin;
    void this.#send({
      kind: "profile",
      model: name,
      version,
      from,
      to,
      statistics,
      framesDropped,
      framesFailed,
    });
  }

  #heartbeat(): Heartbeat {
    return {
      kind: "heartbeat",
      runningMs: this.#busySince === 0 ? 0 : this.#clock.monotonic() - this.#busySince,
      expectedMs: this.#expectedMs,
      framesSeen: this.#queue.seen,
      framesDropped: this.#queue.dropped,
      framesFailed: this.#framesFailed,
      samplesTaken: this.#samplesTaken,
      residentBytes: process.memoryUsage.rss(),
    };
  }

  #warn(error: FieldloopError): void {
    this.#troubles.add(error.code);
    void this.#send({ kind: "warning", failure: { code: error.code, message: error.message }, active: true });
  }

  #clear(code: "source_failed" | "model_run_failed"): void {
    if (!this.#troubles.delete(code)) return;
    void this.#send({ kind: "warning", failure: { code, message: "" }, active: false });
  }
}

function activationOf(
  model: HostModel,
  loadMs: number,
  swapGapMs: number,
  framesDroppedDuringSwap: number,
): Activation {
  const { origin, variant, executionProvider } = model;
  return { origin, variant, executionProvider, loadMs, swapGapMs, framesDroppedDuringSwap };
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

/** SHA-256 of the frame as the source gave it. */
function hashFrame(frame: Frame): string {
  const hash = createHash("sha256");
  switch (frame.kind) {
    case "encoded":
      return hash.update(frame.bytes).digest("hex");
    case "pixels":
      return hash.update(frame.data).digest("hex");
    case "window": {
      const { buffer, byteOffset, byteLength } = frame.samples;
      return hash.update(new Uint8Array(buffer, byteOffset, byteLength)).digest("hex");
    }
    case "row":
      return hash.update(JSON.stringify(frame.values)).digest("hex");
    case "tensors":
      for (const tensor of Object.values(frame.feeds)) {
        if (!Array.isArray(tensor.data)) {
          hash.update(new Uint8Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength));
        }
      }
      return hash.digest("hex");
  }
}

function noSimulator(source: string): FieldloopError {
  return new FieldloopError("conflict", `Ask the simulator: the source is "${source}"`);
}
