import { FieldloopError } from "@fieldloop/protocol";
import { EventSourceParserStream } from "eventsource-parser/stream";
import type { FleetClient } from "../client.js";

export interface ServerEvent {
  readonly type: string;
  /** What to resume from; undefined for messages that nobody catches up on. */
  readonly id: string | undefined;
  readonly data: unknown;
}

const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 10_000;
/** Streams that end without a single message, one after the other, before it is given up. */
const EMPTY_STREAMS_MAX = 8;

/**
 * Server-sent events of a path (WHATWG HTML, "server-sent events"), for as long as it takes: a stream that is cut is opened again
 * from the last number seen.
 * @throws FieldloopError what the server answered where it refused, `unavailable` where it stays away
 */
export async function* serverEvents(
  client: FleetClient,
  path: string,
  signal: AbortSignal,
): AsyncGenerator<ServerEvent> {
  let lastId: string | undefined;
  let empty = 0;
  while (!signal.aborted) {
    try {
      const headers = {
        accept: "text/event-stream",
        ...(lastId === undefined ? {} : { "last-event-id": lastId }),
      };
      const response = await client.request("GET", path, { headers, signal });
      if (!response.body) throw new FieldloopError("unavailable", `GET ${path}: an answer without a body`);
      const events = response.body
        .pipeThrough(new TextDecoderStream() as unknown as ReadableWritablePair<string, Uint8Array>)
        .pipeThrough(new EventSourceParserStream());
      for await (const { id, event = "message", data } of events) {
        empty = 0;
        lastId = id ?? lastId;
        yield { type: event, id, data: JSON.parse(data) as unknown };
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof FieldloopError && error.code !== "unavailable") throw error;
      if (++empty >= EMPTY_STREAMS_MAX) throw error;
    }
    await pause(Math.min(RETRY_MAX_MS, RETRY_MIN_MS * 2 ** empty), signal);
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done, { once: true });
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
  });
}
