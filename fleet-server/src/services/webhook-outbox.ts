import type { CloudEvent, DeliveredType } from "@fieldloop/protocol";
import { SERVER_LIMITS } from "../limits.js";
import type { JournalEntry } from "../domain/rollout-journal.js";
import type { Database } from "../store/database.js";
import { WebhookStore } from "../store/webhooks.js";
import type { NewId } from "./ids.js";

/** What happened, as webhooks tell it. */
export interface OutboxEvent {
  /** The same event has the same id. */
  readonly id: string;
  readonly type: DeliveredType;
  readonly subject: string;
  /** Milliseconds. */
  readonly time: number;
  readonly data: Readonly<Record<string, unknown>>;
}

/** `type` of CloudEvents by the kind of a rollout's history entry. */
const TYPES = {
  rollout: "io.fieldloop.rollout.state",
  wave: "io.fieldloop.rollout.wave",
  verdict: "io.fieldloop.rollout.verdict",
  action: "io.fieldloop.rollout.action",
  devices: "io.fieldloop.rollout.devices",
} as const satisfies Record<JournalEntry["type"], DeliveredType>;

/** An entry of a rollout's history: what `GET …/events` streams under the same number. */
export function rolloutEvent(rollout: string, seq: number, time: number, entry: JournalEntry): OutboxEvent {
  const { type, ...data } = entry;
  return {
    id: `${rollout}.${seq}`,
    type: TYPES[type],
    subject: rollout,
    time,
    data: { rollout, seq, ...data },
  };
}

/** Writes deliveries in the unit of work of what they tell: either both happened or neither. */
export class WebhookOutbox {
  readonly #newId: NewId;
  /** After a commit that wrote deliveries. */
  wake: () => void = () => undefined;

  constructor(newId: NewId) {
    this.#newId = newId;
  }

  /** To every enabled webhook that asks for them. */
  async write(tx: Database, events: readonly OutboxEvent[]): Promise<void> {
    if (events.length === 0) return;
    const store = new WebhookStore(tx);
    for (const { webhook, enabled, events: wanted } of await store.list()) {
      if (!enabled) continue;
      let { pending } = await store.counts(webhook);
      for (const event of events) {
        if (wanted.length > 0 && !(wanted as readonly string[]).includes(event.type)) continue;
        await this.#add(store, webhook, event, pending++ < SERVER_LIMITS.webhookPendingMax);
      }
    }
  }

  /** To one webhook, whatever it asks for. @returns the delivery */
  async writeTo(tx: Database, webhook: string, event: OutboxEvent): Promise<string> {
    return this.#add(new WebhookStore(tx), webhook, event, true);
  }

  async #add(store: WebhookStore, webhook: string, event: OutboxEvent, room: boolean): Promise<string> {
    const { type, subject, time } = event;
    const body: CloudEvent = {
      specversion: "1.0",
      id: event.id,
      source: "/fieldloop",
      type,
      subject,
      time: new Date(time).toISOString(),
      datacontenttype: "application/json",
      data: { ...event.data },
    };
    const delivery = this.#newId("msg");
    await store.addDelivery({
      ...{ delivery, webhook, type, subject, created: time, body: JSON.stringify(body) },
      state: room ? "pending" : "dead",
      error: room ? null : `${SERVER_LIMITS.webhookPendingMax} deliveries wait already`,
    });
    return delivery;
  }
}
