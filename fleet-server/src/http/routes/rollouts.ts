import {
  modelNameSchema,
  rolloutActionSchema,
  rolloutRequestSchema,
  rolloutViewSchema,
  timeSchema,
} from "@fieldloop/protocol";
import { createRoute, z } from "@hono/zod-openapi";
import type { RolloutService } from "../../services/rollouts.js";
import type { App } from "../env.js";
import { currentPrincipal, principalName, requireRole } from "../guards.js";
import { jsonAnswer, jsonBody, pageAnswer } from "../schemas.js";

const tags = ["rollouts"];
const params = z.object({ rollout: z.string().regex(/^rol_[0-9a-z]{1,40}$/) });
const PAGE = 50;

const listRoute = createRoute({
  method: "get",
  path: "/api/v1/rollouts",
  tags,
  summary: "Rollouts, newest first",
  middleware: [requireRole("viewer")] as const,
  request: {
    query: z.object({
      model: modelNameSchema.optional(),
      cursor: z.coerce.number().pipe(timeSchema).optional(),
    }),
  },
  responses: { 200: pageAnswer(rolloutViewSchema, "Rollouts") },
});
const createRolloutRoute = createRoute({
  method: "post",
  path: "/api/v1/rollouts",
  tags,
  summary: "Plan a rollout and, unless told otherwise, start it",
  description:
    "A version without a passing evaluation needs a `forceReason`, which is written into the audit log.",
  middleware: [requireRole("operator")] as const,
  request: { body: jsonBody(rolloutRequestSchema) },
  responses: { 201: jsonAnswer(rolloutViewSchema, "The rollout") },
});
const getRoute = createRoute({
  method: "get",
  path: "/api/v1/rollouts/{rollout}",
  tags,
  summary: "One rollout: waves, devices, and what each gate decided with which numbers",
  middleware: [requireRole("viewer")] as const,
  request: { params },
  responses: { 200: jsonAnswer(rolloutViewSchema, "The rollout") },
});
const actRoute = createRoute({
  method: "post",
  path: "/api/v1/rollouts/{rollout}/actions",
  tags,
  summary: "Start, pause, resume, abort (keep what is updated) or roll back (restore every updated device)",
  middleware: [requireRole("operator")] as const,
  request: { params, body: jsonBody(rolloutActionSchema) },
  responses: { 200: jsonAnswer(rolloutViewSchema, "The rollout after it") },
});

export function registerRolloutRoutes(app: App, rollouts: RolloutService): void {
  app.openapi(listRoute, async (c) => {
    const { model, cursor } = c.req.valid("query");
    const items = await rollouts.list({
      ...(model === undefined ? {} : { model }),
      ...(cursor === undefined ? {} : { before: cursor }),
      limit: PAGE,
    });
    return c.json({ items, next: items.length === PAGE ? String(items.at(-1)!.created) : null }, 200);
  });
  app.openapi(createRolloutRoute, async (c) =>
    c.json(await rollouts.create(c.req.valid("json"), principalName(currentPrincipal(c))), 201),
  );
  app.openapi(getRoute, async (c) => c.json(await rollouts.get(c.req.valid("param").rollout), 200));
  app.openapi(actRoute, async (c) => {
    const { action, reason } = c.req.valid("json");
    const { rollout } = c.req.valid("param");
    const said = reason === "" ? null : reason;
    return c.json(await rollouts.act(rollout, action, said, principalName(currentPrincipal(c))), 200);
  });
}
