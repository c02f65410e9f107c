import { ProfileAccumulator, type Prediction } from "@fieldloop/runtime";
import type { Clock } from "../clock.js";
import type { PredictionOrigin } from "../control/prediction-batcher.js";
import type { Send } from "./reporter.js";

/** The running profile of one lane: cut and sent at each interval, and where the version changes. */
export class LaneProfile {
  readonly #send: Send;
  readonly #clock: Clock;
  readonly #accumulator = new ProfileAccumulator();
  #from: number;
  #droppedBefore = 0;
  #framesFailed = 0;

  constructor(send: Send, clock: Clock) {
    this.#send = send;
    this.#clock = clock;
    this.#from = clock.now();
  }

  add(prediction: Prediction): void {
    this.#accumulator.add(prediction);
  }

  noteFailed(): void {
    this.#framesFailed++;
  }

  isDue(intervalMs: number): boolean {
    return this.#clock.now() - this.#from >= intervalMs;
  }

  /** `dropped`: frames that the lane dropped since its start. */
  cut(origin: PredictionOrigin | undefined, dropped: number): void {
    const from = this.#from;
    const to = Math.max(from, this.#clock.now());
    const framesDropped = dropped - this.#droppedBefore;
    const framesFailed = this.#framesFailed;
    this.#from = to;
    if (!origin || (this.#accumulator.count === 0 && framesDropped === 0 && framesFailed === 0)) return;
    this.#droppedBefore = dropped;
    this.#framesFailed = 0;
    const statistics = this.#accumulator.take();
    const { model, version } = origin;
    void this.#send({ kind: "profile", model, version, from, to, statistics, framesDropped, framesFailed });
  }
}
