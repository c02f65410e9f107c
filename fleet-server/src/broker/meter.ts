import { DOWN_KINDS, UP_KINDS, type DownKind, type UpKind } from "@fieldloop/protocol";
import { PACKET, type Frame } from "./frames.js";

export type TopicKind = `up/${UpKind}` | `down/${DownKind}`;

export interface Traffic {
  packets: number;
  /** On the wire, MQTT headers included; TCP and TLS are not. */
  bytes: number;
}

const KINDS: readonly string[] = [...UP_KINDS.map((kind) => `up/${kind}`), ...DOWN_KINDS.map((kind) => `down/${kind}`)];

/** Counts what went over the wire by kind of topic, in both directions, and the PUBACKs that predictions cost. */
export class WireMeter {
  readonly byKind = new Map<TopicKind, Traffic>();
  readonly predictionPubacks: Traffic = { packets: 0, bytes: 0 };
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

  /** Bytes that predictions cost: their packets, the PUBACKs of these, and every application acknowledgement. */
  get predictionBytes(): number {
    const bytes = (kind: TopicKind): number => this.byKind.get(kind)?.bytes ?? 0;
    return bytes("up/predictions") + this.predictionPubacks.bytes + bytes("down/ack");
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
  return parts.length === 5 && parts[0] === "fieldloop" && KINDS.includes(kind) ? (kind as TopicKind) : undefined;
}
