import type { LiveEvent } from "@fieldloop/protocol";
import { signal } from "@preact/signals";

export type LiveType = LiveEvent["type"];
/** The types by name: `EventSource` needs a listener for each. */
const TYPES: readonly LiveType[] = [
  "device",
  "predictions",
  "sample",
  "rollout",
  "training",
  "model",
  "evaluation",
];
const RETRY_MS = { first: 1_000, max: 15_000 };

/** `live`: events arrive; `connecting`: not now, being tried again; `off`: signed out or the page is hidden. */
export const liveStatus = signal<"live" | "connecting" | "off">("off");

interface Subscriber {
  types: readonly LiveType[];
  listener: (event: LiveEvent) => void;
}
const subscribers = new Set<Subscriber>();
const reconnected = new Set<() => void>();
let source: EventSource | undefined;
let wanted = false;
let retryMs = RETRY_MS.first;
let retryTimer = 0;
let wasLive = false;

/** Calls `listener` for events of the given types; returns the way to stop. */
export function onLive(types: readonly LiveType[], listener: (event: LiveEvent) => void): () => void {
  const subscriber = { types, listener };
  subscribers.add(subscriber);
  return () => subscribers.delete(subscriber);
}

/** Calls `listener` when the stream is back after a gap: what was shown may be old. */
export function onReconnected(listener: () => void): () => void {
  reconnected.add(listener);
  return () => reconnected.delete(listener);
}

/** Opens the stream while signed in; it closes by itself while the page is hidden. */
export function startLive(): void {
  wanted = true;
  connect();
}

export function stopLive(): void {
  wanted = false;
  wasLive = false;
  disconnect();
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) disconnect();
  else connect();
});

function connect(): void {
  if (!wanted || source || document.hidden) return;
  clearTimeout(retryTimer);
  liveStatus.value = "connecting";
  source = new EventSource("/api/v1/live");
  source.onopen = () => {
    liveStatus.value = "live";
    retryMs = RETRY_MS.first;
    if (wasLive) for (const listener of reconnected) listener();
    wasLive = true;
  };
  source.onerror = () => {
    // The browser's own retry gives up on an HTTP error: do it here, with back-off.
    disconnect();
    liveStatus.value = "connecting";
    retryTimer = window.setTimeout(connect, retryMs);
    retryMs = Math.min(retryMs * 2, RETRY_MS.max);
  };
  for (const type of TYPES) source.addEventListener(type, dispatch);
}

function disconnect(): void {
  clearTimeout(retryTimer);
  source?.close();
  source = undefined;
  liveStatus.value = "off";
}

function dispatch(message: MessageEvent<string>): void {
  const event = JSON.parse(message.data) as LiveEvent;
  for (const subscriber of subscribers) if (subscriber.types.includes(event.type)) subscriber.listener(event);
}
