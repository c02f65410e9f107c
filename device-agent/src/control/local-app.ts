import type { RequestListener } from "node:http";
import { getRequestListener } from "@hono/node-server";
import {
  FieldloopError,
  labelSchema,
  laneNameSchema,
  LIMITS,
  parsePredictionId,
  toFieldloopError,
} from "@fieldloop/protocol";
import { type Context, Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { z } from "zod";
import { AGENT_LIMITS } from "../limits.js";
import { type FeedbackItem, unknownPrediction } from "./feedback.js";
import type { LocalApiOptions } from "./local-api.js";
import { type LocalAppForm, refuseStrangers } from "../strangers.js";
import { problemOf } from "./local-monitor.js";
import { addLocalRoutes, type LocalEnvironment } from "./local-routes.js";

const feedbackItemSchema = z
  .object({
    prediction: z.string().max(40),
    label: labelSchema.optional(),
    correct: z.boolean().optional(),
  })
  .refine((item) => item.label !== undefined || item.correct !== undefined, {
    message: "label or correct is wanted",
  });
const feedbackSchema = z.union(
  [feedbackItemSchema, z.object({ items: z.array(feedbackItemSchema).min(1).max(LIMITS.feedbackItemsMax) })],
  { error: 'wanted {"prediction": ID, "label": NAME or "correct": true|false}, or {"items": […]} of such' },
);
const returnSchema = z.object({
  /** The first one by default. */
  lane: laneNameSchema.optional(),
});
const conditionSchema = z.object({
  condition: z.string().min(1).max(64),
  /** The first lane with a simulator by default. */
  lane: laneNameSchema.optional(),
});

/** All routes but those of a monitor. Loaded with the first request for one of them: with it comes Node's own HTTP client, 9 MB. */
export function localListener(options: LocalApiOptions, form: LocalAppForm): RequestListener {
  const listener = getRequestListener(createLocalApp(options, form).fetch);
  return (request, response) => void listener(request, response);
}

function createLocalApp(options: LocalApiOptions, form: LocalAppForm): Hono<LocalEnvironment> {
  const app = new Hono<LocalEnvironment>();
  app.use(async (context, next) => {
    refuseStrangers(context.env.incoming.headers, form);
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
  app.post("/feedback", limit, async (context) => {
    const body = await readBody(context, feedbackSchema);
    const items = "items" in body ? body.items : [body];
    for (const [boot, group] of groupByBoot(items)) await options.feedback(boot, group);
    return context.json({ accepted: items.length }, 202);
  });
  app.post("/v1/return", limit, async (context) => {
    const lane = (await readBody(context, returnSchema)).lane ?? options.lanes[0]!;
    await options.returnPrevious(lane);
    const running = options.state().lanes.find(({ name }) => name === lane)?.running ?? null;
    return context.json({ lane, running });
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
    problem(
      context,
      new FieldloopError("not_found", `There is no ${context.req.method} "${context.req.path.slice(0, 80)}"`),
    ),
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

function problem(context: Context, error: FieldloopError): Response {
  const { status, body, contentType } = problemOf(error);
  return context.body(body, status as 400, { "content-type": contentType });
}
