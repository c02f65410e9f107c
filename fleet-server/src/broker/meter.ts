import { DOWN_KINDS, UP_KINDS, type DownKind, type UpKind } from "@fieldloop/protocol";
import { PACKET, type Frame } from "./frames.js";

export type TopicKind = `up/${UpKind}` | `down/${DownKind}`;

export interface Traffic {
  packets: number;
  /** On the wire, MQTT headers included; TCP and TLS are not. */
  bytes: number;
}

const KINDS: readonly string[] = [
  ...UP_KINDS.map((kind) => `up/${kind}`),
  ...DOWN_KINDS.map((kind) => `down/${kind}`),
];

/** Counts what went over the wire by kind of topic, in both directions, and the PUBACKs that predictions cost. */
export class WireMeter {
  readonly byKind = new Map<TopicKind, Traffic>();
  readonly predictionPubacks: Traffic = { packets: 0, bytes: 0 };
  readonly predictionAcks: Traffic = { packets: 0, bytes: 0 };
  readonly other: Traffic = { packets: 0, bytes: 0 };

  count(frame: Frame): void {
    const kind = frame.type === PACKET.publish ? kindOf(frame.topic) : undefined;
    const traffic = kind ? this.#traffic(kind) : this.other;
    traffic.packets++;
    traffic.bytes += frame.bytes;
  }

  countPredictionPuback(frame: Frame): void {
    this.predictionPubacks.packets++;
    this.predictionPubacks.bytes += frame.bytes;
  }

  /** An application acknowledgement that names the stream of predictions, whatever else it names. */
  countPredictionAck(topic: string, payload: Uint8Array): void {
    const length = 2 + topic.length + payload.length;
    this.predictionAcks.packets++;
    // Fixed header: one byte and the remaining length [MQTT-2.2.3], two bytes from 128 on.
    this.predictionAcks.bytes += length + (length < 128 ? 2 : 3);
  }

  /** Bytes that predictions cost: their packets, the PUBACKs of these, and the application acknowledgements for them. */
  get predictionBytes(): number {
    const published = this.byKind.get("up/predictions")?.bytes ?? 0;
    return published + this.predictionPubacks.bytes + this.predictionAcks.bytes;
  }

  #traffic(kind: TopicKind): Traffic {
    let traffic = this.byKind.get(kind);
    if (!traffic) this.byKind.set(kind, (traffic = { packets: 0, bytes: 0 }));
    return traffic;
  }
}

/** The last two levels of a topic, where they are a kind of this protocol. */
export function kindOf(topic: string): TopicKind | undefined {
  const parts = topic.split("/");
  const kind = `${parts[3]}/${parts[4]}`;
  return parts.length === 5 && parts[0] === "fieldloop" && KINDS.includes(kind)
    ? (kind as TopicKind)
    : undefined;
}
