import { createHash } from "node:crypto";
import {
  decodeAck,
  downTopic,
  encodeMessage,
  encodePredictions,
  upTopic,
  type Ack,
  type PredictionBatch,
  type PredictionRow,
  type Stream,
  type UpKind,
} from "@fieldloop/protocol";
import type { IConnectPacket, Packet } from "mqtt-packet";
import { WireClient } from "./mqtt-wire.js";
import { until } from "./wait.js";

export interface DeviceIdentity {
  readonly device: string;
  readonly credential: string;
}

/** CONNECT fields of an enrolled device: client id and user name are its id, the password is its credential. */
export function connectFields({ device, credential }: DeviceIdentity): {
  clientId: string;
  username: string;
  password: Buffer;
} {
  return { clientId: device, username: device, password: Buffer.from(credential) };
}

/** A device on bare MQTT packets, so that it can also say what no agent says. */
export class WireDevice {
  readonly device: string;
  readonly wire: WireClient;
  /** What a packet acknowledged: each is decoded once, however often somebody asks. */
  readonly #acks = new WeakMap<Packet, readonly Ack[]>();

  private constructor(device: string, wire: WireClient) {
    this.device = device;
    this.wire = wire;
  }

  /** Connects and subscribes to everything that is meant for it. */
  static async connect(
    port: number,
    identity: DeviceIdentity,
    options: Partial<IConnectPacket> = {},
  ): Promise<WireDevice> {
    const wire = await WireClient.open(port);
    const { device } = identity;
    wire.send({
      cmd: "connect",
      protocolId: "MQTT",
      protocolVersion: 4,
      clean: true,
      keepalive: 60,
      ...connectFields(identity),
      ...options,
    });
    const { returnCode } = await wire.expect("connack");
    if (returnCode !== 0) throw new Error(`CONNACK ${returnCode} for "${device}"`);
    await wire.subscribe({ [`fieldloop/1/${device}/down/#`]: 1 });
    return new WireDevice(device, wire);
  }

  publish(kind: UpKind, payload: Uint8Array, options: { qos?: 0 | 1; retain?: boolean } = {}): Promise<void> {
    return this.wire.publish(upTopic(this.device, kind), payload, {
      qos: options.qos ?? 1,
      retain: options.retain ?? false,
    });
  }

  /** Every acknowledgement that came, in order. */
  acks(): Ack[] {
    return this.wire.received.flatMap((packet) => this.#acksOf(packet));
  }

  #acksOf(packet: Packet): readonly Ack[] {
    if (packet.cmd !== "publish" || packet.topic !== downTopic(this.device, "ack")) return [];
    const acks = this.#acks.get(packet) ?? decodeAck(packet.payload as Buffer);
    this.#acks.set(packet, acks);
    return acks;
  }

  /** Waits until this or something later of the boot is durable. */
  async acked(stream: Stream, boot: number, seq: number, timeoutMs = 5_000): Promise<void> {
    await until(
      `${stream} ${boot}-${seq} of "${this.device}" is acknowledged`,
      () => this.acks().some((ack) => ack.stream === stream && ack.boot === boot && ack.seq >= seq),
      { timeoutMs, everyMs: 3 },
    );
  }
}

export const BASE_TIME = 1_790_000_000_000;

/** Rows 100 ms apart. */
export function predictionRows(count: number, from = BASE_TIME): PredictionRow[] {
  return Array.from({ length: count }, (_, at) => ({
    time: from + at * 100,
    class: at % 3,
    confidence: 0.9,
    latencyMs: 5,
    signals: [0.25],
  }));
}

/** A sound batch of ten rows, but for what is changed. */
export function predictionBatch(change: Partial<PredictionBatch> = {}): Uint8Array {
  const seq = change.seq ?? 1;
  return encodePredictions({
    boot: 1,
    seq,
    prev: seq - 1,
    versionRef: { model: "shapes", version: 1, packagePrefix: "00112233445566aa" },
    firstN: (seq - 1) * 10,
    signalNames: ["entropy"],
    rows: predictionRows(10),
    ...change,
  });
}

type SampleInput = Parameters<typeof encodeMessage<"sample">>[1];

export function sampleMetadata(
  payload: Uint8Array,
  change: Partial<NonNullable<SampleInput["metadata"]>> = {},
): NonNullable<SampleInput["metadata"]> {
  return {
    predictionBoot: 1,
    n: 0,
    time: BASE_TIME,
    model: "shapes",
    version: 1,
    packageSha256: "0".repeat(64),
    variant: "fp32",
    stratum: "worth",
    probability: 1,
    worth: 0.8,
    class: 0,
    label: "bar",
    confidence: 0.4,
    latencyMs: 5,
    signals: { entropy: 0.9 },
    mediaType: "image/png",
    bytes: payload.length,
    sha256: createHash("sha256").update(payload).digest("hex"),
    source: "test",
    ...change,
  };
}

/** A sound sample in one message, but for what is changed. */
export function sampleMessage(
  sample: string,
  payload: Uint8Array,
  change: Partial<SampleInput> = {},
): Uint8Array {
  const message = {
    boot: 1,
    seq: 1,
    prev: 0,
    sample,
    part: 0,
    parts: 1,
    metadata: sampleMetadata(payload),
    payload: Uint8Array.from(payload),
  };
  return encodeMessage("sample", { ...message, ...change });
}
