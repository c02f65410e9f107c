import { connect, type Socket } from "node:net";
import { decodeAck, parseTopic, upTopic } from "@fieldloop/protocol";
import { generate, parser, type Packet } from "mqtt-packet";

/** What is durable for the sender: a PUBACK where nothing is stored, `down/ack` at a fleet server. */
export type Confirmed = "puback" | "ack";

const IN_FLIGHT_MAX = 32;

/** One connection that publishes batches as fast as they are confirmed, on bare MQTT packets: it must not be what is measured. */
export class LoadDevice {
  readonly device: string;
  readonly #socket: Socket;
  readonly #confirmed: Confirmed;
  #batches: readonly Uint8Array[] = [];
  #sent = 0;
  #done = 0;
  #opened: (() => void) | undefined;
  #finished: { resolve: () => void; reject: (error: Error) => void } | undefined;

  private constructor(socket: Socket, device: string, confirmed: Confirmed) {
    this.#socket = socket;
    this.device = device;
    this.#confirmed = confirmed;
    const packets = parser({ protocolVersion: 4 });
    packets.on("packet", (packet) => this.#take(packet));
    socket.on("data", (bytes: Buffer) => packets.parse(bytes));
    socket.on("error", () => undefined);
    socket.on("close", () =>
      this.#finished?.reject(new Error(`${device}: the broker closed the connection`)),
    );
  }

  /** Connects and subscribes to its `down/`. */
  static async connect(
    port: number,
    identity: { device: string; credential: string },
    confirmed: Confirmed,
  ): Promise<LoadDevice> {
    const { device, credential } = identity;
    const socket = connect({ port, host: "127.0.0.1", noDelay: true });
    const load = new LoadDevice(socket, device, confirmed);
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    const opened = new Promise<void>((resolve) => (load.#opened = resolve));
    load.#send({
      cmd: "connect",
      protocolId: "MQTT",
      protocolVersion: 4,
      clean: true,
      clientId: device,
      keepalive: 120,
      username: device,
      password: Buffer.from(credential),
    });
    await opened;
    return load;
  }

  /** Resolves when every batch is confirmed. */
  publish(batches: readonly Uint8Array[]): Promise<void> {
    this.#batches = batches;
    return new Promise((resolve, reject) => {
      this.#finished = { resolve, reject };
      this.#pump();
    });
  }

  end(): void {
    this.#finished = undefined;
    this.#socket.destroy();
  }

  #pump(): void {
    this.#socket.cork();
    while (this.#sent < this.#batches.length && this.#sent - this.#done < IN_FLIGHT_MAX) {
      const payload = Buffer.from(this.#batches[this.#sent]!);
      this.#sent++;
      const messageId = (this.#sent % 65_535) + 1;
      this.#send({
        cmd: "publish",
        topic: upTopic(this.device, "predictions"),
        payload,
        qos: 1,
        retain: false,
        dup: false,
        messageId,
      });
    }
    this.#socket.uncork();
    if (this.#done >= this.#batches.length && this.#batches.length > 0) this.#finished?.resolve();
  }

  #take(packet: Packet): void {
    if (packet.cmd === "connack") {
      const filter = `fieldloop/1/${this.device}/down/ack`;
      this.#send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: filter, qos: 0 }] });
    } else if (packet.cmd === "suback") {
      this.#opened?.();
    } else if (packet.cmd === "puback" && this.#confirmed === "puback") {
      this.#done++;
    } else if (packet.cmd === "publish" && parseTopic(packet.topic).kind === "ack") {
      for (const { stream, seq } of decodeAck(packet.payload as Buffer)) {
        if (stream === "predictions") this.#done = Math.max(this.#done, seq);
      }
    }
    this.#pump();
  }

  #send(packet: Packet): void {
    this.#socket.write(generate(packet, { protocolVersion: 4 }));
  }
}
