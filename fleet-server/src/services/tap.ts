import {
  decodeAck,
  decodeCbor,
  decodeMessage,
  decodePredictions,
  parseTopic,
  predictionRow,
  toFieldloopError,
  toHex,
  type DownKind,
  type UpKind,
} from "@fieldloop/protocol";

/** Binary longer than this is shown as its length. */
const BYTES_SHOWN_MAX = 32;

export interface TapMessage {
  readonly topic: string;
  readonly payload: Uint8Array;
  readonly retain: boolean;
}

/** A message as people read it: its topic's parts, its size, and its content decoded; what cannot be decoded says why. */
export function describeMessage(message: TapMessage, time: number): Record<string, unknown> {
  const { topic, payload, retain } = message;
  const frame = { time, topic, bytes: payload.length, ...(retain ? { retain } : {}) };
  try {
    const { device, way, kind } = parseTopic(topic);
    return { ...frame, device, way, kind, message: readable(content(kind, payload)) };
  } catch (error) {
    const { code, message: text } = toFieldloopError(error);
    return { ...frame, error: { code, message: text } };
  }
}

function content(kind: UpKind | DownKind, payload: Uint8Array): unknown {
  if (kind === "ack") return decodeAck(payload);
  if (kind === "predictions") {
    const columns = decodePredictions(payload);
    const rows = Array.from({ length: columns.count }, (_, index) => predictionRow(columns, index));
    const { boot, seq, prev, versionRef, firstN, signalNames } = columns;
    return { boot, seq, prev, versionRef, firstN, signalNames, rows };
  }
  // Desired states and commands travel inside a signed envelope.
  if (kind === "desired" || kind === "command") {
    const envelope = decodeCbor(payload) as { keyId?: unknown; payload?: unknown };
    const inner = envelope.payload instanceof Uint8Array ? decodeMessage(kind, envelope.payload) : undefined;
    return { keyId: envelope.keyId, signed: inner };
  }
  return decodeMessage(kind, payload);
}

function readable(value: unknown): unknown {
  if (value instanceof Uint8Array) {
    return value.length <= BYTES_SHOWN_MAX ? toHex(value) : `${value.length} bytes`;
  }
  if (ArrayBuffer.isView(value)) return `${value.byteLength} bytes of ${value.constructor.name}`;
  if (Array.isArray(value)) return value.map(readable);
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, readable(inner)]));
  }
  return typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(6)) : value;
}
