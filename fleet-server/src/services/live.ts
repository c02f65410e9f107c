import { FieldloopError, type LiveEvent } from "@fieldloop/protocol";
import { SERVER_LIMITS } from "../limits.js";

/** One reader of live events: what it has not read yet, each thing once. */
export interface LiveSubscription {
  /** The next event; `undefined` after `waitMs` without one, or when the subscription was closed. */
  next(waitMs: number): Promise<LiveEvent | undefined>;
  readonly closed: boolean;
  close(): void;
}

/**
 * Hands events to the pages and services of this process. A reader that lags sees each changed thing once, not every change;
 * above its queue's limit it loses the oldest, which is counted: the events only say what to read again.
 */
export class LiveHub {
  readonly #subscriptions = new Set<Subscription>();
  readonly #listeners = new Set<(event: LiveEvent) => void>();
  dropped = 0;

  publish(event: LiveEvent): void {
    for (const subscription of this.#subscriptions) this.dropped += subscription.push(event);
    for (const listener of this.#listeners) listener(event);
  }

  /** Calls `listener` for each event, synchronously; it must not throw. @returns the function that ends it */
  listen(listener: (event: LiveEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** @throws FieldloopError `rate_limited` above the number of streams of one owner or of all */
  subscribe(owner: string): LiveSubscription {
    const mine = [...this.#subscriptions].filter((subscription) => subscription.owner === owner).length;
    if (
      mine >= SERVER_LIMITS.liveStreamsPerPrincipalMax ||
      this.#subscriptions.size >= SERVER_LIMITS.liveStreamsMax
    ) {
      throw new FieldloopError("rate_limited", `Open live stream: ${mine} are open for "${owner}" already`);
    }
    const subscription = new Subscription(owner, () => this.#subscriptions.delete(subscription));
    this.#subscriptions.add(subscription);
    return subscription;
  }

  get streams(): number {
    return this.#subscriptions.size;
  }

  close(): void {
    for (const subscription of this.#subscriptions) subscription.close();
    this.#listeners.clear();
  }
}

class Subscription implements LiveSubscription {
  readonly owner: string;
  closed = false;
  readonly #queue = new Map<string, LiveEvent>();
  readonly #onClose: () => void;
  #wake: (() => void) | undefined;

  constructor(owner: string, onClose: () => void) {
    this.owner = owner;
    this.#onClose = onClose;
  }

  /** @returns the number of events lost by it: 0 or 1 */
  push(event: LiveEvent): number {
    this.#queue.set(`${event.type} ${event.id}`, event);
    const lost = this.#queue.size > SERVER_LIMITS.liveQueueMax ? 1 : 0;
    if (lost) this.#queue.delete(this.#queue.keys().next().value!);
    this.#wake?.();
    return lost;
  }

  async next(waitMs: number): Promise<LiveEvent | undefined> {
    if (this.#queue.size === 0 && !this.closed) await this.#wait(waitMs);
    const first = this.#queue.entries().next().value;
    if (!first || this.closed) return undefined;
    this.#queue.delete(first[0]);
    return first[1];
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.#queue.clear();
    this.#onClose();
    this.#wake?.();
  }

  #wait(waitMs: number): Promise<void> {
    return new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, waitMs);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    }).then(() => {
      this.#wake = undefined;
    });
  }
}
