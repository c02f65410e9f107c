import type { DeliveredType, Webhook, WebhookDelivery, WebhookRequest } from "@fieldloop/protocol";
import { sql } from "drizzle-orm";
import type { Database, Migration } from "./database.js";
import { newestFirst, type Behind } from "./newest.js";

export const WEBHOOKS_MIGRATION: Migration = {
  name: "loop_0009_webhooks",
  statements: (types) => [
    `create table webhooks (webhook text primary key, url text not null, events text not null, description text not null,
      enabled integer not null, secret text not null, created ${types.bigint} not null, created_by text not null)`,
    `create table webhook_deliveries (delivery text primary key, webhook text not null, type text not null, subject text not null,
      body text not null, created ${types.bigint} not null, state text not null, attempts integer not null, next_attempt ${types.bigint},
      finished ${types.bigint}, status integer, error text)`,
    "create index webhook_deliveries_due on webhook_deliveries (state, next_attempt)",
    "create index webhook_deliveries_of on webhook_deliveries (webhook, created, delivery)",
  ],
};

/** Secrets are encrypted from here on; one that was replaced may sign for a while beside its successor. */
export const WEBHOOK_SECRETS_MIGRATION: Migration = {
  name: "loop_0010_webhook_secrets",
  statements: (types) => [
    "alter table webhooks add column previous_secret text",
    `alter table webhooks add column previous_until ${types.bigint}`,
  ],
};

export interface StoredWebhook extends WebhookRequest {
  readonly webhook: string;
  readonly created: number;
  readonly createdBy: string;
  /** Milliseconds; null where no older secret signs. */
  readonly previousSecretUntil: number | null;
}

/** As they lie in the table: encrypted. */
export interface StoredSecrets {
  readonly secret: string;
  readonly previous: string | null;
}

/** A delivery to be tried now, with what it takes; the secrets, encrypted, go no further than the signature. */
export interface DueDelivery {
  readonly delivery: string;
  readonly webhook: string;
  readonly url: string;
  readonly secret: string;
  readonly previous: string | null;
  readonly previousUntil: number | null;
  readonly body: string;
  readonly attempts: number;
}

export interface NewDelivery {
  readonly delivery: string;
  readonly webhook: string;
  readonly type: DeliveredType;
  readonly subject: string;
  readonly body: string;
  readonly created: number;
  /** `dead` where too many wait already. */
  readonly state: "pending" | "dead";
  readonly error: string | null;
}

interface Row extends Omit<StoredWebhook, "events" | "enabled"> {
  events: string;
  enabled: number;
}

const NEWEST = newestFirst("created", "delivery");
const COLUMNS = sql.raw(`webhook, url, events, description, enabled, created, created_by as "createdBy",
  previous_until as "previousSecretUntil"`);
const DELIVERY_COLUMNS = sql.raw(`delivery, webhook, type, subject, created, state, attempts,
  next_attempt as "nextAttempt", finished, status, error`);

/** Rows of one webhook that are forgotten in one statement. */
const PRUNED_AT_ONCE = 10_000;

/** Webhooks and their outbox. Secrets come encrypted, and leave it only with a delivery that is due. */
export class WebhookStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async add(one: StoredWebhook, secret: string): Promise<void> {
    await this.#database.run(sql`insert into webhooks (webhook, url, events, description, enabled, secret, created, created_by)
      values (${one.webhook}, ${one.url}, ${JSON.stringify(one.events)}, ${one.description}, ${one.enabled ? 1 : 0}, ${secret},
        ${one.created}, ${one.createdBy})`);
  }

  async save(one: StoredWebhook): Promise<void> {
    await this.#database.run(sql`update webhooks set url = ${one.url}, events = ${JSON.stringify(one.events)},
      description = ${one.description}, enabled = ${one.enabled ? 1 : 0} where webhook = ${one.webhook}`);
  }

  async secrets(): Promise<(StoredSecrets & { webhook: string })[]> {
    return this.#database.all(
      sql`select webhook, secret, previous_secret as previous from webhooks order by webhook`,
    );
  }

  async saveSecrets(webhook: string, { secret, previous }: StoredSecrets): Promise<void> {
    await this.#database.run(
      sql`update webhooks set secret = ${secret}, previous_secret = ${previous} where webhook = ${webhook}`,
    );
  }

  /** @param until the secret of before signs too until then; null: it does not */
  async replaceSecret(webhook: string, secret: string, until: number | null): Promise<void> {
    const previous = until === null ? sql`null` : sql`secret`;
    await this.#database.run(sql`update webhooks set previous_secret = ${previous}, previous_until = ${until}, secret = ${secret}
      where webhook = ${webhook}`);
  }

  /**
   * While it is on, SQLite overwrites what a change frees; ending it empties the log of writes too. PostgreSQL keeps old versions
   * of a row until its vacuum.
   */
  async overwriteFreed(on: boolean): Promise<void> {
    if (this.#database.dialect !== "sqlite") return;
    await this.#database.run(sql.raw(`pragma secure_delete = ${on ? "on" : "off"}`));
    if (!on) await this.#database.run(sql.raw("pragma wal_checkpoint(truncate)"));
  }

  /** What waits is tried now. */
  async hasten(webhook: string, now: number): Promise<void> {
    await this.#database.run(sql`update webhook_deliveries set next_attempt = ${now}
      where webhook = ${webhook} and state = 'pending' and next_attempt > ${now}`);
  }

  async remove(webhook: string): Promise<void> {
    await this.#database.run(sql`delete from webhook_deliveries where webhook = ${webhook}`);
    await this.#database.run(sql`delete from webhooks where webhook = ${webhook}`);
  }

  async get(webhook: string): Promise<StoredWebhook | undefined> {
    const row = await this.#database.get<Row>(
      sql`select ${COLUMNS} from webhooks where webhook = ${webhook}`,
    );
    return row && webhookOf(row);
  }

  async list(): Promise<StoredWebhook[]> {
    const rows = await this.#database.all<Row>(
      sql`select ${COLUMNS} from webhooks order by created, webhook`,
    );
    return rows.map(webhookOf);
  }

  /** How many of its deliveries wait and were given up. */
  async counts(webhook: string): Promise<Pick<Webhook, "pending" | "dead">> {
    const rows = await this.#database.all<{ state: string; count: number }>(
      sql`select state, count(*) as count from webhook_deliveries
        where webhook = ${webhook} and state in ('pending', 'dead') group by state`,
    );
    const of = (state: string): number => Number(rows.find((row) => row.state === state)?.count ?? 0);
    return { pending: of("pending"), dead: of("dead") };
  }

  async addDelivery(one: NewDelivery): Promise<void> {
    const pending = one.state === "pending";
    await this.#database.run(sql`insert into webhook_deliveries
      (delivery, webhook, type, subject, body, created, state, attempts, next_attempt, finished, error)
      values (${one.delivery}, ${one.webhook}, ${one.type}, ${one.subject}, ${one.body}, ${one.created}, ${one.state}, 0,
        ${pending ? one.created : null}, ${pending ? null : one.created}, ${one.error})`);
  }

  /** Newest first, behind `before`. */
  async deliveries(
    webhook: string,
    options: {
      state?: WebhookDelivery["state"];
      before?: Behind;
      limit: number;
    },
  ): Promise<WebhookDelivery[]> {
    const { before, limit } = options;
    const state = options.state === undefined ? sql`` : sql` and state = ${options.state}`;
    return this.#database.all(sql`select ${DELIVERY_COLUMNS} from webhook_deliveries
      where webhook = ${webhook}${state} and ${NEWEST.behind(before)} order by ${NEWEST.order} limit ${limit}`);
  }

  async delivery(delivery: string): Promise<WebhookDelivery | undefined> {
    return this.#database.get(
      sql`select ${DELIVERY_COLUMNS} from webhook_deliveries where delivery = ${delivery}`,
    );
  }

  /** The one of a webhook that has waited longest, where one is due. */
  async due(webhook: string, now: number): Promise<DueDelivery | undefined> {
    return this.#database.get(sql`select d.delivery, d.webhook, w.url, w.secret, w.previous_secret as previous,
      w.previous_until as "previousUntil", d.body, d.attempts
      from webhook_deliveries d join webhooks w on w.webhook = d.webhook
      where d.webhook = ${webhook} and d.state = 'pending' and d.next_attempt <= ${now}
      order by d.next_attempt, d.created limit 1`);
  }

  /** When the next delivery of enabled webhooks is due; null where none waits. */
  async nextDue(): Promise<number | null> {
    const row = await this.#database.get<{ due: number | null }>(sql`select min(d.next_attempt) as due
      from webhook_deliveries d join webhooks w on w.webhook = d.webhook where d.state = 'pending' and w.enabled = 1`);
    return row?.due === null || row === undefined ? null : Number(row.due);
  }

  async settle(
    delivery: string,
    to: Pick<WebhookDelivery, "state" | "attempts" | "nextAttempt" | "finished" | "status" | "error">,
  ): Promise<void> {
    await this.#database.run(sql`update webhook_deliveries set state = ${to.state}, attempts = ${to.attempts},
      next_attempt = ${to.nextAttempt}, finished = ${to.finished}, status = ${to.status}, error = ${to.error}
      where delivery = ${delivery}`);
  }

  /** Forgets what was delivered, or given up, before these times, and of each webhook all but the newest `finishedMax`. */
  async prune(deliveredBefore: number, deadBefore: number, finishedMax: number): Promise<void> {
    await this.#database.run(sql`delete from webhook_deliveries where
      (state = 'delivered' and finished < ${deliveredBefore}) or (state = 'dead' and finished < ${deadBefore})`);
    for (const { webhook } of await this.list()) {
      await this.#database.run(sql`delete from webhook_deliveries where delivery in (
        select delivery from webhook_deliveries where webhook = ${webhook} and state <> 'pending'
        order by created desc, delivery desc limit ${PRUNED_AT_ONCE} offset ${finishedMax})`);
    }
  }
}

function webhookOf({ events, enabled, ...row }: Row): StoredWebhook {
  return {
    ...row,
    events: JSON.parse(events) as StoredWebhook["events"],
    enabled: enabled === 1,
    created: Number(row.created),
    previousSecretUntil: row.previousSecretUntil === null ? null : Number(row.previousSecretUntil),
  };
}
