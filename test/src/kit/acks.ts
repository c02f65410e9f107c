import { decodeAck, parseTopic, type Ack } from "@fieldloop/protocol";
import { parser, type Parser } from "mqtt-packet";

/** Reads the MQTT bytes that go down to devices and remembers what ingest said to be durable: those promises must hold. */
export class AckRecorder {
  readonly #parsers = new Map<number, Parser>();
  readonly #highest = new Map<string, { device: string } & Ack>();
  #count = 0;

  /** For {@link ProxyOptions.onDown}. */
  readonly take = (connection: number, bytes: Buffer): void => {
    let packets = this.#parsers.get(connection);
    if (!packets) {
      packets = parser({ protocolVersion: 4 });
      packets.on("packet", (packet) => {
        if (packet.cmd === "publish") this.#note(packet.topic, packet.payload as Buffer);
      });
      this.#parsers.set(connection, packets);
    }
    packets.parse(bytes);
  };

  /** Acknowledgements seen. */
  get count(): number {
    return this.#count;
  }

  /** The highest acknowledged number of every device, boot and stream. */
  get promises(): readonly ({ readonly device: string } & Ack)[] {
    return [...this.#highest.values()];
  }

  #note(topic: string, payload: Buffer): void {
    const parsed = parseTopic(topic);
    if (parsed.way !== "down" || parsed.kind !== "ack") return;
    this.#count++;
    for (const ack of decodeAck(payload)) {
      const key = `${parsed.device} ${ack.boot} ${ack.stream}`;
      if ((this.#highest.get(key)?.seq ?? 0) < ack.seq)
        this.#highest.set(key, { device: parsed.device, ...ack });
    }
  }
}
