import { connect, type Socket } from "node:net";
import { generate, parser, type IConnectPacket, type Packet } from "mqtt-packet";
import { until } from "./wait.js";

/**
 * An MQTT 3.1.1 client that shows and sends single packets, and raw bytes that no library would send. For tests of a broker
 * against the clauses of the OASIS standard.
 */
export class WireClient {
  readonly received: Packet[] = [];
  closed = false;
  readonly #socket: Socket;
  #nextId = 1;

  private constructor(socket: Socket) {
    this.#socket = socket;
    const packets = parser({ protocolVersion: 4 });
    packets.on("packet", (packet) => this.received.push(packet));
    packets.on("error", () => socket.destroy());
    socket.on("data", (bytes) => packets.parse(bytes));
    socket.on("error", () => undefined);
    socket.on("close", () => (this.closed = true));
  }

  static open(port: number): Promise<WireClient> {
    return new Promise((resolve, reject) => {
      const socket = connect(port, "127.0.0.1");
      socket.once("error", reject);
      socket.once("connect", () => resolve(new WireClient(socket)));
    });
  }

  /** Opens, sends CONNECT and waits for the CONNACK. */
  static async connect(
    port: number,
    options: Partial<IConnectPacket> & { clientId: string },
  ): Promise<WireClient> {
    const client = await WireClient.open(port);
    client.send({
      cmd: "connect",
      protocolId: "MQTT",
      protocolVersion: 4,
      clean: true,
      keepalive: 30,
      ...options,
    });
    await client.expect("connack");
    return client;
  }

  send(packet: Packet): void {
    this.#socket.write(generate(packet, { protocolVersion: 4 }));
  }

  sendRaw(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** Waits for the next packet of a kind that was not taken before, and takes it. */
  async expect<Kind extends Packet["cmd"]>(
    kind: Kind,
    timeoutMs = 4_000,
  ): Promise<Extract<Packet, { cmd: Kind }>> {
    const packet = await until(
      `a ${kind} arrives (have ${this.received.map((p) => p.cmd).join(", ") || "nothing"})`,
      () => this.received.find((candidate) => candidate.cmd === kind),
      { timeoutMs, everyMs: 5 },
    );
    this.received.splice(this.received.indexOf(packet), 1);
    return packet as Extract<Packet, { cmd: Kind }>;
  }

  async expectClosed(timeoutMs = 4_000): Promise<void> {
    await until("the broker closes the connection", () => this.closed, { timeoutMs, everyMs: 5 });
  }

  async subscribe(filters: Record<string, 0 | 1 | 2>): Promise<number[]> {
    const messageId = this.#nextId++;
    const subscriptions = Object.entries(filters).map(([topic, qos]) => ({ topic, qos }));
    this.send({ cmd: "subscribe", messageId, subscriptions });
    const suback = await this.expect("suback");
    if (suback.messageId !== messageId)
      throw new Error(`SUBACK for ${suback.messageId}, wanted ${messageId}`);
    return suback.granted as number[];
  }

  /** Sends a PUBLISH and completes its handshake. */
  async publish(
    topic: string,
    payload: string | Uint8Array,
    options: { qos?: 0 | 1 | 2; retain?: boolean } = {},
  ): Promise<void> {
    const { qos = 0, retain = false } = options;
    const messageId = this.#nextId++;
    const bytes = typeof payload === "string" ? payload : Buffer.from(payload);
    this.send({
      cmd: "publish",
      topic,
      payload: bytes,
      qos,
      retain,
      dup: false,
      ...(qos === 0 ? {} : { messageId }),
    });
    if (qos === 1) await this.expect("puback");
    if (qos === 2) {
      await this.expect("pubrec");
      this.send({ cmd: "pubrel", messageId });
      await this.expect("pubcomp");
    }
  }

  /** A round trip: whatever the broker was to send before it has arrived. */
  async settle(): Promise<void> {
    this.send({ cmd: "pingreq" });
    await this.expect("pingresp");
  }

  publishes(): { topic: string; payload: string; qos: number; retain: boolean; dup: boolean }[] {
    return this.received.flatMap((packet) =>
      packet.cmd === "publish"
        ? [
            {
              topic: packet.topic,
              payload: packet.payload.toString(),
              qos: packet.qos,
              retain: packet.retain,
              dup: packet.dup,
            },
          ]
        : [],
    );
  }

  disconnect(): void {
    this.send({ cmd: "disconnect" });
    this.#socket.end();
  }

  /** Cuts the connection without a word, as a power loss does. */
  drop(): void {
    this.#socket.destroy();
  }
}
