import type { Socket } from "node:net";
import { DISAGREES_FROM, type SampleContext, toFieldloopError } from "@fieldloop/protocol";
import type { Frame, Prediction } from "@fieldloop/runtime";
import type { Clock, RandomSource } from "../../clock.js";
import type { ShadowBeginRequest } from "../../ipc-shadow.js";
import { AGENT_LIMITS } from "../../limits.js";
import type { Send } from "../reporter.js";
import { LineSplitter } from "../sources/line-splitter.js";
import { CpuShare } from "./cpu-share.js";
import { FrameRuns, type Showing } from "./runs.js";
import { ShadowTally } from "./tally.js";
import { decodeReply, encodeShadowFrame, type ShadowReply } from "./wire.js";

/** What the candidate makes of a frame, for the sampler. */
export interface ShadowVerdict {
  /** It is what the fleet looks for: the decisions differ, or the candidate's process ended with it. */
  readonly isSought: boolean;
  /** Undefined where the two have nothing that could be compared. */
  readonly disagreement: number | undefined;
  /** Undefined where the candidate gave no answer. */
  readonly context: NonNullable<SampleContext["shadow"]> | undefined;
}

/** A frame that the active version answered. */
export interface AnsweredFrame {
  readonly frame: Frame;
  readonly sha256: string;
  readonly stream: string;
  /** Its stream begins with it: the active version knows of nothing before it either. */
  readonly begins: boolean;
  readonly packageSha256: string;
  readonly prediction: Prediction;
  /** Number of the prediction. */
  readonly n: number;
  /** Called once where the frame is shown: with what the candidate makes of it, or with nothing. */
  readonly settle: (verdict: ShadowVerdict | undefined) => void;
}

export interface ShadowTapOptions {
  readonly request: ShadowBeginRequest;
  /** Its other end is the candidate's. */
  readonly socket: Socket;
  readonly cores: number;
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly send: Send;
  /** The candidate decided otherwise about prediction `n`. */
  readonly onDisagreement: (n: number, value: number) => void;
}

/**
 * Shows a candidate what the active version of a lane answers, within its share of the processor, and hears what it makes of it. A lane is
 * never held up: a frame is shown by writing it to a socket, or left out. Nothing that the candidate does reaches further than this object.
 */
export class ShadowTap {
  readonly #options: ShadowTapOptions;
  readonly #share: CpuShare;
  readonly #runs = new FrameRuns();
  readonly #tally = new ShadowTally();
  readonly #inHand = new Map<number, AnsweredFrame>();
  #bytesInHand = 0;
  #nextId = 0;
  #paused = false;
  #ended = false;

  constructor(options: ShadowTapOptions) {
    const { request, socket, cores, clock, random } = options;
    this.#options = options;
    const { shadowBurstSeconds, shadowSequenceBurstSeconds, shadowReplyBytesMax } = AGENT_LIMITS;
    this.#share = new CpuShare({
      shareMax: request.cpuShareMax,
      cores,
      burstSeconds: request.isSequential ? shadowSequenceBurstSeconds : shadowBurstSeconds,
      random,
      nowMs: clock.monotonic(),
    });
    const lines = new LineSplitter(shadowReplyBytesMax, () => socket.destroy());
    socket.on("data", (chunk: Buffer) => {
      for (const line of lines.push(chunk)) this.#heard(line);
    });
    socket.on("error", () => socket.destroy());
    socket.on("close", () => this.#closed());
  }

  /** True where the candidate sees it: then `settle` is called later. */
  take(seen: AnsweredFrame): boolean {
    if (this.#ended || seen.packageSha256 !== this.#options.request.against) return false;
    this.#tally.add("frames");
    const showing = this.#mayShow(seen.stream, seen.begins) ? this.#howToShow(seen) : undefined;
    if (showing && this.#show(seen, showing)) return true;
    this.#runs.leaveOut(seen.stream);
    this.#tally.add("skipped");
    return false;
  }

  /** Called every now and then: says what happened. `isPaused`: the device has no time for a candidate. */
  tick(isPaused: boolean): void {
    this.#paused = isPaused;
    void this.#tell();
  }

  /** Shows nothing more; frames in hand are given up. Resolves when everything that was counted is told. */
  async end(): Promise<void> {
    this.#ended = true;
    this.#options.socket.destroy();
    this.#giveUp(undefined);
    await this.#tell();
  }

  #mayShow(stream: string, begins: boolean): boolean {
    const { shadowFramesInHandMax, shadowSequenceInHandMax, shadowBytesInHandMax } = AGENT_LIMITS;
    const { isSequential } = this.#options.request;
    const inHandMax = isSequential ? shadowSequenceInHandMax : shadowFramesInHandMax;
    if (this.#paused || this.#inHand.size >= inHandMax || this.#bytesInHand >= shadowBytesInHandMax)
      return false;
    const now = this.#options.clock.monotonic();
    if (!isSequential) return this.#share.allows(now);
    return this.#runs.isRunning(stream) && !begins ? this.#share.allowsNext(now) : this.#share.allowsRun(now);
  }

  #howToShow({ stream, begins }: AnsweredFrame): Showing {
    return this.#options.request.isSequential
      ? this.#runs.show(stream, begins)
      : { fresh: false, compare: true };
  }

  #show(seen: AnsweredFrame, showing: Showing): boolean {
    const { socket, clock } = this.#options;
    const { frame, sha256, stream, prediction } = seen;
    const begin = performance.now();
    const id = this.#nextId++;
    let chunks: Uint8Array[];
    try {
      chunks = encodeShadowFrame({ id, stream, sha256, frame, answer: prediction, ...showing });
    } catch {
      // Something in it cannot be told to another process: it is left out like one that there is no time for.
      return false;
    }
    this.#inHand.set(id, seen);
    this.#bytesInHand += bytesOf(frame);
    socket.cork();
    for (const chunk of chunks) socket.write(chunk);
    socket.uncork();
    this.#spent(performance.now() - begin, clock.monotonic());
    return true;
  }

  #heard(line: string): void {
    if (this.#ended) return;
    let reply: ShadowReply;
    try {
      reply = decodeReply(line);
    } catch (error) {
      this.#options.socket.destroy(toFieldloopError(error));
      return;
    }
    this.#spent(reply.cpuMs, this.#options.clock.monotonic());
    const seen = this.#inHand.get(reply.id);
    if (!seen) return;
    this.#letGo(reply.id, seen);
    seen.settle(this.#judge(seen, reply));
  }

  #judge({ prediction, n }: AnsweredFrame, { answer, failure }: ShadowReply): ShadowVerdict | undefined {
    if (failure) {
      this.#tally.failed(failure);
      return undefined;
    }
    if (!answer) {
      this.#tally.add("skipped");
      return undefined;
    }
    const { deployment, version } = this.#options.request;
    const { label, confidence, latencyMs } = answer;
    const disagreement = answer.disagreement ?? undefined;
    const isSought = disagreement !== undefined && disagreement >= DISAGREES_FROM;
    this.#tally.compared(latencyMs, prediction.latencyMs);
    if (label !== prediction.label) this.#tally.flipped(prediction.label, label);
    if (isSought) {
      this.#tally.add("disagreements");
      this.#options.onDisagreement(n, disagreement);
    }
    return { isSought, disagreement, context: { deployment, version, label, confidence } };
  }

  /** The candidate's process is gone. The frame that it had in hand may be why, and is worth a look. */
  #closed(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#giveUp({ isSought: true, disagreement: undefined, context: undefined });
    void this.#tell();
  }

  /** `first`: what is said of the one that was in hand longest. */
  #giveUp(first: ShadowVerdict | undefined): void {
    let verdict = first;
    for (const [id, seen] of [...this.#inHand]) {
      this.#letGo(id, seen);
      this.#tally.add("skipped");
      seen.settle(verdict);
      verdict = undefined;
    }
  }

  #letGo(id: number, { frame }: AnsweredFrame): void {
    this.#inHand.delete(id);
    this.#bytesInHand -= bytesOf(frame);
  }

  #spent(costMs: number, nowMs: number): void {
    this.#share.spent(costMs, nowMs);
    this.#tally.add("cpuMs", costMs);
  }

  async #tell(): Promise<void> {
    const delta = this.#tally.take();
    const { send, request } = this.#options;
    if (delta) await send({ kind: "shadow", lane: request.lane, deployment: request.deployment, delta });
  }
}

function bytesOf(frame: Frame): number {
  switch (frame.kind) {
    case "encoded":
      return frame.bytes.length;
    case "pixels":
      return frame.data.length;
    case "window":
      return frame.samples.byteLength;
    case "row":
    case "tensors":
      return 0;
  }
}
