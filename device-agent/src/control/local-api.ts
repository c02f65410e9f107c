import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { createAdaptorServer } from "@hono/node-server";
import {
  FieldloopError,
  labelSchema,
  laneNameSchema,
  LIMITS,
  parsePredictionId,
  toFieldloopError,
  type DeviceState,
} from "@fieldloop/protocol";
import type { OipServer } from "@fieldloop/runtime/oip";
import { type Context, Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import type { Registry } from "prom-client";
import { z } from "zod";
import { AGENT_LIMITS } from "../limits.js";
import type { FeedbackItem } from "./feedback.js";
import { addLocalRoutes, type LocalEnvironment, type LocalRoutesOptions } from "./local-routes.js";
import { LocalSocket } from "./local-socket.js";

export interface LocalApiOptions extends LocalRoutesOptions {
  /** 0: any free one. */
  readonly port: number;
  /** A unix socket beside it. */
  readonly socketPath?: string | undefined;
  /** The Open Inference Protocol over gRPC, on loopback; 0 for any free port. */
  readonly grpcPort?: number | undefined;
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

const LOOPBACK = "127.0.0.1";
const CLOSE_GRACE_MS = 500;

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
 * What other programs on this machine may ask. It listens on loopback, and where that is asked for on a unix socket for this user and
 * for gRPC. Over TCP it answers only to a loopback `Host` (a page in a browser that rebinds its name to 127.0.0.1 has another) and to
 * no page of another origin.
 */
export class LocalApi {
  readonly #options: LocalApiOptions;
  #servers: Server[] = [];
  #socket: LocalSocket | undefined;
  #grpc: OipServer | undefined;
  #port = 0;

  constructor(options: LocalApiOptions) {
    this.#options = options;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Of the gRPC server; undefined where there is none. */
  get grpcUrl(): string | undefined {
    return this.#grpc?.url;
  }
  get socketPath(): string | undefined {
    return this.#socket?.path;
  }

  /** @throws FieldloopError `unavailable`, `conflict`, `invalid_argument` */
  async start(): Promise<void> {
    try {
      await this.#start();
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  async #start(): Promise<void> {
    const { port, socketPath, grpcPort, inference } = this.#options;
    const server = this.#serve({ checksHost: true });
    await listen(server, port);
    this.#port = (server.address() as AddressInfo).port;
    if (socketPath !== undefined) {
      this.#socket = await LocalSocket.listen(this.#serve({ checksHost: false }), socketPath);
    }
    if (grpcPort === undefined) return;
    const { serveGrpc } = await import("@fieldloop/runtime/oip");
    this.#grpc = await serveGrpc(
      inference,
      { host: LOOPBACK, port: grpcPort },
      { messageBytesMax: AGENT_LIMITS.localTensorBytesMax },
    );
  }

  #serve(form: LocalAppForm): Server {
    const server = createAdaptorServer({
      fetch: createLocalApp(this.#options, form).fetch,
      createServer,
      serverOptions: {
        headersTimeout: AGENT_LIMITS.localHeadersTimeoutMs,
        requestTimeout: AGENT_LIMITS.localRequestTimeoutMs,
      },
    }) as Server;
    server.maxConnections = AGENT_LIMITS.localConnectionsMax;
    this.#servers.push(server);
    return server;
  }

  async stop(): Promise<void> {
    this.#options.feed.close();
    const servers = this.#servers;
    this.#servers = [];
    await Promise.all([...servers.map(close), this.#grpc?.stop()]);
    this.#grpc = undefined;
    await this.#socket?.remove();
    this.#socket = undefined;
  }
}

async function listen(server: Server, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const failed = (cause: Error): void => {
      const message = `Open local interface on port ${port}: ${cause.message}`;
      reject(new FieldloopError("unavailable", message, { cause }));
    };
    server.once("error", failed);
    server.listen({ host: LOOPBACK, port }, () => {
      server.off("error", failed);
      resolve();
    });
  });
}

async function close(server: Server): Promise<void> {
  if (!server.listening) return;
  await new Promise<void>((resolve) => {
    server.close(() => resolve());
    server.closeIdleConnections();
    setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS).unref();
  });
}

export interface LocalAppForm {
  /** Whether only requests to a loopback name are answered: over TCP a browser may be tricked into asking. */
  readonly checksHost: boolean;
}

/** The routes, apart from the socket. */
export function createLocalApp(options: LocalApiOptions, form: LocalAppForm): Hono<LocalEnvironment> {
  const app = new Hono<LocalEnvironment>();
  app.use(async (context, next) => {
    refuseStrangers(context, form);
    await next();
  });
  addLocalRoutes(app, options);
  const limit = bodyLimit({
    maxSize: AGENT_LIMITS.localBodyBytesMax,
    onError: () => {
      throw new FieldloopError(
        "limit_exceeded",
        `Read body: more than ${AGENT_LIMITS.localBodyBytesMax} bytes`,
      );
    },
  });
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
  app.post("/feedback", limit, async (context) => {
    const body = await readBody(context, feedbackSchema);
    const items = "items" in body ? body.items : [body];
    for (const [boot, group] of groupByBoot(items)) await options.feedback(boot, group);
    return context.json({ accepted: items.length }, 202);
  });
  app.post("/simulator", limit, async (context) => {
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

function refuseStrangers(context: Context, { checksHost }: LocalAppForm): void {
  const host = context.req.header("host") ?? "";
  const origin = context.req.header("origin");
  const originHost = origin?.replace(/^https?:\/\//, "");
  if (
    (checksHost && !LOOPBACK_HOST.test(host)) ||
    (originHost !== undefined && !LOOPBACK_HOST.test(originHost))
  ) {
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
