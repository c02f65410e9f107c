import {
  modelNameSchema,
  ROLLOUT_DEVICE_STATES,
  ROLLOUT_STATES,
  rolloutActionSchema,
  rolloutDeviceViewSchema,
  rolloutEventSchema,
  rolloutRequestSchema,
  rolloutVerdictSchema,
  rolloutViewSchema,
} from "@fieldloop/protocol";
import { createRoute, z } from "@hono/zod-openapi";
import { streamSSE } from "hono/streaming";
import { SERVER_LIMITS } from "../../limits.js";
import type { LiveHub } from "../../services/live.js";
import type { RolloutService } from "../../services/rollouts.js";
import type { App } from "../env.js";
import { currentActor, currentPrincipal, principalName, requireRole } from "../guards.js";
import { validationError } from "../problem.js";
import {
  behindCursor,
  jsonAnswer,
  jsonBody,
  newestCursorSchema,
  newestPage,
  pageAnswer,
} from "../schemas.js";

const tags = ["rollouts"];
const params = z.object({ rollout: z.string().regex(/^rol_[0-9a-z]{1,40}$/) });
const PAGE = 50;
const limit = z.coerce.number().int().min(1).max(SERVER_LIMITS.listItemsMax).default(100);
const cursor = z.coerce.number().int().min(0).optional();
const wave = z.coerce.number().int().min(1).optional();

const routes = {
  list: createRoute({
    method: "get",
    path: "/api/v1/rollouts",
    tags,
    summary: "Rollouts, newest first",
    middleware: [requireRole("viewer")] as const,
    request: {
      query: z.object({
        model: modelNameSchema.optional(),
        state: z.enum(ROLLOUT_STATES).optional(),
        cursor: newestCursorSchema,
      }),
    },
    responses: { 200: pageAnswer(rolloutViewSchema, "Rollouts") },
  }),
  create: createRoute({
    method: "post",
    path: "/api/v1/rollouts",
    tags,
    summary: "Plan a rollout of a version or a configuration and, unless told otherwise, start it",
    description:
      "A version without a passing evaluation needs a `forceReason`, which is written into the audit log.",
    middleware: [requireRole("operator")] as const,
    request: { body: jsonBody(rolloutRequestSchema) },
    responses: { 201: jsonAnswer(rolloutViewSchema, "The rollout") },
  }),
  get: createRoute({
    method: "get",
    path: "/api/v1/rollouts/{rollout}",
    tags,
    summary: "One rollout: waves, how many devices are where and why, and what each gate last decided",
    middleware: [requireRole("viewer")] as const,
    request: { params },
    responses: { 200: jsonAnswer(rolloutViewSchema, "The rollout") },
  }),
  devices: createRoute({
    method: "get",
    path: "/api/v1/rollouts/{rollout}/devices",
    tags,
    summary: "Its devices in the order of the plan: state, attempt, and why one waits",
    middleware: [requireRole("viewer")] as const,
    request: {
      params,
      query: z.object({
        wave,
        state: z.enum(ROLLOUT_DEVICE_STATES).optional(),
        /** `worst`: failed and silent devices first, one page. */
        order: z.enum(["plan", "worst"]).optional(),
        limit,
        cursor,
      }),
    },
    responses: { 200: pageAnswer(rolloutDeviceViewSchema, "Devices") },
  }),
  history: createRoute({
    method: "get",
    path: "/api/v1/rollouts/{rollout}/history",
    tags,
    summary: "Everything that was decided about it, by whom or by which gate, newest first",
    middleware: [requireRole("viewer")] as const,
    request: { params, query: z.object({ limit, cursor }) },
    responses: { 200: pageAnswer(rolloutEventSchema, "Events") },
  }),
  verdicts: createRoute({
    method: "get",
    path: "/api/v1/rollouts/{rollout}/verdicts",
    tags,
    summary: "Every verdict of its gates, oldest first, with the numbers that decided; kept for ever",
    middleware: [requireRole("viewer")] as const,
    request: {
      params,
      query: z.object({
        wave,
        limit,
        cursor: z
          .string()
          .regex(/^\d{1,9}\.\d{1,9}$/)
          .optional(),
      }),
    },
    responses: { 200: pageAnswer(rolloutVerdictSchema, "Verdicts") },
  }),
  act: createRoute({
    method: "post",
    path: "/api/v1/rollouts/{rollout}/actions",
    tags,
    summary: "Start, approve, pause, resume, abort, roll back, retry failed devices, let a wave pass by hand",
    middleware: [requireRole("operator")] as const,
    request: { params, body: jsonBody(rolloutActionSchema) },
    responses: { 200: jsonAnswer(rolloutViewSchema, "The rollout after it") },
  }),
};

export function registerRolloutRoutes(app: App, rollouts: RolloutService, live: LiveHub): void {
  app.openapi(routes.list, async (c) => {
    const { model, state, cursor } = c.req.valid("query");
    const items = await rollouts.list({
      ...(model === undefined ? {} : { model }),
      ...(state === undefined ? {} : { state }),
      ...behindCursor(cursor),
      limit: PAGE,
    });
    return c.json(
      newestPage(items, PAGE, ({ created, rollout }) => ({ time: created, id: rollout })),
      200,
    );
  });
  app.openapi(routes.create, async (c) =>
    c.json(await rollouts.create(c.req.valid("json"), currentActor(c)), 201),
  );
  app.openapi(routes.get, async (c) => c.json(await rollouts.get(c.req.valid("param").rollout), 200));
  app.openapi(routes.devices, async (c) =>
    c.json(await rollouts.devices(c.req.valid("param").rollout, defined(c.req.valid("query"))), 200),
  );
  app.openapi(routes.verdicts, async (c) =>
    c.json(await rollouts.verdicts(c.req.valid("param").rollout, defined(c.req.valid("query"))), 200),
  );
  app.openapi(routes.history, async (c) =>
    c.json(await rollouts.history(c.req.valid("param").rollout, defined(c.req.valid("query"))), 200),
  );
  app.openapi(routes.act, async (c) => {
    const { rollout } = c.req.valid("param");
    return c.json(await rollouts.act(rollout, c.req.valid("json"), currentActor(c)), 200);
  });
  registerEvents(app, rollouts, live);
}

/**
 * Its history from `Last-Event-ID` (or `?after=`) on, then as it happens; `progress` between, with counts of now. A client that was
 * cut off goes on where it was.
 */
function registerEvents(app: App, rollouts: RolloutService, live: LiveHub): void {
  app.get("/api/v1/rollouts/:rollout/events", requireRole("viewer"), async (c) => {
    const named = params.safeParse({ rollout: c.req.param("rollout") });
    if (!named.success) throw validationError(named.error, "param");
    const { rollout } = named.data;
    // What is no number of an event (another server's, say) begins at the first.
    const from = cursor.safeParse(c.req.header("Last-Event-ID") ?? c.req.query("after"));
    let after = from.data ?? 0;
    await rollouts.events(rollout, after, 1);
    const subscription = live.subscribe(principalName(currentPrincipal(c)));
    c.header("Cache-Control", "no-store");
    c.header("X-Accel-Buffering", "no");
    return streamSSE(c, async (stream) => {
      stream.onAbort(() => subscription.close());
      let said = "";
      const tell = async (): Promise<void> => {
        for (const event of await rollouts.events(rollout, after)) {
          await stream.writeSSE({ event: event.type, id: String(event.seq), data: JSON.stringify(event) });
          after = event.seq;
        }
        const { time, ...progress } = await rollouts.progress(rollout);
        const now = JSON.stringify(progress);
        if (now !== said)
          await stream.writeSSE({ event: "progress", data: JSON.stringify({ ...progress, time }) });
        said = now;
      };
      try {
        await tell();
        while (!subscription.closed && !stream.aborted) {
          const event = await subscription.next(SERVER_LIMITS.liveHeartbeatMs);
          if (event?.type === "rollout" && event.id === rollout) await tell();
          else if (!event && !subscription.closed) await stream.write(": alive\n\n");
        }
      } finally {
        subscription.close();
      }
    });
  });
}

/** Without the fields that nobody gave. */
function defined<Value extends object>(
  value: Value,
): { [Key in keyof Value]?: Exclude<Value[Key], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined)) as never;
}
