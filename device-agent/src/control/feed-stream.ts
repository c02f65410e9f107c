import { AGENT_LIMITS } from "../limits.js";
import type { FeedItem, FeedSubscriber } from "./prediction-feed.js";

/** How predictions are put on the wire. */
export interface FeedForm {
  readonly contentType: string;
  readonly item: (item: FeedItem) => string;
  /** That `count` predictions were too many for this listener. */
  readonly lost: (count: number) => string;
  /** Sent when nothing else is, so that both ends know of each other. */
  readonly heartbeat: string;
}

/** Server-sent events (HTML Living Standard, section 9.2). */
export const EVENT_STREAM: FeedForm = {
  contentType: "text/event-stream",
  item: (item) => `id: ${item.prediction}\nevent: prediction\ndata: ${JSON.stringify(item)}\n\n`,
  lost: (count) => `event: lost\ndata: ${JSON.stringify({ count })}\n\n`,
  heartbeat: ": still here\n\n",
};

/** One JSON object a line; an empty line is a heartbeat. */
export const JSON_LINES: FeedForm = {
  contentType: "application/x-ndjson",
  item: (item) => `${JSON.stringify(item)}\n`,
  lost: (count) => `${JSON.stringify({ lost: count })}\n`,
  heartbeat: "\n",
};

/** The subscription as a body that is read as fast as its reader goes: what waits meanwhile waits in the subscriber, which is bounded. */
export function feedStream(subscriber: FeedSubscriber, form: FeedForm): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  return new ReadableStream<Uint8Array>(
    {
      // The head of the answer goes out with the first bytes: a reader should not wait for a prediction to know that it listens.
      start: (controller) => controller.enqueue(encoder.encode(form.heartbeat)),
      async pull(controller) {
        const taken = await subscriber.take(AGENT_LIMITS.localHeartbeatMs);
        if (!taken) {
          controller.close();
          return;
        }
        const { lost, items } = taken;
        const texts = [...(lost > 0 ? [form.lost(lost)] : []), ...items.map((item) => form.item(item))];
        controller.enqueue(encoder.encode(texts.length === 0 ? form.heartbeat : texts.join("")));
      },
      cancel: () => subscriber.end(),
    },
    { highWaterMark: 0 },
  );
}
