import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import { LIMITS } from "@fieldloop/protocol";
import { SERVER_LIMITS } from "../limits.js";
import { FrameError, FrameScanner, PACKET, type Frame } from "./frames.js";
import { kindOf, type WireMeter } from "./meter.js";
import { TokenBucket } from "./token-bucket.js";

export interface GuardSettings {
  readonly packetBytesMax: number;
  readonly packetBeforeConnectBytesMax: number;
  readonly filtersPerSubscribeMax: number;
  readonly topicBytesMax: number;
  /** Highest quality of service that a client may publish with. */
  readonly qosMax: 1 | 2;
  readonly messagesPerSecond: number;
  readonly messagesBurst: number;
  readonly bytesPerSecond: number;
  readonly bytesBurst: number;
}

export const DEVICE_GUARD: GuardSettings = {
  packetBytesMax: LIMITS.packetBytesMax,
  packetBeforeConnectBytesMax: LIMITS.packetBeforeConnectBytesMax,
  filtersPerSubscribeMax: SERVER_LIMITS.brokerFiltersPerSubscribeMax,
  topicBytesMax: LIMITS.topicBytesMax,
  qosMax: 1,
  messagesPerSecond: SERVER_LIMITS.brokerMessagesPerSecond,
  messagesBurst: SERVER_LIMITS.brokerMessagesBurst,
  bytesPerSecond: SERVER_LIMITS.brokerBytesPerSecond,
  bytesBurst: SERVER_LIMITS.brokerBytesBurst,
};

/** Message ids of predictions that wait for their PUBACK; a client has 65,535 in all. */
const PENDING_PUBACKS_MAX = 1_000;

/**
 * A socket as the broker sees it, with a guard before it: packets above a limit end the connection before they are buffered, a sender
 * above its rate is read more slowly, and every packet both ways is counted.
 */
export class GuardedConnection extends Duplex {
  /** The broker accepted its CONNECT. */
  accepted = false;
  refusal: string | undefined;
  readonly #socket: Socket;
  readonly #settings: GuardSettings;
  readonly #meter: WireMeter;
  readonly #incoming: FrameScanner;
  readonly #outgoing: FrameScanner;
  readonly #messages: TokenBucket;
  readonly #bytes: TokenBucket;
  readonly #predictionIds = new Set<number>();
  #receivedBytes = 0;
  #first = true;
  #resume: NodeJS.Timeout | undefined;

  constructor(socket: Socket, settings: GuardSettings, meter: WireMeter) {
    super({ allowHalfOpen: false });
    this.#socket = socket;
    this.#settings = settings;
    this.#meter = meter;
    this.#messages = new TokenBucket(settings.messagesPerSecond, settings.messagesBurst);
    this.#bytes = new TokenBucket(settings.bytesPerSecond, settings.bytesBurst);
    this.#incoming = new FrameScanner(
      { packetBytesMax: (type) => this.#limitOf(type), topicBytesMax: settings.topicBytesMax },
      (frame) => this.#received(frame),
    );
    this.#outgoing = new FrameScanner(
      { packetBytesMax: () => Number.MAX_SAFE_INTEGER, topicBytesMax: 65_535 },
      (frame) => this.#sent(frame),
    );
    socket.on("data", (chunk: Buffer) => this.#data(chunk));
    socket.on("end", () => this.push(null));
    socket.on("close", () => this.destroy());
    socket.on("error", (error) => this.destroy(error));
  }

  get remoteAddress(): string | undefined {
    return this.#socket.remoteAddress;
  }

  override _read(): void {
    if (!this.#resume) this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#send(chunk, done);
  }

  override _writev(chunks: { chunk: Buffer }[], done: (error?: Error | null) => void): void {
    this.#send(Buffer.concat(chunks.map(({ chunk }) => chunk)), done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#socket.end(() => done());
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (this.#resume) clearTimeout(this.#resume);
    this.#socket.destroy();
    done(error);
  }

  #data(chunk: Buffer): void {
    this.#receivedBytes += chunk.length;
    if (!this.accepted && this.#receivedBytes > this.#settings.packetBeforeConnectBytesMax) {
      return this.#refuse(
        `more than ${this.#settings.packetBeforeConnectBytesMax} bytes before CONNECT was accepted`,
      );
    }
    try {
      this.#incoming.push(chunk);
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      return this.#refuse(error.message);
    }
    if (!this.push(chunk)) this.#socket.pause();
    this.#slowDown(Math.max(this.#messages.waitMs(), this.#bytes.take(chunk.length)));
  }

  /** Reads nothing for a while; the sender notices by TCP's flow control. */
  #slowDown(waitMs: number): void {
    if (waitMs <= 0 || this.#resume) return;
    this.#socket.pause();
    this.#resume = setTimeout(() => {
      this.#resume = undefined;
      this.#socket.resume();
    }, waitMs);
  }

  #refuse(reason: string): void {
    this.refusal = reason;
    this.destroy(new FrameError(reason));
  }

  #limitOf(type: number): number {
    if (this.#first && type !== PACKET.connect) throw new FrameError("the first packet is no CONNECT");
    if (!this.accepted) return this.#settings.packetBeforeConnectBytesMax;
    if (type === PACKET.subscribe || type === PACKET.unsubscribe) {
      const perFilter = 2 + this.#settings.topicBytesMax + 1;
      return Math.min(this.#settings.packetBytesMax, 7 + this.#settings.filtersPerSubscribeMax * perFilter);
    }
    return this.#settings.packetBytesMax;
  }

  #received(frame: Frame): void {
    this.#first = false;
    this.#meter.count(frame);
    this.#messages.take(1);
    if (frame.filters > this.#settings.filtersPerSubscribeMax) {
      throw new FrameError(`${frame.filters} filters in one packet`);
    }
    if (frame.type !== PACKET.publish) return;
    if (frame.qos > this.#settings.qosMax) throw new FrameError(`PUBLISH of quality of service ${frame.qos}`);
    if (
      frame.qos > 0 &&
      kindOf(frame.topic) === "up/predictions" &&
      this.#predictionIds.size < PENDING_PUBACKS_MAX
    ) {
      this.#predictionIds.add(frame.messageId);
    }
  }

  #sent(frame: Frame): void {
    if (frame.type === PACKET.connack && frame.returnCode === 0) this.accepted = true;
    if (frame.type === PACKET.puback && this.#predictionIds.delete(frame.messageId)) {
      this.#meter.countPredictionPuback(frame);
    } else this.#meter.count(frame);
  }

  #send(chunk: Buffer, done: (error?: Error | null) => void): void {
    this.#outgoing.push(chunk);
    if (this.#socket.destroyed) return done(new FrameError("the socket is closed"));
    if (this.#socket.write(chunk)) done();
    else this.#socket.once("drain", () => done());
  }
}
