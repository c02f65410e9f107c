/** MQTT control packet types, OASIS MQTT 3.1.1 table 2.1. */
export const PACKET = {
  connect: 1,
  connack: 2,
  publish: 3,
  puback: 4,
  subscribe: 8,
  unsubscribe: 10,
} as const;

/** What the fixed header and the first fields of a packet say; its payload is never looked at. */
export interface Frame {
  readonly type: number;
  readonly qos: number;
  /** Whole packet on the wire: fixed header, variable header and payload. */
  readonly bytes: number;
  /** PUBLISH only. */
  readonly topic: string;
  /** PUBLISH above QoS 0, and PUBACK. */
  readonly messageId: number;
  /** SUBSCRIBE and UNSUBSCRIBE: number of filters. */
  readonly filters: number;
  /** CONNACK only; 0 is accepted. */
  readonly returnCode: number;
}

export interface FrameLimits {
  /** Whole packet of this type, bytes. */
  packetBytesMax(type: number): number;
  readonly topicBytesMax: number;
}

/** Why a connection is closed before the broker sees its bytes. */
export class FrameError extends Error {
  override readonly name = "FrameError";
}

/**
 * Follows packet boundaries in a stream of bytes, so that a packet above its limit is refused from its first five bytes and not after
 * it was buffered. Keeps at most the bytes it reads fields from.
 */
export class FrameScanner {
  readonly #limits: FrameLimits;
  readonly #onFrame: (frame: Frame) => void;
  #first = -1;
  #length = 0;
  #lengthBytes = 0;
  #inBody = false;
  /** Body bytes still to come. */
  #left = 0;
  /** Beginning of the body, as far as fields are read from it. */
  #head: number[] = [];
  #headWanted = 0;

  constructor(limits: FrameLimits, onFrame: (frame: Frame) => void) {
    this.#limits = limits;
    this.#onFrame = onFrame;
  }

  /** @throws FrameError for a packet that is malformed or above a limit */
  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      if (!this.#inBody) at = this.#header(chunk, at);
      else at = this.#body(chunk, at);
    }
  }

  #header(chunk: Uint8Array, at: number): number {
    const byte = chunk[at]!;
    if (this.#first < 0) {
      this.#first = byte;
      this.#length = 0;
      this.#lengthBytes = 0;
      return at + 1;
    }
    // Remaining length, 7 bits a byte, at most 4 bytes [MQTT-2.2.3].
    this.#length += (byte & 0x7f) * 128 ** this.#lengthBytes;
    this.#lengthBytes++;
    if ((byte & 0x80) !== 0) {
      if (this.#lengthBytes === 4) throw new FrameError("remaining length of more than 4 bytes");
      return at + 1;
    }
    this.#begin();
    return at + 1;
  }

  #begin(): void {
    const type = this.#first >> 4;
    const bytesMax = this.#limits.packetBytesMax(type);
    if (this.#bytes > bytesMax) throw new FrameError(`packet of ${this.#bytes} bytes, at most ${bytesMax}`);
    this.#inBody = true;
    this.#left = this.#length;
    this.#head = [];
    this.#headWanted = Math.min(this.#length, headBytes(type));
    if (this.#left === 0) this.#end();
  }

  #body(chunk: Uint8Array, at: number): number {
    const take = Math.min(this.#left, chunk.length - at);
    for (let index = 0; index < take && this.#head.length < this.#headWanted; index++) {
      this.#head.push(chunk[at + index]!);
      if (this.#head.length === 2 && this.#first >> 4 === PACKET.publish) this.#wantTopic();
    }
    this.#left -= take;
    if (this.#left === 0) this.#end();
    return at + take;
  }

  #wantTopic(): void {
    const length = (this.#head[0]! << 8) | this.#head[1]!;
    if (length > this.#limits.topicBytesMax) throw new FrameError(`topic of ${length} bytes`);
    this.#headWanted = Math.min(this.#length, 2 + length + 2);
  }

  #end(): void {
    const type = this.#first >> 4;
    const qos = (this.#first >> 1) & 3;
    const head = Uint8Array.from(this.#head);
    const frame: Frame = { type, qos, bytes: this.#bytes, ...fields(type, qos, head) };
    this.#first = -1;
    this.#inBody = false;
    this.#onFrame(frame);
  }

  get #bytes(): number {
    return 1 + this.#lengthBytes + this.#length;
  }
}

/** Bytes of the body that fields are read from; a topic's length is in its first two. */
function headBytes(type: number): number {
  switch (type) {
    case PACKET.publish:
    case PACKET.puback:
    case PACKET.connack:
      return 2;
    case PACKET.subscribe:
    case PACKET.unsubscribe:
      return Number.MAX_SAFE_INTEGER;
    default:
      return 0;
  }
}

function fields(
  type: number,
  qos: number,
  head: Uint8Array,
): { topic: string; messageId: number; filters: number; returnCode: number } {
  const none = { topic: "", messageId: 0, filters: 0, returnCode: 0 };
  switch (type) {
    case PACKET.publish: {
      if (head.length < 2) throw new FrameError("PUBLISH without a topic");
      const end = 2 + u16(head, 0);
      if (head.length < end + (qos > 0 ? 2 : 0)) throw new FrameError("PUBLISH shorter than its topic");
      const topic = Buffer.from(head.buffer, head.byteOffset + 2, end - 2).toString("utf8");
      return { ...none, topic, messageId: qos > 0 ? u16(head, end) : 0 };
    }
    case PACKET.puback:
      return { ...none, messageId: head.length >= 2 ? u16(head, 0) : 0 };
    case PACKET.connack:
      return { ...none, returnCode: head[1] ?? 255 };
    case PACKET.subscribe:
      return { ...none, filters: countFilters(head, 1) };
    case PACKET.unsubscribe:
      return { ...none, filters: countFilters(head, 0) };
    default:
      return none;
  }
}

function countFilters(body: Uint8Array, optionBytes: number): number {
  let filters = 0;
  for (let at = 2; at + 2 <= body.length; filters++) at += 2 + u16(body, at) + optionBytes;
  return filters;
}

function u16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}
