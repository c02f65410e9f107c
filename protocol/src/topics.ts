import { FieldloopError } from "./errors.js";
import { LIMITS } from "./limits.js";

/** Version of the protocol; it is the second level of every topic. */
export const PROTOCOL_VERSION = 1;

export const UP_KINDS = ["presence", "state", "predictions", "profile", "sample", "event"] as const;
export const DOWN_KINDS = ["desired", "command", "ack"] as const;
export type UpKind = (typeof UP_KINDS)[number];
export type DownKind = (typeof DOWN_KINDS)[number];

/** Kinds whose last message the broker keeps for later subscribers. */
export const RETAINED_KINDS: readonly (UpKind | DownKind)[] = ["presence", "state", "desired"];

/** Device ids and model names: lower-case words joined by `-`, `_` or `.`; never a topic wildcard or a path. */
export const DEVICE_ID_PATTERN = /^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$/;

export function isDeviceId(text: string): boolean {
  return DEVICE_ID_PATTERN.test(text) && !text.includes("..");
}

export function upTopic(device: string, kind: UpKind): string {
  return `fieldloop/${PROTOCOL_VERSION}/${device}/up/${kind}`;
}

export function downTopic(device: string, kind: DownKind): string {
  return `fieldloop/${PROTOCOL_VERSION}/${device}/down/${kind}`;
}

/** What ingest subscribes to: everything that any device sends. */
export const UP_FILTER = `fieldloop/${PROTOCOL_VERSION}/+/up/#`;

export type ParsedTopic =
  | { readonly device: string; readonly way: "up"; readonly kind: UpKind }
  | { readonly device: string; readonly way: "down"; readonly kind: DownKind };

/** @throws FieldloopError `topic_malformed` for anything that is not exactly one topic of this protocol version */
export function parseTopic(topic: string): ParsedTopic {
  const parts = topic.length <= LIMITS.topicBytesMax ? topic.split("/") : [];
  const [root, version, device, way, kind] = parts;
  if (
    parts.length === 5 &&
    root === "fieldloop" &&
    version === String(PROTOCOL_VERSION) &&
    isDeviceId(device!)
  ) {
    if (way === "up" && (UP_KINDS as readonly string[]).includes(kind!)) {
      return { device: device!, way, kind: kind as UpKind };
    }
    if (way === "down" && (DOWN_KINDS as readonly string[]).includes(kind!)) {
      return { device: device!, way, kind: kind as DownKind };
    }
  }
  throw new FieldloopError(
    "topic_malformed",
    `Parse topic: ${JSON.stringify(topic.slice(0, 80))} is not fieldloop/${PROTOCOL_VERSION}/{device}/{up|down}/{kind}`,
  );
}
