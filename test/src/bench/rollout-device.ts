import { connect, type Socket } from "node:net";
import {
  decodeCbor,
  decodeMessage,
  encodeMessage,
  parseTopic,
  upTopic,
  type DeploymentState,
  type Desired,
  type Facts,
} from "@fieldloop/protocol";
import { generate, parser, type Packet } from "mqtt-packet";

/** A device of the rollout bench: on bare MQTT packets, it says that it took each version it is told, as an agent does. */
export class RolloutDevice {
  readonly device: string;
  readonly #socket: Socket;
  readonly #facts: Facts;
  #seq = 0;
  #messageId = 0;
  #revision = 0;
  #deployment = "";
  #opened: (() => void) | undefined;
  active = false;

  private constructor(socket: Socket, device: string, facts: Facts) {
    this.#socket = socket;
    this.device = device;
    this.#facts = facts;
    const packets = parser({ protocolVersion: 4 });
    packets.on("packet", (packet) => this.#take(packet));
    socket.on("data", (bytes: Buffer) => packets.parse(bytes));
    socket.on("error", () => undefined);
  }

  static async connect(
    port: number,
    identity: { device: string; credential: string },
    facts: Facts,
  ): Promise<RolloutDevice> {
    const { device, credential } = identity;
    const socket = connect({ port, host: "127.0.0.1", noDelay: true });
    const made = new RolloutDevice(socket, device, facts);
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    const opened = new Promise<void>((resolve) => (made.#opened = resolve));
    const about = { protocolId: "MQTT", protocolVersion: 4, clean: true, keepalive: 300 } as const;
    made.#send({
      cmd: "connect",
      ...about,
      clientId: device,
      username: device,
      password: Buffer.from(credential),
    });
    await opened;
    made.#publish(
      "presence",
      encodeMessage("presence", { online: true, boot: 1, agentVersion: "bench" }),
      true,
    );
    made.#state(null);
    return made;
  }

  /** Heard again: what a live agent's telemetry does. */
  beat(): void {
    this.#publish(
      "presence",
      encodeMessage("presence", { online: true, boot: 1, agentVersion: "bench" }),
      true,
    );
  }

  end(): void {
    this.#socket.destroy();
  }

  #take(packet: Packet): void {
    if (packet.cmd === "connack") {
      const filter = `fieldloop/1/${this.device}/down/desired`;
      this.#send({
        cmd: "subscribe",
        messageId: ++this.#messageId,
        subscriptions: [{ topic: filter, qos: 1 }],
      });
    } else if (packet.cmd === "suback") this.#opened?.();
    else if (packet.cmd === "publish") {
      if (packet.qos === 1) this.#send({ cmd: "puback", messageId: packet.messageId! });
      if (parseTopic(packet.topic).kind === "desired") this.#follow(packet.payload as Buffer);
    }
  }

  #follow(envelope: Buffer): void {
    const { payload } = decodeCbor(new Uint8Array(envelope)) as unknown as { payload: Uint8Array };
    const desired: Desired = decodeMessage("desired", payload);
    this.#revision = desired.revision;
    const wanted = desired.assignments[0];
    if (!wanted || wanted.deployment === this.#deployment) return;
    this.#deployment = wanted.deployment;
    for (const state of ["downloading", "self_testing", "probation"] as const) this.#report(wanted, state);
    this.#state(wanted);
    this.#report(wanted, "active");
    this.active = true;
  }

  #report(
    { deployment, model, version, packageSha256 }: Desired["assignments"][number],
    state: DeploymentState,
  ): void {
    const seq = ++this.#seq;
    const data = {
      type: "deployment" as const,
      deployment,
      model,
      version,
      packageSha256,
      state,
      measured: {},
    };
    this.#publish("event", encodeMessage("event", { boot: 1, seq, prev: seq - 1, time: Date.now(), data }));
  }

  #state(runs: Desired["assignments"][number] | null): void {
    const since = Date.now();
    const running = runs && {
      ...{ model: runs.model, version: runs.version, packageSha256: runs.packageSha256 },
      ...{ variant: "fp32", executionProvider: "cpu", since },
    };
    const zero = {
      predictions: 0,
      framesDropped: 0,
      framesFailed: 0,
      samplesTaken: 0,
      recordsEvicted: 0,
      hostRestarts: 0,
    };
    const state = {
      ...{
        time: since,
        boot: 1,
        agentVersion: "bench",
        facts: this.#facts,
        running,
        previous: null,
        deployment: null,
      },
      ...{ lanes: [], desiredRevision: this.#revision, configId: null, warnings: [], counters: zero },
      ...{ spool: { records: 0, bytes: 0, bytesMax: 1 }, source: "bench" },
    };
    this.#publish("state", encodeMessage("state", state), true);
  }

  #publish(kind: "presence" | "state" | "event", payload: Uint8Array, retain = false): void {
    this.#messageId = (this.#messageId % 65_535) + 1;
    const topic = upTopic(this.device, kind);
    const about = { qos: 1, retain, dup: false, messageId: this.#messageId } as const;
    this.#send({ cmd: "publish", topic, payload: Buffer.from(payload), ...about });
  }

  #send(packet: Packet): void {
    this.#socket.write(generate(packet, { protocolVersion: 4 }));
  }
}
