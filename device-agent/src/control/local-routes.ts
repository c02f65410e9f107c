import type { HttpBindings } from "@hono/node-server";
import { FieldloopError, laneNameSchema, modelNameSchema } from "@fieldloop/protocol";
import { handleInference } from "@fieldloop/runtime/oip";
import type { Frame, InferenceService } from "@fieldloop/runtime";
import type { Context, Hono } from "hono";
import { z } from "zod";
import { AGENT_LIMITS } from "../limits.js";
import type { PredictionAnswer } from "../prediction-answer.js";
import { pushedFrame } from "../pushed-frame.js";
import { ByteBudget } from "./byte-budget.js";
import { EVENT_STREAM, feedStream, JSON_LINES } from "./feed-stream.js";
import type { PredictionFeed } from "./prediction-feed.js";

export interface LocalRoutesOptions {
  readonly inference: InferenceService;
  readonly feed: PredictionFeed;
  /** Names of the lanes, the first of which is asked where none is named. */
  readonly lanes: readonly string[];
  /** @throws FieldloopError as `Lane.push`, and those of asking the host */
  readonly predict: (lane: string, frame: Frame, signal: AbortSignal) => Promise<PredictionAnswer>;
}

export type LocalEnvironment = { Bindings: HttpBindings };

const subscriptionSchema = z.object({
  lane: laneNameSchema.optional(),
  model: modelNameSchema.optional(),
  minConfidence: z.coerce.number().min(0).max(1).default(0),
});

/** Inference for programs on this machine: Open Inference Protocol, predictions of single frames, the stream of all predictions. */
export function addLocalRoutes(app: Hono<LocalEnvironment>, options: LocalRoutesOptions): void {
  const bodies = new Bodies();
  app.all("/v2/*", (context) => answerOip(context, options.inference, bodies));
  app.all("/v2", (context) => answerOip(context, options.inference, bodies));
  app.post("/v1/predict", async (context) => {
    const lane = laneOf(context, options.lanes) ?? options.lanes[0]!;
    const { pushBodyBytesMax } = AGENT_LIMITS;
    return bodies.read(context.env.incoming, pushBodyBytesMax, async (body) => {
      const frame = pushedFrame(context.req.header("content-type") ?? "", body);
      return context.json(await options.predict(lane, frame, goneSignal(context.env.outgoing)));
    });
  });
  app.get("/v1/predictions", (context) => {
    const parsed = subscriptionSchema.safeParse(context.req.query());
    if (!parsed.success) {
      const message = `Subscribe: ${z.prettifyError(parsed.error).slice(0, 300)}`;
      throw new FieldloopError("invalid_argument", message);
    }
    const { model, minConfidence } = parsed.data;
    // Its body is thrown away unread, and with it the way to end the subscription.
    if (context.req.method === "HEAD") return context.body(null);
    const subscriber = options.feed.subscribe({ lane: laneOf(context, options.lanes), model, minConfidence });
    const wantsLines = (context.req.header("accept") ?? "").includes(JSON_LINES.contentType);
    const form = wantsLines ? JSON_LINES : EVENT_STREAM;
    return context.body(feedStream(subscriber, form), 200, {
      "content-type": form.contentType,
      "cache-control": "no-store",
      "x-accel-buffering": "no",
    });
  });
}

async function answerOip(
  context: Context<LocalEnvironment>,
  service: InferenceService,
  bodies: Bodies,
): Promise<Response> {
  const { incoming, outgoing } = context.env;
  return bodies.read(incoming, AGENT_LIMITS.localTensorBytesMax, async (body) => {
    const headers = Object.fromEntries(
      Object.entries(incoming.headers).map(([name, value]) => [
        name,
        Array.isArray(value) ? value[0] : value,
      ]),
    );
    const response = await handleInference(service, {
      method: context.req.method,
      path: incoming.url ?? "/",
      headers,
      body,
      signal: goneSignal(outgoing),
    });
    const [only, ...further] = response.body;
    const bytes = only !== undefined && further.length === 0 ? only : Buffer.concat(response.body);
    return context.body(bytes as Uint8Array<ArrayBuffer>, response.status as 200, response.headers);
  });
}

/** @throws FieldloopError `lane_unknown` */
function laneOf(context: Context, lanes: readonly string[]): string | undefined {
  const lane = context.req.query("lane");
  if (lane === undefined || lanes.includes(lane)) return lane;
  const message = `Choose lane: there is no lane "${lane.slice(0, 64)}", there are ${lanes.join(", ")}`;
  throw new FieldloopError("lane_unknown", message);
}

/** Aborts when the client closed the connection before it had its answer. */
function goneSignal(outgoing: HttpBindings["outgoing"]): AbortSignal {
  const gone = new AbortController();
  outgoing.once("close", () => {
    if (!outgoing.writableFinished) gone.abort();
  });
  if (outgoing.destroyed) gone.abort();
  return gone.signal;
}

/** Reads request bodies within a bound each, and one for all of them until they are answered. */
class Bodies {
  readonly #budget = new ByteBudget(AGENT_LIMITS.localBytesInHandMax);

  /** @throws FieldloopError `limit_exceeded`, `rate_limited`, `invalid_body` */
  async read(
    incoming: HttpBindings["incoming"],
    bytesMax: number,
    answer: (body: Uint8Array) => Promise<Response>,
  ): Promise<Response> {
    const announced = Number(incoming.headers["content-length"] ?? 0);
    if (announced > bytesMax) throw tooLarge(announced, bytesMax);
    const parts: Buffer[] = [];
    let bytes = 0;
    let held = announced;
    this.#budget.take(held);
    try {
      for await (const part of incoming as AsyncIterable<Buffer>) {
        bytes += part.length;
        if (bytes > bytesMax) throw tooLarge(bytes, bytesMax);
        if (bytes > held) {
          this.#budget.take(bytes - held);
          held = bytes;
        }
        parts.push(part);
      }
      return await answer(parts.length === 1 ? parts[0]! : Buffer.concat(parts));
    } catch (error) {
      if (incoming.errored)
        throw new FieldloopError("invalid_body", "Read body: it ended early", { cause: error });
      throw error;
    } finally {
      this.#budget.give(held);
    }
  }
}

function tooLarge(bytes: number, bytesMax: number): FieldloopError {
  return new FieldloopError("limit_exceeded", `Read body: ${bytes} bytes, at most ${bytesMax}`);
}
