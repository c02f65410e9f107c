import { randomBytes } from "node:crypto";
import {
  FieldloopError,
  WEBHOOK_PING_TYPE,
  type Webhook,
  type WebhookChange,
  type WebhookDelivery,
  type WebhookRequest,
} from "@fieldloop/protocol";
import type { Clock } from "../context.js";
import { SERVER_LIMITS } from "../limits.js";
import { AuditStore } from "../store/audit.js";
import type { Database } from "../store/database.js";
import type { Behind } from "../store/newest.js";
import { WebhookStore, type StoredWebhook } from "../store/webhooks.js";
import type { NewId } from "./ids.js";
import type { WebhookOutbox } from "./webhook-outbox.js";
import { checkWebhookUrl } from "./webhook-post.js";
import type { WebhookSecrets } from "./webhook-secrets.js";
import type { WebhookSender } from "./webhook-sender.js";

export interface WebhookServiceOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly newId: NewId;
  readonly outbox: WebhookOutbox;
  readonly sender: Pick<WebhookSender, "wake">;
  readonly allowPrivate: boolean;
  readonly secrets: WebhookSecrets;
}

/** Key of the signature: 24 random bytes, as Standard Webhooks asks for (24 to 64). */
const SECRET_BYTES = 24;

/** Webhooks as administrators handle them. Every change is in the audit log; a secret is shown once and never again. */
export class WebhookService {
  readonly #options: WebhookServiceOptions;
  readonly #store: WebhookStore;

  constructor(options: WebhookServiceOptions) {
    this.#options = options;
    this.#store = new WebhookStore(options.database);
  }

  /** @throws FieldloopError `invalid_argument` for a private address, `limit_exceeded` where there are too many */
  async create(request: WebhookRequest, actor: string): Promise<Webhook> {
    const { database, clock, newId, allowPrivate, secrets } = this.#options;
    checkWebhookUrl(request.url, allowPrivate);
    if ((await this.#store.list()).length >= SERVER_LIMITS.webhooksMax)
      throw new FieldloopError(
        "limit_exceeded",
        `Create webhook: there are ${SERVER_LIMITS.webhooksMax} already`,
      );
    const made = { webhook: newId("whk"), created: clock.now(), createdBy: actor, previousSecretUntil: null };
    const stored = { ...request, ...made };
    const secret = newSecret();
    await database.transaction(async (tx) => {
      await new WebhookStore(tx).add(stored, secrets.seal(stored.webhook, secret));
      await this.#audit(tx, "webhook.created", stored.webhook, actor, request);
    });
    return { ...stored, secret, pending: 0, dead: 0 };
  }

  async list(): Promise<Webhook[]> {
    return Promise.all((await this.#store.list()).map((one) => this.#view(one)));
  }

  /** @throws FieldloopError `not_found` */
  async get(webhook: string): Promise<Webhook> {
    return this.#view(await this.#require(webhook));
  }

  /** A new secret is in the answer, this once. @throws FieldloopError `not_found`, `invalid_argument` */
  async change(webhook: string, change: WebhookChange, actor: string): Promise<Webhook> {
    const { rotateSecret, ...fields } = change;
    const given = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
    const stored: StoredWebhook = { ...(await this.#require(webhook)), ...given };
    const { allowPrivate, database, sender } = this.#options;
    checkWebhookUrl(stored.url, allowPrivate);
    const secret = rotateSecret === undefined ? undefined : newSecret();
    await database.transaction(async (tx) => {
      if (Object.keys(given).length > 0) {
        await new WebhookStore(tx).save(stored);
        await this.#audit(tx, "webhook.changed", webhook, actor, given);
      }
      if (secret !== undefined) await this.#rotate(tx, webhook, { secret, how: rotateSecret! }, actor);
    });
    sender.wake();
    const view = await this.get(webhook);
    return secret === undefined ? view : { ...view, secret };
  }

  async #rotate(
    tx: Database,
    webhook: string,
    { secret, how }: { secret: string; how: "overlap" | "at_once" },
    actor: string,
  ): Promise<void> {
    const { clock, secrets } = this.#options;
    const store = new WebhookStore(tx);
    const until = how === "overlap" ? clock.now() + SERVER_LIMITS.webhookSecretOverlapMs : null;
    await store.replaceSecret(webhook, secrets.seal(webhook, secret), until);
    // What waits for a secret that could not be read waits no longer.
    await store.hasten(webhook, clock.now());
    await this.#audit(tx, "webhook.secret_rotated", webhook, actor, { how });
  }

  /** With all its deliveries. @throws FieldloopError `not_found` */
  async remove(webhook: string, actor: string): Promise<void> {
    const { url } = await this.#require(webhook);
    await this.#options.database.transaction(async (tx) => {
      await new WebhookStore(tx).remove(webhook);
      await this.#audit(tx, "webhook.deleted", webhook, actor, { url });
    });
  }

  /** Sends a ping, whatever events it asks for. @throws FieldloopError `not_found`, `conflict` where it is not enabled */
  async test(webhook: string, actor: string): Promise<WebhookDelivery> {
    const { database, clock, outbox, newId } = this.#options;
    const { enabled } = await this.#require(webhook);
    if (!enabled) throw new FieldloopError("conflict", `Test webhook "${webhook}": it is not enabled`);
    const time = clock.now();
    const event = {
      id: newId("evt"),
      type: WEBHOOK_PING_TYPE,
      subject: webhook,
      time,
      data: { by: actor },
    } as const;
    const delivery = await database.transaction(async (tx) => {
      await this.#audit(tx, "webhook.tested", webhook, actor, {});
      return outbox.writeTo(tx, webhook, event);
    });
    this.#options.sender.wake();
    return (await this.#store.delivery(delivery))!;
  }

  /** Newest first. @throws FieldloopError `not_found` */
  async deliveries(
    webhook: string,
    options: { state?: WebhookDelivery["state"]; before?: Behind; limit: number },
  ): Promise<WebhookDelivery[]> {
    await this.#require(webhook);
    return this.#store.deliveries(webhook, options);
  }

  /** Tries one that was given up again, from the first attempt on. @throws FieldloopError `not_found`, `conflict` */
  async resend(webhook: string, delivery: string, actor: string): Promise<WebhookDelivery> {
    const { database, clock, sender } = this.#options;
    const found = await this.#store.delivery(delivery);
    if (found?.webhook !== webhook)
      throw new FieldloopError("not_found", `Send again: webhook "${webhook}" has no delivery "${delivery}"`);
    if (found.state !== "dead")
      throw new FieldloopError("conflict", `Send "${delivery}" again: it is ${found.state}, not given up`);
    await database.transaction(async (tx) => {
      const fresh = { state: "pending", attempts: 0, nextAttempt: clock.now(), finished: null } as const;
      await new WebhookStore(tx).settle(delivery, { ...fresh, status: null, error: null });
      await this.#audit(tx, "webhook.resent", webhook, actor, { delivery });
    });
    sender.wake();
    return (await this.#store.delivery(delivery))!;
  }

  async #view(stored: StoredWebhook): Promise<Webhook> {
    const { previousSecretUntil: until } = stored;
    const previousSecretUntil = until !== null && until > this.#options.clock.now() ? until : null;
    return { ...stored, previousSecretUntil, ...(await this.#store.counts(stored.webhook)) };
  }

  async #require(webhook: string): Promise<StoredWebhook> {
    const stored = await this.#store.get(webhook);
    if (!stored) throw new FieldloopError("not_found", `Find webhook: there is no "${webhook}"`);
    return stored;
  }

  async #audit(tx: Database, action: string, webhook: string, actor: string, detail: object): Promise<void> {
    const entry = { entry: this.#options.newId("aud"), time: this.#options.clock.now(), actor, action };
    await new AuditStore(tx).add({ ...entry, subject: `webhook:${webhook}`, detail: { ...detail } });
  }
}

function newSecret(): string {
  return `whsec_${randomBytes(SECRET_BYTES).toString("base64")}`;
}
