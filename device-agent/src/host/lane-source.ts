import { FieldloopError, toFieldloopError, type Manifest } from "@fieldloop/protocol";
import type { Clock } from "../clock.js";
import { AGENT_LIMITS } from "../limits.js";
import { sourceName, type SourceSpec } from "../source-spec.js";
import type { FrameQueue } from "./frame-queue.js";
import { FreshStreams } from "./fresh-streams.js";
import type { RateGate } from "./rate-gate.js";
import { createSource } from "./sources/open.js";
import type { FrameSink, Source, SourceContext, SourceFrame, WindowShape } from "./sources/source.js";

export interface LaneSourceOptions {
  readonly spec: SourceSpec;
  /** Where a simulator's scene begins. */
  readonly firstIndex: number;
  readonly queue: FrameQueue;
  readonly gate: RateGate;
  readonly clock: Clock;
  /** It cannot deliver, or can again (undefined). */
  readonly onTrouble: (error: FieldloopError | undefined) => void;
  readonly onFeedback: SourceContext["onFeedback"];
}

/** The source of a lane, opened with the first model and tried again where it does not open; its frames pass the lane's rate. */
export class LaneSource {
  readonly #options: LaneSourceOptions;
  readonly #name: string;
  readonly #fresh = new FreshStreams();
  #source: Source | undefined;
  #manifest: Manifest | undefined;
  #isOpen = false;
  #closed = false;
  #condition: string | undefined;
  #framesSkipped = 0;

  constructor(options: LaneSourceOptions) {
    this.#options = options;
    this.#name = sourceName(options.spec);
  }

  /** Frames beyond the lane's rate: not taken, and no loss. */
  get framesSkipped(): number {
    return this.#framesSkipped;
  }

  /** What the source counted, e.g. rows, malformedRows, gaps, restarts. */
  get counts(): Readonly<Record<string, number>> {
    return this.#source?.counts?.() ?? {};
  }

  /** Frames from now on are for this model: windows are cut as it wants them. */
  shapeFor(manifest: Manifest): void {
    this.#manifest = manifest;
  }

  /** There is a model: the source is opened with the first. */
  async openOnce(): Promise<void> {
    if (this.#isOpen) return;
    this.#isOpen = true;
    await this.#open();
  }

  async #open(): Promise<void> {
    if (this.#closed) return;
    try {
      this.#source ??= this.#make();
      await this.#source.open();
      // It was not there yet when it was to be closed.
      if (this.#closed) return await this.#source.close();
      this.#options.onTrouble(undefined);
    } catch (error) {
      this.#options.onTrouble(toFieldloopError(error));
      setTimeout(() => void this.#open(), AGENT_LIMITS.sourceRestartMaxMs / 4).unref();
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#source?.close();
  }

  /** A frame from another program, when the source's own leave a place for it. */
  async push(frame: SourceFrame, signal: AbortSignal): Promise<void> {
    const sink = this.#sink();
    // Several may wait for the same place.
    while (sink.isFull && !signal.aborted) await sink.space();
    // Who waited too long has gone: its answer would be nobody's.
    if (signal.aborted) frame.answer?.(undefined);
    else sink.offer(frame);
  }

  predicted(key: number, n: number): void {
    this.#source?.predicted?.(key, n);
  }

  get isSimulator(): boolean {
    return this.#options.spec.kind === "simulator";
  }

  /** @throws FieldloopError `invalid_argument`, `conflict` where the source is no simulator */
  setCondition(condition: string): void {
    if (!this.isSimulator) throw this.#noSimulator();
    // One that is not open yet is made only to say whether it knows the condition.
    (this.#source ?? this.#make()).setCondition?.(condition);
    this.#condition = condition;
  }

  /** @throws FieldloopError `conflict` where the source is no simulator */
  truth(n: number): string | undefined {
    if (!this.isSimulator) throw this.#noSimulator();
    return this.#source?.truth?.(n);
  }

  #make(): Source {
    const { spec, clock, firstIndex, onFeedback } = this.#options;
    const context: SourceContext = {
      sink: this.#sink(),
      clock,
      onTrouble: (error) => this.#troubled(error),
      onFeedback,
      window: () => this.#manifest && windowOf(this.#manifest),
      columns: () => this.#manifest && columnsOf(this.#manifest),
    };
    const source = createSource(spec, context, firstIndex);
    if (this.#condition !== undefined) source.setCondition?.(this.#condition);
    return source;
  }

  /** After a failure what comes does not follow on what came before; a row that is left out breaks nothing off. */
  #troubled(error: FieldloopError | undefined): void {
    if (error && error.code !== "row_malformed") this.#fresh.mark();
    this.#options.onTrouble(error);
  }

  /** The queue behind the lane's rate. Who can wait waits for both, who answers is told "busy"; a live source's frame is skipped. */
  #sink(): FrameSink {
    const { queue, gate, clock } = this.#options;
    const isClosed = (): boolean => this.#closed;
    return {
      offer: (frame) => this.#offer(frame),
      space: async () => {
        await queue.space();
        const waitMs = gate.waitMs(clock.monotonic());
        if (waitMs > 0 && !this.#closed) await new Promise((resolve) => setTimeout(resolve, waitMs));
      },
      get isFull() {
        return !isClosed() && (queue.isFull || gate.waitMs(clock.monotonic()) > 0);
      },
      noteMissed: (count) => queue.noteMissed(count),
    };
  }

  #offer(frame: SourceFrame): void {
    const { queue, gate, clock } = this.#options;
    if (gate.take(clock.monotonic())) {
      queue.offer(this.#fresh.pass(frame));
      return;
    }
    this.#fresh.lost(frame);
    this.#framesSkipped++;
    frame.answer?.(undefined);
  }

  #noSimulator(): FieldloopError {
    return new FieldloopError("conflict", `Ask the simulator: the source is "${this.#name}"`);
  }
}

/** What the model's window input wants; undefined for a model of another kind. */
function windowOf({ inputs }: Manifest): WindowShape | undefined {
  const input = inputs.find(({ kind }) => kind === "window");
  if (input?.kind !== "window") return undefined;
  const { length, hop, channels, sampleRateHz } = input;
  return { length, hop, channels, sampleRateHz };
}

/** The columns of the model's table input, by name; undefined for a model of another kind. */
function columnsOf({ inputs }: Manifest): readonly string[] | undefined {
  const input = inputs.find(({ kind }) => kind === "table");
  return input?.kind === "table" ? input.columns.map(({ name }) => name) : undefined;
}
