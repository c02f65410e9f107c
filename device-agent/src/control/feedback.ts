import { FieldloopError, LIMITS, type EventData } from "@fieldloop/protocol";
import { AGENT_LIMITS } from "../limits.js";
import type { Spool } from "./spool/spool.js";

export interface FeedbackItem {
  readonly n: number;
  readonly label?: string | undefined;
  readonly correct?: boolean | undefined;
}

interface Waiting {
  readonly boot: number;
  readonly item: FeedbackItem;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** Gathers what the application says of earlier predictions into one event a moment; answers when it is on disk. */
export class FeedbackGatherer {
  readonly #spool: Spool;
  readonly #emit: (event: EventData) => void;
  #waiting: Waiting[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(spool: Spool, emit: (event: EventData) => void) {
    this.#spool = spool;
    this.#emit = emit;
  }

  /** Resolves when the feedback is durable on this device. @throws FieldloopError `rate_limited`, `storage_failed` */
  add(boot: number, items: readonly FeedbackItem[]): Promise<void> {
    if (this.#waiting.length + items.length > AGENT_LIMITS.feedbackWaitingMax) {
      return Promise.reject(
        new FieldloopError(
          "rate_limited",
          `Take feedback: ${this.#waiting.length} wait for the disk already`,
        ),
      );
    }
    const stored = items.map(
      (item) =>
        new Promise<void>((resolve, reject) => {
          this.#waiting.push({ boot, item, resolve, reject });
        }),
    );
    this.#timer ??= setTimeout(() => void this.flush(), AGENT_LIMITS.feedbackWindowMs);
    return Promise.all(stored).then(() => undefined);
  }

  async flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const waiting = this.#waiting;
    this.#waiting = [];
    if (waiting.length === 0) return;
    const byBoot = new Map<number, Waiting[]>();
    for (const item of waiting) byBoot.set(item.boot, [...(byBoot.get(item.boot) ?? []), item]);
    for (const [predictionBoot, group] of byBoot) {
      for (let at = 0; at < group.length; at += LIMITS.feedbackItemsMax) {
        const items = group.slice(at, at + LIMITS.feedbackItemsMax).map(({ item }) => ({ ...item }));
        this.#emit({ type: "feedback", predictionBoot, items });
      }
    }
    try {
      await this.#spool.flush();
      for (const { resolve } of waiting) resolve();
    } catch (error) {
      for (const { reject } of waiting) reject(error);
    }
  }
}

export function unknownPrediction(prediction: string): FieldloopError {
  return new FieldloopError("prediction_unknown", `Prediction "${prediction}" is not known here`);
}
