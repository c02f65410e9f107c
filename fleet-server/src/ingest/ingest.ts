import { randomUUID } from "node:crypto";
import {
  FieldloopError,
  encodeAck,
  judgeDelivery,
  parseTopic,
  toFieldloopError,
  type Delivery,
  type ErrorCode,
  type Stream,
  type UpKind,
} from "@fieldloop/protocol";
import type { BrokerMessage } from "../broker/broker.js";
import type { Clock, Logger } from "../context.js";
import { active } from "../domain/identity.js";
import { SERVER_LIMITS } from "../limits.js";
import type { Downlink } from "../services/desired.js";
import type { LiveHub } from "../services/live.js";
import type { RateMeter } from "../services/rates.js";
import type { Database } from "../store/database.js";
import { CommitEffects, type IngestStores, type Origin } from "./context.js";
import { applyEvent } from "./handlers/event.js";
import { applyPredictions } from "./handlers/predictions.js";
import { applyPresence } from "./handlers/presence.js";
import { applyProfile } from "./handlers/profile.js";
import { applySample, storeWholeSample } from "./handlers/sample.js";
import { applyState } from "./handlers/state.js";
import { decode, deliveryOfPoison, streamOf, type Decoded } from "./message.js";
import { nextShare } from "./share.js";

export interface IngestOptions {
  readonly database: Database;
  readonly stores: IngestStores;
  readonly downlink: Downlink;
  readonly live: LiveHub;
  readonly rates: RateMeter;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Told what became durable, right after it did; it must not throw. */
  readonly committed?: (effects: CommitEffects) => void;
}

export interface IngestCounters {
  received: number;
  predictions: number;
  commits: number;
  duplicates: number;
  gaps: number;
  superseded: number;
  /** Of a boot that two agents count as theirs: neither taken in nor acknowledged, it stays with the devices. */
  conflicting: number;
  poisoned: number;
  /** Not taken because the queue was full; the device sends them again. */
  dropped: number;
  /** Units of work that failed as a whole; the devices send them again. */
  failedCommits: number;
}

/** A message of the queue, and after decoding either its content or why it has none. */
interface Item extends Origin {
  readonly kind: UpKind;
  decoded?: Decoded;
  error?: FieldloopError;
}

/** Trouble of the store, not of a message: nothing is set aside and nothing acknowledged. */
const STORE_TROUBLE: readonly ErrorCode[] = ["storage_full", "storage_failed", "unavailable", "timed_out"];

/**
 * Takes in what devices send. Everything that arrived within a few milliseconds is one unit of work; after its commit each device
 * gets one acknowledgement. A device deletes only what was acknowledged and sends the rest again, so killing this process at any
 * instant loses nothing, and the cursor of (device, stream) makes a repetition a duplicate: each message counts exactly once.
 */
export class Ingest {
  readonly counters: IngestCounters = {
    received: 0,
    predictions: 0,
    commits: 0,
    duplicates: 0,
    gaps: 0,
    superseded: 0,
    conflicting: 0,
    poisoned: 0,
    dropped: 0,
    failedCommits: 0,
  };
  readonly #options: IngestOptions;
  #queue: Item[] = [];
  #queueBytes = 0;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #stopped = false;

  constructor(options: IngestOptions) {
    this.#options = options;
  }

  /** Queues one message; never waits. */
  offer(message: BrokerMessage): void {
    const topic = parseTopic(message.topic);
    if (topic.way !== "up" || this.#stopped) return;
    const full =
      this.#queue.length >= SERVER_LIMITS.ingestQueueMessagesMax ||
      this.#queueBytes + message.payload.length > SERVER_LIMITS.ingestQueueBytesMax;
    if (full) {
      this.counters.dropped++;
      return;
    }
    this.counters.received++;
    this.#queueBytes += message.payload.length;
    const { device, kind } = topic;
    this.#queue.push({ device, kind, payload: message.payload, received: this.#options.clock.now() });
    this.#schedule();
  }

  get queued(): number {
    return this.#queue.length;
  }

  /** Resolves when everything queued so far is durable or refused. */
  async idle(): Promise<void> {
    while (this.#queue.length > 0 || this.#running) await (this.#running ?? this.#run());
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.idle();
  }

  #schedule(): void {
    if (this.#timer || this.#running) return;
    this.#timer = setTimeout(() => void this.#run(), SERVER_LIMITS.ingestCommitDelayMs);
  }

  async #run(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#running ??= this.#drain().finally(() => {
      this.#running = undefined;
      if (this.#queue.length > 0) this.#schedule();
    });
    await this.#running;
  }

  async #drain(): Promise<void> {
    while (this.#queue.length > 0) {
      const { taken: items, left } = nextShare(this.#queue, tryDecode);
      this.#queue = left;
      for (const item of items) this.#queueBytes -= item.payload.length;
      try {
        await this.#take(items);
      } catch (error) {
        this.counters.failedCommits++;
        this.#options.logger.error({ err: error, messages: items.length }, "ingest commit failed");
      }
      // Between two units sockets are read and answered; the database's own work never leaves the microtask queue.
      if (this.#queue.length > 0) await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** First all in one go; where one message fails, again with each for itself, so that only it is set aside. */
  async #take(items: Item[]): Promise<void> {
    await Promise.all(items.map((item) => this.#prepare(item)));
    let effects: CommitEffects;
    try {
      effects = await this.#commit(items, false);
    } catch (error) {
      if (isStoreTrouble(error)) throw error;
      effects = await this.#commit(items, true);
    }
    this.counters.commits++;
    this.#tell(effects);
  }

  async #prepare(item: Item): Promise<void> {
    if (item.decoded?.kind !== "sample") return;
    try {
      await storeWholeSample(this.#options.stores, item.decoded.message);
    } catch (error) {
      if (isStoreTrouble(error)) throw error;
      item.error = toFieldloopError(error);
    }
  }

  async #commit(items: readonly Item[], apart: boolean): Promise<CommitEffects> {
    const counted = { ...this.counters };
    try {
      return await this.#options.database.transaction(async (tx) => {
        const effects = new CommitEffects();
        for (const [device, mine] of byDevice(items))
          await this.#applyDevice(tx, device, mine, effects, apart);
        await effects.rollups.flush(tx, this.#options.stores.telemetry);
        return effects;
      });
    } catch (error) {
      Object.assign(this.counters, counted, {
        received: this.counters.received,
        dropped: this.counters.dropped,
      });
      throw error;
    }
  }

  async #applyDevice(
    tx: Database,
    device: string,
    items: readonly Item[],
    effects: CommitEffects,
    apart: boolean,
  ): Promise<void> {
    const { telemetry, devices } = this.#options.stores;
    const cursors = new Map<string, { boot: number; seq: number }>();
    for (const cursor of await telemetry.cursors(tx, device)) cursors.set(cursor.stream, cursor);
    const moved = new Set<Stream>();
    let sharedBoot = await this.#sharedBoot(tx, device, items);
    for (const item of items) {
      const stream = streamOf(item.kind);
      if (sharedBoot !== null && bootOf(item) === sharedBoot && item.kind !== "presence") {
        this.counters.conflicting++;
        continue;
      }
      if (!stream) {
        await this.#applyOrSetAside(tx, item, effects, apart);
        if (item.kind === "presence") sharedBoot = await this.#sharedBoot(tx, device, items);
        continue;
      }
      const delivery = deliveryOf(item);
      const verdict = delivery && judgeDelivery(cursors.get(stream), delivery);
      if (delivery && verdict !== "accept") this.#countRefused(verdict!);
      else await this.#applyOrSetAside(tx, item, effects, apart);
      if (delivery && verdict === "accept") {
        cursors.set(stream, { boot: delivery.boot, seq: delivery.seq });
        moved.add(stream);
      }
      const cursor = cursors.get(stream);
      if (cursor) effects.ack(device, { stream, boot: cursor.boot, seq: cursor.seq });
    }
    for (const stream of moved) {
      const cursor = cursors.get(stream)!;
      await telemetry.setCursor(tx, device, stream, cursor.boot, cursor.seq);
    }
    const { received } = items.at(-1)!;
    effects.seen.set(device, received);
    await devices.touch(tx, device, received);
  }

  /** The boot that two agents count as theirs, null where there is none. */
  async #sharedBoot(tx: Database, device: string, items: readonly Item[]): Promise<number | null> {
    const agent = await this.#options.stores.devices.agent(tx, device);
    return active(agent?.conflict ?? null, items.at(-1)!.received)?.sharedBoot ?? null;
  }

  async #applyOrSetAside(tx: Database, item: Item, effects: CommitEffects, apart: boolean): Promise<void> {
    let { error } = item;
    if (!error && item.decoded) {
      const { decoded } = item;
      if (!apart) return this.#apply(tx, item, decoded, effects);
      try {
        return await tx.transaction((part) => this.#apply(part, item, decoded, effects));
      } catch (thrown) {
        if (isStoreTrouble(thrown)) throw thrown;
        error = toFieldloopError(thrown);
      }
    }
    await this.#setAside(tx, item, error!);
  }

  async #apply(tx: Database, item: Item, decoded: Decoded, effects: CommitEffects): Promise<void> {
    const { stores } = this.#options;
    switch (decoded.kind) {
      case "presence":
        return applyPresence(tx, stores, item, decoded.message, effects);
      case "state":
        return applyState(tx, stores, item, decoded.message, effects);
      case "predictions":
        await applyPredictions(tx, stores, item, decoded.message, effects);
        this.counters.predictions += decoded.message.count;
        return;
      case "profile":
        return applyProfile(tx, stores, item, decoded.message);
      case "sample":
        return applySample(tx, stores, item, decoded.message, effects);
      case "event":
        return applyEvent(tx, stores, item, decoded.message, effects);
    }
  }

  async #setAside(tx: Database, item: Item, error: FieldloopError): Promise<void> {
    this.counters.poisoned++;
    const { device, kind, payload, received } = item;
    const { code } = error;
    const message = error.message.slice(0, 500);
    this.#options.logger.warn({ device, kind, code }, "message set aside");
    const letter = {
      id: randomUUID(),
      device,
      kind,
      code,
      message,
      received,
      bytes: payload.length,
      payload,
    };
    await this.#options.stores.events.insertDeadLetter(tx, letter);
  }

  #countRefused(verdict: "duplicate" | "gap" | "superseded"): void {
    if (verdict === "duplicate") this.counters.duplicates++;
    else if (verdict === "gap") this.counters.gaps++;
    else this.counters.superseded++;
  }

  #tell(effects: CommitEffects): void {
    const { downlink, live, rates, clock, logger } = this.#options;
    for (const [device, { sharedBoot }] of effects.conflicts) {
      logger.warn({ code: "identity_conflict", device, sharedBoot }, "two agents use one identity");
    }
    for (const [device, acks] of effects.acks) {
      // Lost with the connection: the device sends again and is answered again.
      downlink.publish(device, "ack", encodeAck(acks)).catch((error: unknown) => {
        logger.debug({ err: error, device }, "acknowledgement not sent");
      });
    }
    this.#options.committed?.(effects);
    const now = clock.now();
    for (const [device, count] of effects.predictionsByDevice) rates.add(device, count, now);
    for (const event of effects.liveEvents) live.publish(event);
  }
}

function tryDecode(item: Item): void {
  try {
    item.decoded = decode(item.kind, item.payload);
  } catch (error) {
    item.error = toFieldloopError(error);
  }
}

/** Boot of whoever sent it; undefined where it cannot be read. */
function bootOf(item: Item): number | undefined {
  return item.decoded?.message.boot ?? deliveryOf(item)?.boot;
}

function deliveryOf(item: Item): Delivery | undefined {
  const { decoded } = item;
  if (!decoded) return deliveryOfPoison(item.kind, item.payload);
  return decoded.kind === "presence" || decoded.kind === "state" ? undefined : decoded.message;
}

function byDevice(items: readonly Item[]): Map<string, Item[]> {
  const groups = new Map<string, Item[]>();
  for (const item of items) {
    const group = groups.get(item.device);
    if (group) group.push(item);
    else groups.set(item.device, [item]);
  }
  return groups;
}

function isStoreTrouble(error: unknown): boolean {
  return error instanceof FieldloopError && STORE_TROUBLE.includes(error.code);
}
