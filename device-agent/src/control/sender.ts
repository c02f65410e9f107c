import {
  type FieldloopError,
  STREAMS,
  toFieldloopError,
  upTopic,
  type Ack,
  type Stream,
} from "@fieldloop/protocol";
import type { Clock } from "../clock.js";
import { AGENT_LIMITS } from "../limits.js";
import type { Bandwidth } from "./bandwidth.js";
import type { Spool } from "./spool/spool.js";
import type { SpoolEntry } from "./spool/stream-log.js";

export interface SenderOptions {
  readonly device: string;
  readonly spool: Spool;
  readonly clock: Clock;
  /** Shared with downloads. */
  readonly bandwidth: Bandwidth;
  readonly onError: (error: FieldloopError) => void;
  /** How often missing acknowledgements are looked for. */
  readonly checkIntervalMs?: number;
}

/** Publishes at QoS 1; resolves with the PUBACK, which is flow control only. */
export type Publish = (topic: string, payload: Uint8Array) => Promise<void>;

interface StreamState {
  /** The last record that was sent on this connection, or undefined: begin at the head. */
  sent: SpoolEntry | undefined;
  inFlight: Set<SpoolEntry>;
  /** When the oldest of those was sent, or the last acknowledgement came. */
  waitingSince: number;
  timeouts: number;
}

/** MQTT header, topic and packet id of a publish beside its payload. */
const PACKET_OVERHEAD_BYTES = 8;

/**
 * Brings the spool to the server: in order within a stream, an older boot's records wholly acknowledged before a newer
 * boot's begin, a window in flight per stream, everything from the head again when no acknowledgement comes (go-back-N:
 * what arrived before is dropped as a duplicate). One byte budget; events before profiles before predictions before samples.
 */
export class Sender {
  readonly #options: SenderOptions;
  readonly #streams: Record<Stream, StreamState>;
  #publish: Publish | undefined;
  #publishing = 0;
  #pumping = false;
  #again = false;
  #timer: NodeJS.Timeout | undefined;
  #ackTimer: NodeJS.Timeout | undefined;
  #bytesSent = 0;
  #resends = 0;

  constructor(options: SenderOptions) {
    this.#options = options;
    const fresh = (): StreamState => ({
      sent: undefined,
      inFlight: new Set(),
      waitingSince: 0,
      timeouts: 0,
    });
    this.#streams = { event: fresh(), profile: fresh(), predictions: fresh(), sample: fresh() };
  }

  get bytesSent(): number {
    return this.#bytesSent;
  }
  get resends(): number {
    return this.#resends;
  }

  /** A connection is up: everything unacknowledged is sent on it from the head. */
  connected(publish: Publish): void {
    this.#reset();
    this.#publish = publish;
    this.#ackTimer = setInterval(() => this.#checkTimeouts(), this.#options.checkIntervalMs ?? 250);
    this.pump();
  }

  disconnected(): void {
    this.#publish = undefined;
    clearInterval(this.#ackTimer);
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#options.bandwidth.rest("telemetry");
    this.#reset();
  }

  #reset(): void {
    for (const stream of STREAMS) {
      this.#rewind(this.#streams[stream]);
      this.#streams[stream].timeouts = 0;
    }
    this.#publishing = 0;
  }

  #rewind(state: StreamState): void {
    for (const entry of state.inFlight) entry.inFlight = false;
    state.inFlight.clear();
    state.sent = undefined;
  }

  acknowledged(acks: readonly Ack[]): void {
    const now = this.#options.clock.monotonic();
    for (const ack of acks) {
      const freed = this.#options.spool.acknowledge(ack);
      if (freed === 0) continue;
      const state = this.#streams[ack.stream];
      for (const entry of state.inFlight) {
        if (entry.boot < ack.boot || (entry.boot === ack.boot && entry.seq <= ack.seq)) {
          entry.inFlight = false;
          state.inFlight.delete(entry);
        }
      }
      state.waitingSince = now;
      state.timeouts = 0;
    }
    this.pump();
  }

  /** Whether nothing is left to send or to be acknowledged. */
  get idle(): boolean {
    return STREAMS.every((stream) => this.#options.spool.head(stream) === undefined);
  }

  /** Sends what may be sent now. Called whenever something changed. */
  pump(): void {
    if (this.#pumping) {
      this.#again = true;
      return;
    }
    this.#pumping = true;
    void this.#run().finally(() => {
      this.#pumping = false;
      if (this.#again) {
        this.#again = false;
        this.pump();
      }
    });
  }

  async #run(): Promise<void> {
    while (this.#publish !== undefined) {
      if (this.#publishing >= AGENT_LIMITS.publishesInFlightMax) return;
      const choice = this.#choose();
      if (!choice) {
        this.#options.bandwidth.rest("telemetry");
        return;
      }
      const waitMs = this.#options.bandwidth.waitMs(choice.stream);
      if (waitMs > 0) {
        this.#timer ??= setTimeout(
          () => {
            this.#timer = undefined;
            this.pump();
          },
          Math.min(waitMs, 1_000),
        );
        return;
      }
      await this.#send(choice.stream, choice.entry);
    }
  }

  /** STREAMS is in the order of priority. */
  #choose(): { stream: Stream; entry: SpoolEntry } | undefined {
    for (const stream of STREAMS) {
      const state = this.#streams[stream];
      if (state.inFlight.size >= AGENT_LIMITS.windowRecords[stream]) continue;
      const entry = this.#options.spool.next(stream, state.sent);
      if (!entry) continue;
      const head = this.#options.spool.head(stream)!;
      // A newer boot's record would supersede an older one that is still on its way.
      if (entry.boot !== head.boot) continue;
      return { stream, entry };
    }
    return undefined;
  }

  async #send(stream: Stream, entry: SpoolEntry): Promise<void> {
    const state = this.#streams[stream];
    const publish = this.#publish;
    entry.inFlight = true;
    state.inFlight.add(entry);
    state.sent = entry;
    let message: Uint8Array;
    try {
      message = await this.#options.spool.message(stream, entry);
    } catch (error) {
      await this.#dropHarmed(stream, entry, toFieldloopError(error));
      return;
    }
    // The connection may have gone, or an acknowledgement come, while the disk was read.
    if (this.#publish !== publish || publish === undefined || !state.inFlight.has(entry)) return;
    const topic = upTopic(this.#options.device, stream);
    const now = this.#options.clock.monotonic();
    const bytes = message.length + topic.length + PACKET_OVERHEAD_BYTES;
    if (state.inFlight.size === 1) state.waitingSince = now;
    this.#options.bandwidth.take(stream, bytes);
    this.#bytesSent += bytes;
    this.#publishing++;
    publish(topic, message).then(
      () => this.#published(publish),
      () => this.#published(publish),
    );
  }

  #published(publish: Publish): void {
    if (this.#publish !== publish) return;
    this.#publishing = Math.max(0, this.#publishing - 1);
    this.pump();
  }

  async #dropHarmed(stream: Stream, entry: SpoolEntry, error: FieldloopError): Promise<void> {
    this.#options.onError(error);
    const state = this.#streams[stream];
    // Those sent after it name it as their predecessor: they go again, with another one.
    this.#rewind(state);
    await this.#options.spool.discard(stream, entry);
  }

  #checkTimeouts(): void {
    const now = this.#options.clock.monotonic();
    for (const stream of STREAMS) {
      const state = this.#streams[stream];
      if (state.inFlight.size === 0) continue;
      const limitMs = Math.min(AGENT_LIMITS.ackTimeoutMs * 2 ** state.timeouts, AGENT_LIMITS.ackTimeoutMaxMs);
      if (now - state.waitingSince < limitMs) continue;
      state.timeouts++;
      this.#resends += state.inFlight.size;
      state.waitingSince = now;
      this.#rewind(state);
      this.pump();
    }
  }
}
