import {
  STREAMS,
  decodeCbor,
  decodePredictions,
  type Delivery,
  type DeviceState,
  type EventMessage,
  type PredictionColumns,
  type Presence,
  type Profile,
  type SampleMessage,
  type Stream,
  type UpKind,
} from "@fieldloop/protocol";
import { decodeEvent } from "./handlers/event.js";
import { decodePresence } from "./handlers/presence.js";
import { decodeProfile } from "./handlers/profile.js";
import { decodeSample } from "./handlers/sample.js";
import { decodeState } from "./handlers/state.js";

/** A decoded message by its kind. */
export type Decoded =
  | { readonly kind: "presence"; readonly message: Presence }
  | { readonly kind: "state"; readonly message: DeviceState }
  | { readonly kind: "predictions"; readonly message: PredictionColumns }
  | { readonly kind: "profile"; readonly message: Profile }
  | { readonly kind: "sample"; readonly message: SampleMessage }
  | { readonly kind: "event"; readonly message: EventMessage };

/** @throws FieldloopError of the codec or the schema */
export function decode(kind: UpKind, payload: Uint8Array): Decoded {
  switch (kind) {
    case "presence":
      return { kind, message: decodePresence(payload) };
    case "state":
      return { kind, message: decodeState(payload) };
    case "predictions":
      return { kind, message: decodePredictions(payload) };
    case "profile":
      return { kind, message: decodeProfile(payload) };
    case "sample":
      return { kind, message: decodeSample(payload) };
    case "event":
      return { kind, message: decodeEvent(payload) };
  }
}

export function streamOf(kind: UpKind): Stream | undefined {
  return (STREAMS as readonly string[]).includes(kind) ? (kind as Stream) : undefined;
}

/**
 * Where a message that does not match its schema stands in its stream, so that it can be acknowledged and does not block what follows.
 * Undefined where even that cannot be read.
 */
export function deliveryOfPoison(kind: UpKind, payload: Uint8Array): Delivery | undefined {
  let value: unknown;
  try {
    value = decodeCbor(payload);
  } catch {
    // Not even CBOR: nothing in it can be trusted.
    return undefined;
  }
  const fields = kind === "predictions" ? asArray(value) : asRecord(value);
  const [boot, seq, prev] = fields;
  if (!isCount(boot) || !isCount(seq) || !isCount(prev) || boot < 1 || seq < 1) return undefined;
  return { boot, seq, prev };
}

function asArray(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function asRecord(value: unknown): unknown[] {
  if (typeof value !== "object" || value === null) return [];
  const { boot, seq, prev } = value as Record<string, unknown>;
  return [boot, seq, prev];
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}
