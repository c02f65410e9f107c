import { toFieldloopError } from "@fieldloop/protocol";
import type { Clock, Logger } from "../context.js";
import { SERVER_LIMITS } from "../limits.js";
import type { Database } from "../store/database.js";
import { WebhookStore, type DueDelivery } from "../store/webhooks.js";
import { postWebhook, signWebhook } from "./webhook-post.js";
import type { WebhookSecrets } from "./webhook-secrets.js";

export interface WebhookSettings {
  /** Deliver to loopback, private and link-local addresses, and by plain http. */
  readonly allowPrivate: boolean;
  /** Before the second attempt; each later pause is twice as long, up to an hour, all of them with jitter. */
  readonly retryMs: number;
  readonly attemptsMax: number;
  readonly timeoutMs: number;
}

export const WEBHOOK_SETTINGS: WebhookSettings = {
  allowPrivate: false,
  retryMs: 5_000,
  attemptsMax: 12,
  timeoutMs: 10_000,
};

export interface WebhookSenderOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly settings: WebhookSettings;
  /** 0..1 */
  readonly random: () => number;
  readonly secrets: Pick<WebhookSecrets, "unseal">;
}

/**
 * Delivers what the outbox holds, at least once: an attempt is written down after it, so that a death in between repeats it. One
 * request at a time to each webhook, some webhooks at once; a slow one keeps nobody waiting but itself.
 */
export class WebhookSender {
  readonly #options: WebhookSenderOptions;
  readonly #store: WebhookStore;
  readonly #running = new Map<string, Promise<void>>();
  #timer: NodeJS.Timeout | undefined;
  #stopping = new AbortController();
  #looking: Promise<void> | undefined;
  #again = false;
  #pruned = 0;
  #started = false;

  constructor(options: WebhookSenderOptions) {
    this.#options = options;
    this.#store = new WebhookStore(options.database);
  }

  start(): void {
    this.#started = true;
    this.#stopping = new AbortController();
    this.wake();
  }

  /** Requests under way are cut off, and repeated after the next start. */
  async stop(): Promise<void> {
    this.#started = false;
    clearTimeout(this.#timer);
    this.#stopping.abort();
    await this.#looking;
    await Promise.all(this.#running.values());
  }

  /** Something may be due. */
  wake(): void {
    if (!this.#started) return;
    this.#again = true;
    this.#looking ??= this.#look().finally(() => (this.#looking = undefined));
  }

  async #look(): Promise<void> {
    while (this.#again && this.#started) {
      this.#again = false;
      try {
        await this.#begin();
      } catch (error) {
        this.#options.logger.error({ err: error }, "webhooks could not be looked at");
        this.#schedule(SERVER_LIMITS.webhookLookMs);
      }
    }
  }

  async #begin(): Promise<void> {
    const now = this.#options.clock.now();
    await this.#prune(now);
    for (const { webhook, enabled } of await this.#store.list()) {
      if (!enabled || this.#running.has(webhook) || this.#running.size >= SERVER_LIMITS.webhookRequestsAtOnce)
        continue;
      const due = await this.#store.due(webhook, now);
      if (due) this.#run(due);
    }
    const next = await this.#store.nextDue();
    // One that is due already belongs to a webhook whose request is under way: its end wakes.
    const inMs = next === null || next <= now ? SERVER_LIMITS.webhookLookMs : next - now;
    this.#schedule(Math.min(inMs, SERVER_LIMITS.webhookLookMs));
  }

  #schedule(inMs: number): void {
    clearTimeout(this.#timer);
    if (this.#started) this.#timer = setTimeout(() => this.wake(), inMs);
  }

  #run(due: DueDelivery): void {
    const done = this.#deliver(due)
      .catch((error: unknown) =>
        this.#options.logger.error({ err: error, webhook: due.webhook }, "webhook delivery failed"),
      )
      .finally(() => {
        this.#running.delete(due.webhook);
        this.wake();
      });
    this.#running.set(due.webhook, done);
  }

  async #deliver(due: DueDelivery): Promise<void> {
    const { delivery, webhook, url, body, attempts: before } = due;
    const { clock, logger, settings } = this.#options;
    const secrets = await this.#secretsOf(due);
    if (!secrets) return;
    const seconds = Math.floor(clock.now() / 1000);
    const { allowPrivate, timeoutMs } = settings;
    const { signal } = this.#stopping;
    const headers = signWebhook(secrets, { id: delivery, seconds, body });
    let status: number | null = null;
    let error: string | null = null;
    try {
      status = await postWebhook({ url, headers, body, allowPrivate, timeoutMs, signal });
      if (status < 200 || status > 299) error = `it answered ${status}`;
    } catch (cause) {
      if (signal.aborted) return;
      error = cause instanceof Error ? cause.message.slice(0, SERVER_LIMITS.webhookErrorLengthMax) : "failed";
    }
    const attempts = before + 1;
    const now = clock.now();
    if (error === null) {
      const about = {
        state: "delivered",
        attempts,
        nextAttempt: null,
        finished: now,
        status,
        error,
      } as const;
      return this.#store.settle(delivery, about);
    }
    const dead = attempts >= settings.attemptsMax;
    if (dead) logger.warn({ webhook, delivery, attempts, error }, "webhook delivery given up");
    await this.#store.settle(delivery, {
      ...{ attempts, status, error, state: dead ? "dead" : "pending" },
      nextAttempt: dead ? null : now + this.#pauseMs(attempts),
      finished: dead ? now : null,
    });
  }

  /** Where its secret cannot be read the delivery waits, untried: a key that is put back, or a new secret, sends it. */
  async #secretsOf({
    delivery,
    webhook,
    secret,
    previous,
    previousUntil,
    attempts,
  }: DueDelivery): Promise<string[] | undefined> {
    const { clock, logger, secrets } = this.#options;
    const now = clock.now();
    try {
      const signs = [secret, ...(previous !== null && Number(previousUntil) > now ? [previous] : [])];
      return signs.map((one) => secrets.unseal(webhook, one));
    } catch (cause) {
      const { code, message } = toFieldloopError(cause);
      logger.error({ err: cause, webhook, delivery }, "a webhook's secret cannot be read");
      await this.#store.settle(delivery, {
        ...{ state: "pending", attempts, status: null, finished: null },
        nextAttempt: now + SERVER_LIMITS.webhookPauseMsMax,
        error: `${code}: ${message}`.slice(0, SERVER_LIMITS.webhookErrorLengthMax),
      });
      return undefined;
    }
  }

  /** Half to one and a half of a pause that doubles. */
  #pauseMs(attempts: number): number {
    const { settings, random } = this.#options;
    const pause = Math.min(settings.retryMs * 2 ** (attempts - 1), SERVER_LIMITS.webhookPauseMsMax);
    return Math.round(pause * (0.5 + random()));
  }

  async #prune(now: number): Promise<void> {
    if (now - this.#pruned < SERVER_LIMITS.webhookPruneMs) return;
    this.#pruned = now;
    await this.#store.prune(
      now - SERVER_LIMITS.webhookDeliveredKeptMs,
      now - SERVER_LIMITS.webhookDeadKeptMs,
      SERVER_LIMITS.webhookFinishedKeptMax,
    );
  }
}
