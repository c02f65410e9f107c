import type { LiveEvent } from "@fieldloop/protocol";
import { streamSSE, type SSEStreamingApi } from "hono/streaming";
import { SERVER_LIMITS } from "../../limits.js";
import type { LiveHub, LiveSubscription } from "../../services/live.js";
import type { App } from "../env.js";
import { currentPrincipal, principalName, requireRole } from "../guards.js";

/** Server-sent events: which thing changed. A comment every quarter of a minute keeps proxies from closing the stream. */
export function registerLiveRoute(app: App, live: LiveHub): void {
  app.get("/api/v1/live", requireRole("viewer"), (c) => {
    const subscription = live.subscribe(principalName(currentPrincipal(c)));
    c.header("Cache-Control", "no-store");
    c.header("X-Accel-Buffering", "no");
    return streamSSE(c, (stream) => forward(stream, subscription));
  });
}

async function forward(stream: SSEStreamingApi, subscription: LiveSubscription): Promise<void> {
  stream.onAbort(() => subscription.close());
  try {
    await stream.write(": connected\n\n");
    while (!subscription.closed && !stream.aborted) {
      const event = await subscription.next(SERVER_LIMITS.liveHeartbeatMs);
      if (event) await stream.writeSSE(message(event));
      else if (!subscription.closed) await stream.write(": alive\n\n");
    }
  } finally {
    subscription.close();
  }
}

function message(event: LiveEvent): { event: string; data: string } {
  return { event: event.type, data: JSON.stringify(event) };
}
