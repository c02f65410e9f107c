import {
  LIMITS,
  MESSAGES,
  PROTOCOL_VERSION,
  RETAINED_KINDS,
  DOWN_KINDS,
  FieldloopError,
  parseTopic,
  type UpKind,
} from "@fieldloop/protocol";

/** The parts of a publication that decide whether a device may send it. */
export interface Publication {
  readonly topic: string;
  readonly qos: number;
  readonly retain: boolean;
  readonly bytes: number;
}

/**
 * Whether a device may publish this: only under its own `up/`, retained only presence and state, at most QoS 1, within the kind's size.
 * @throws FieldloopError `topic_forbidden`, `topic_malformed` or `message_too_large`
 */
export function checkPublish(device: string, publication: Publication): UpKind {
  const topic = parseTopic(publication.topic);
  if (topic.way !== "up" || topic.device !== device) forbid(device, "publish to", publication.topic);
  if (publication.qos > 1) {
    throw new FieldloopError(
      "topic_forbidden",
      `Publish: "${device}" used QoS ${publication.qos}, at most 1`,
    );
  }
  if (publication.retain && !RETAINED_KINDS.includes(topic.kind)) forbid(device, "retain", publication.topic);
  const bytesMax = payloadBytesMax(topic.kind);
  if (publication.bytes > bytesMax || publication.bytes === 0) {
    throw new FieldloopError(
      "message_too_large",
      `Publish: "${device}" sent ${publication.bytes} bytes of ${topic.kind}, wanted 1 to ${bytesMax}`,
    );
  }
  return topic.kind;
}

/** A device's last will is its presence, nothing else. */
export function checkWill(device: string, will: Publication): void {
  if (checkPublish(device, will) !== "presence") forbid(device, "leave a will on", will.topic);
}

/** A device subscribes only to its own `down/`; wildcards only for the kind. Shared subscriptions and `$` topics begin otherwise. */
export function maySubscribe(device: string, filter: string): boolean {
  const own = `fieldloop/${PROTOCOL_VERSION}/${device}/down/`;
  if (!filter.startsWith(own)) return false;
  const kind = filter.slice(own.length);
  return kind === "#" || kind === "+" || (DOWN_KINDS as readonly string[]).includes(kind);
}

/** What reaches a device, whatever it managed to subscribe to. */
export function mayReceive(device: string, topic: string): boolean {
  return topic.startsWith(`fieldloop/${PROTOCOL_VERSION}/${device}/down/`);
}

function payloadBytesMax(kind: UpKind): number {
  return kind === "predictions" ? LIMITS.predictionsBytesMax : MESSAGES[kind].bytesMax;
}

function forbid(device: string, verb: string, topic: string): never {
  throw new FieldloopError(
    "topic_forbidden",
    `Authorize: "${device}" may not ${verb} "${topic.slice(0, 200)}"`,
  );
}
