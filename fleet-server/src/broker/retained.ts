import { Readable } from "node:stream";
import { SERVER_LIMITS } from "../limits.js";

/** What is used of the broker's packets and persistence; aedes does not publish types for these. */
export interface RetainedPacket {
  readonly topic: string;
  readonly payload: string | Buffer;
  readonly qos: number;
}
export interface Persistence {
  storeRetained(packet: RetainedPacket): Promise<void>;
  createRetainedStreamCombi(filters: string[]): Readable;
  createRetainedStream(filter: string): Readable;
  outgoingEnqueueCombi(
    subscriptions: { clientId: string }[],
    packet: { payload: string | Buffer },
  ): Promise<void>;
  outgoingClearMessageId(
    client: { id: string },
    packet: { messageId?: number },
  ): Promise<{ payload: string | Buffer } | undefined>;
}

/**
 * Retained messages with caps, found by the first three levels of their topic: `fieldloop/1/{device}`. A device that subscribes is
 * answered from its own few messages; a search over everyone's at each reconnection would cost a fleet minutes.
 */
export class RetainedMessages {
  readonly #byPrefix = new Map<string, Map<string, RetainedPacket>>();
  #count = 0;
  refused = 0;

  get count(): number {
    return this.#count;
  }

  store(packet: RetainedPacket): void {
    const prefix = prefixOf(packet.topic);
    const messages = this.#byPrefix.get(prefix);
    if (packet.payload.length === 0) {
      if (messages?.delete(packet.topic)) this.#count--;
      if (messages?.size === 0) this.#byPrefix.delete(prefix);
      return;
    }
    const known = messages?.has(packet.topic) ?? false;
    const full = !known && this.#count >= SERVER_LIMITS.brokerRetainedTopicsMax;
    if (full || packet.payload.length > SERVER_LIMITS.brokerRetainedBytesMax) {
      this.refused++;
      return;
    }
    if (!known) this.#count++;
    if (messages) messages.set(packet.topic, { ...packet });
    else this.#byPrefix.set(prefix, new Map([[packet.topic, { ...packet }]]));
  }

  *matching(filter: string): Generator<RetainedPacket> {
    const prefix = prefixOf(filter);
    const candidates = /[+#]/.test(prefix)
      ? this.#byPrefix.values()
      : [this.#byPrefix.get(prefix) ?? new Map<string, RetainedPacket>()];
    for (const messages of candidates) {
      for (const packet of messages.values()) if (matches(filter, packet.topic)) yield packet;
    }
  }
}

/** Replaces the retained part of the broker's memory and puts a cap on what waits for absent sessions. */
export function limitPersistence(
  persistence: Persistence,
  retained: RetainedMessages,
  isConnected: (clientId: string) => boolean,
): void {
  persistence.storeRetained = async (packet) => retained.store(packet);
  persistence.createRetainedStream = (filter) => Readable.from(retained.matching(filter));
  persistence.createRetainedStreamCombi = (filters) =>
    Readable.from(
      (function* () {
        for (const filter of filters) yield* retained.matching(filter);
      })(),
    );
  limitOffline(persistence, isConnected);
}

/** Messages and bytes queued for sessions whose client is away; above the cap the newest are dropped. */
function limitOffline(persistence: Persistence, isConnected: (clientId: string) => boolean): void {
  const waiting = new Map<string, { messages: number; bytes: number }>();
  const enqueue = persistence.outgoingEnqueueCombi.bind(persistence);
  const clear = persistence.outgoingClearMessageId.bind(persistence);
  persistence.outgoingEnqueueCombi = (subscriptions, packet) => {
    const taken = subscriptions.filter(({ clientId }) => {
      const entry = waiting.get(clientId) ?? { messages: 0, bytes: 0 };
      const full =
        entry.messages >= SERVER_LIMITS.brokerOfflineMessagesPerSessionMax ||
        entry.bytes + packet.payload.length > SERVER_LIMITS.brokerOfflineBytesPerSessionMax;
      if (full && !isConnected(clientId)) return false;
      waiting.set(clientId, { messages: entry.messages + 1, bytes: entry.bytes + packet.payload.length });
      return true;
    });
    return enqueue(taken, packet);
  };
  persistence.outgoingClearMessageId = async (client, packet) => {
    const cleared = await clear(client, packet);
    const entry = cleared && waiting.get(client.id);
    if (entry && entry.messages <= 1) waiting.delete(client.id);
    else if (entry) {
      waiting.set(client.id, { messages: entry.messages - 1, bytes: entry.bytes - cleared.payload.length });
    }
    return cleared;
  };
}

function prefixOf(topic: string): string {
  return topic.split("/", 3).join("/");
}

/** MQTT 3.1.1 section 4.7: `+` is one level, `#` the rest and its parent; neither matches a first level that begins with `$`. */
export function matches(filter: string, topic: string): boolean {
  const wanted = filter.split("/");
  const levels = topic.split("/");
  if (topic.startsWith("$") && (wanted[0] === "+" || wanted[0] === "#")) return false;
  for (const [index, level] of wanted.entries()) {
    if (level === "#") return true;
    if (index >= levels.length || (level !== "+" && level !== levels[index])) return false;
  }
  return wanted.length === levels.length;
}
