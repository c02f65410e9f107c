import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { type ServerType, serve } from "@hono/node-server";
import {
  FieldloopError,
  labelSchema,
  laneNameSchema,
  LIMITS,
  parsePredictionId,
  toFieldloopError,
  type DeviceState,
} from "@fieldloop/protocol";
import { type Context, Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import type { Registry } from "prom-client";
import { z } from "zod";
import { AGENT_LIMITS } from "../limits.js";
import type { FeedbackItem } from "./feedback.js";

export interface LocalApiOptions {
  /** 0: any free one. */
  readonly port: number;
  readonly metrics: Registry;
  readonly state: () => DeviceState;
  /** Process id of the inference host; undefined between two of them. */
  readonly hostPid: () => number | undefined;
  readonly health: () => { readonly healthy: boolean; readonly reasons: readonly string[] };
  /** Resolves when durable on this device. @throws FieldloopError `prediction_unknown`, `storage_failed` */
  readonly feedback: (boot: number, items: readonly FeedbackItem[]) => Promise<void>;
  readonly setCondition: (condition: string, lane: string | undefined) => Promise<string>;
  readonly truth: (boot: number, n: number) => Promise<string | undefined>;
}

const feedbackItemSchema = z
  .object({
    prediction: z.string().max(40),
    label: labelSchema.optional(),
    correct: z.boolean().optional(),
  })
  .refine((item) => item.label !== undefined || item.correct !== undefined, {
    message: "label or correct is wanted",
  });
const feedbackSchema = z.union([
  feedbackItemSchema,
  z.object({ items: z.array(feedbackItemSchema).min(1).max(LIMITS.feedbackItemsMax) }),
]);
const conditionSchema = z.object({
  condition: z.string().min(1).max(64),
  /** The first lane with a simulator by default. */
  lane: laneNameSchema.optional(),
});

/**
 * What other programs on this machine may ask. It listens on loopback only, answers only to a loopback `Host` (a page in a
 * browser that rebinds its name to 127.0.0.1 has another) and to no page of another origin.
 */
export class LocalApi {
  readonly #options: LocalApiOptions;
  #server: ServerType | undefined;
  #port = 0;

  constructor(options: LocalApiOptions) {
    this.#options = options;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  async start(): Promise<void> {
    const app = createLocalApp(this.#options);
    await new Promise<void>((resolve, reject) => {
      const server = serve(
        {
          fetch: app.fetch,
          hostname: "127.0.0.1",
          port: this.#options.port,
          serverOptions: {
            headersTimeout: AGENT_LIMITS.localHeadersTimeoutMs,
            requestTimeout: AGENT_LIMITS.localRequestTimeoutMs,
          },
        },
        (address: AddressInfo) => {
          this.#port = address.port;
          resolve();
        },
      );
      server.on("error", (cause: Error) => {
        reject(
          new FieldloopError(
            "unavailable",
            `Open local interface on port ${this.#options.port}: ${cause.message}`,
            { cause },
          ),
        );
      });
      (server as Server).maxConnections = AGENT_LIMITS.localConnectionsMax;
      this.#server = server;
    });
  }

  async stop(): Promise<void> {
    const server = this.#server as Server | undefined;
    if (!server) return;
    await new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeIdleConnections();
      setTimeout(() => server.closeAllConnections(), 500).unref();
    });
    this.#server = undefined;
  }
}

/** The routes, apart from the socket. */
export function createLocalApp(options: LocalApiOptions): Hono {
  const app = new Hono();
  app.use(async (context, next) => {
    refuseStrangers(context);
    await next();
  });
  app.use(
    bodyLimit({
      maxSize: AGENT_LIMITS.localBodyBytesMax,
      onError: () => {
        throw new FieldloopError(
          "limit_exceeded",
          `Read body: more than ${AGENT_LIMITS.localBodyBytesMax} bytes`,
        );
      },
    }),
  );
  app.get("/healthz", (context) => {
    const health = options.health();
    return context.json(
      { status: health.healthy ? "ok" : "unhealthy", reasons: health.reasons },
      health.healthy ? 200 : 503,
    );
  });
  app.get("/metrics", async (context) => {
    return context.body(await options.metrics.metrics(), 200, {
      "content-type": options.metrics.contentType,
    });
  });
  app.get("/v1/state", (context) => context.json({ ...options.state(), hostPid: options.hostPid() ?? null }));
  app.post("/feedback", async (context) => {
    const body = await readBody(context, feedbackSchema);
    const items = "items" in body ? body.items : [body];
    for (const [boot, group] of groupByBoot(items)) await options.feedback(boot, group);
    return context.json({ accepted: items.length }, 202);
  });
  app.post("/simulator", async (context) => {
    const { condition, lane } = await readBody(context, conditionSchema);
    return context.json({ condition: await options.setCondition(condition, lane) });
  });
  app.get("/simulator/truth", async (context) => {
    const prediction = context.req.query("prediction") ?? "";
    const { boot, n } = parseId(prediction);
    const label = await options.truth(boot, n);
    if (label === undefined) throw unknownPrediction(prediction);
    return context.json({ prediction, label });
  });
  app.notFound((context) =>
    problem(context, new FieldloopError("not_found", `No such path "${context.req.path.slice(0, 80)}"`)),
  );
  app.onError((error, context) => problem(context, toFieldloopError(error)));
  return app;
}

function groupByBoot(items: readonly z.output<typeof feedbackItemSchema>[]): Map<number, FeedbackItem[]> {
  const byBoot = new Map<number, FeedbackItem[]>();
  for (const { prediction, label, correct } of items) {
    const { boot, n } = parseId(prediction);
    const group = byBoot.get(boot) ?? [];
    group.push({
      n,
      ...(label === undefined ? {} : { label }),
      ...(correct === undefined ? {} : { correct }),
    });
    byBoot.set(boot, group);
  }
  return byBoot;
}

function parseId(prediction: string): { boot: number; n: number } {
  const id = parsePredictionId(prediction);
  if (!id || id.boot < 1) {
    throw new FieldloopError(
      "invalid_argument",
      `Read prediction id "${prediction.slice(0, 40)}": wanted BOOT-N`,
    );
  }
  return id;
}

export function unknownPrediction(prediction: string): FieldloopError {
  return new FieldloopError("prediction_unknown", `Prediction "${prediction}" is not known here`);
}

async function readBody<Schema extends z.ZodType>(
  context: Context,
  schema: Schema,
): Promise<z.output<Schema>> {
  const type = context.req.header("content-type")?.split(";")[0]?.trim().toLowerCase();
  if (type !== "application/json") {
    throw new FieldloopError("unsupported_media_type", `Read body: "${type ?? ""}", wanted application/json`);
  }
  let body: unknown;
  try {
    body = await context.req.json();
  } catch (cause) {
    if (cause instanceof FieldloopError) throw cause;
    throw new FieldloopError("invalid_body", "Read body: it is not JSON", { cause });
  }
  const parsed = schema.safeParse(body);
  if (!parsed.success)
    throw new FieldloopError("invalid_body", `Read body: ${z.prettifyError(parsed.error).slice(0, 400)}`);
  return parsed.data;
}

const LOOPBACK_HOST = /^(?:127\.0\.0\.1|localhost|\[::1\])(?::\d+)?$/i;

function refuseStrangers(context: Context): void {
  const host = context.req.header("host") ?? "";
  const origin = context.req.header("origin");
  const originHost = origin?.replace(/^https?:\/\//, "");
  if (!LOOPBACK_HOST.test(host) || (originHost !== undefined && !LOOPBACK_HOST.test(originHost))) {
    throw new FieldloopError("forbidden", "The local interface answers programs of this machine only");
  }
}

function problem(context: Context, error: FieldloopError): Response {
  const body = {
    type: "about:blank",
    title: error.code,
    status: error.status,
    code: error.code,
    detail: error.message,
  };
  return context.body(`${JSON.stringify(body)}\n`, error.status as 400, {
    "content-type": "application/problem+json",
  });
}
