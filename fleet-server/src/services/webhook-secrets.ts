import type { SecretBox } from "../auth/secret-box.js";
import type { Logger } from "../context.js";
import type { Database } from "../store/database.js";
import { reencryptAnswers } from "../store/idempotency.js";
import { WebhookStore } from "../store/webhooks.js";

/** Secrets of webhooks as they lie in the database: encrypted, each for its own row. */
export class WebhookSecrets {
  readonly #database: Database;
  readonly #box: SecretBox;
  readonly #logger: Logger;

  constructor({ database, box, logger }: { database: Database; box: SecretBox; logger: Logger }) {
    this.#database = database;
    this.#box = box;
    this.#logger = logger;
  }

  seal(webhook: string, secret: string): string {
    return this.#box.seal(secret, aboutOf(webhook));
  }

  /** @throws FieldloopError `secret_key_missing`, `storage_failed` */
  unseal(webhook: string, sealed: string): string {
    return this.#box.unseal(sealed, aboutOf(webhook));
  }

  /**
   * Encrypts with the key in use what is not (secrets of before, or of an older key), and forgets older keys that nothing needs any
   * longer. A secret whose key is missing stays as it is: its deliveries wait and say so.
   */
  async settle(): Promise<void> {
    const missing: string[] = [];
    const plain = (await new WebhookStore(this.#database).secrets()).some(
      ({ secret, previous }) =>
        !this.#box.isSealed(secret) || (previous !== null && !this.#box.isSealed(previous)),
    );
    // What is overwritten in a SQLite file is otherwise still in it.
    if (plain) await this.#scrub("on");
    await this.#database.transaction(async (tx) => {
      const store = new WebhookStore(tx);
      for (const { webhook, secret, previous } of await store.secrets()) {
        try {
          const fresh = {
            secret: this.#again(webhook, secret),
            previous: previous === null ? null : this.#again(webhook, previous),
          };
          if (fresh.secret !== secret || fresh.previous !== previous) await store.saveSecrets(webhook, fresh);
        } catch (error) {
          missing.push(webhook);
          this.#logger.error(
            { err: error, webhook },
            "a webhook's secret cannot be read: its deliveries wait",
          );
        }
      }
    });
    if (plain) await this.#scrub("off");
    if (missing.length > 0) return;
    await reencryptAnswers(this.#database, this.#box);
    for (const id of this.#box.older) await this.#box.forget(id);
  }

  #again(webhook: string, stored: string): string {
    if (this.#box.isCurrent(stored)) return stored;
    return this.seal(webhook, this.#box.isSealed(stored) ? this.unseal(webhook, stored) : stored);
  }

  async #scrub(mode: "on" | "off"): Promise<void> {
    await new WebhookStore(this.#database).overwriteFreed(mode === "on");
  }
}

function aboutOf(webhook: string): string {
  return `webhook "${webhook}"`;
}
