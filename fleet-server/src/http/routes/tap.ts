import { FieldloopError, UP_KINDS, DOWN_KINDS, deviceIdSchema } from "@fieldloop/protocol";
import { z } from "@hono/zod-openapi";
import { stream } from "hono/streaming";
import type { Broker } from "../../broker/broker.js";
import type { Clock } from "../../context.js";
import { SERVER_LIMITS } from "../../limits.js";
import { describeMessage } from "../../services/tap.js";
import type { App } from "../env.js";
import { requireRole } from "../guards.js";
import { validationError } from "../problem.js";

const querySchema = z.object({
  device: deviceIdSchema.optional(),
  kind: z.enum([...UP_KINDS, ...DOWN_KINDS]).optional(),
});

/** Live traffic as JSON lines, for `fieldloop tap`: everything devices say, so only administrators may listen. */
export function registerTapRoute(app: App, broker: Broker, clock: Clock): void {
  let open = 0;
  app.get("/api/v1/tap", requireRole("admin"), (c) => {
    const query = querySchema.safeParse(c.req.query());
    if (!query.success) throw validationError(query.error, "query");
    if (open >= SERVER_LIMITS.tapStreamsMax) {
      throw new FieldloopError("rate_limited", `Open tap: ${open} are open already`);
    }
    const { device, kind } = query.data;
    c.header("Content-Type", "application/x-ndjson");
    c.header("Cache-Control", "no-store");
    return stream(c, async (out) => {
      const lines = new LineQueue();
      open++;
      const end = broker.observe((message) => {
        const parts = message.topic.split("/");
        if ((device !== undefined && parts[2] !== device) || (kind !== undefined && parts[4] !== kind))
          return;
        lines.push(JSON.stringify(describeMessage(message, clock.now())));
      });
      out.onAbort(() => lines.close());
      try {
        for await (const line of lines) await out.write(`${line}\n`);
      } finally {
        end();
        open--;
      }
    });
  });
}

/** Lines that wait for a slow reader, bounded in bytes; above the bound lines are lost and the loss is told. */
class LineQueue {
  #lines: string[] = [];
  #bytes = 0;
  #lost = 0;
  #closed = false;
  #wake: (() => void) | undefined;

  push(line: string): void {
    if (this.#bytes + line.length > SERVER_LIMITS.tapQueueBytesMax) {
      this.#lost++;
      return;
    }
    this.#lines.push(line);
    this.#bytes += line.length;
    this.#wake?.();
  }

  close(): void {
    this.#closed = true;
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<string> {
    while (!this.#closed) {
      if (this.#lines.length === 0) {
        await new Promise<void>((resolve) => (this.#wake = resolve));
        continue;
      }
      const lines = this.#lines;
      this.#lines = [];
      this.#bytes = 0;
      yield* lines;
      if (this.#lost > 0) yield JSON.stringify({ lost: this.#lost });
      this.#lost = 0;
    }
  }
}
