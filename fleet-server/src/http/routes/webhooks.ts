import {
  webhookChangeSchema,
  webhookDeliverySchema,
  webhookRequestSchema,
  webhookSchema,
} from "@fieldloop/protocol";
import { createRoute, z } from "@hono/zod-openapi";
import { SERVER_LIMITS } from "../../limits.js";
import type { WebhookService } from "../../services/webhooks.js";
import type { App } from "../env.js";
import { currentPrincipal, principalName, requireRole } from "../guards.js";
import {
  behindCursor,
  jsonAnswer,
  jsonBody,
  newestCursorSchema,
  newestPage,
  pageAnswer,
} from "../schemas.js";

const tags = ["webhooks"];
const params = z.object({ webhook: z.string().regex(/^whk_[0-9a-z]{1,40}$/) });
const deliveryParams = params.extend({ delivery: z.string().regex(/^msg_[0-9a-z]{1,40}$/) });
const admin = requireRole("admin");

const routes = {
  list: createRoute({
    method: "get",
    path: "/api/v1/webhooks",
    tags,
    summary: "Webhooks, oldest first, without their secrets",
    middleware: admin,
    responses: { 200: pageAnswer(webhookSchema, "Webhooks") },
  }),
  create: createRoute({
    method: "post",
    path: "/api/v1/webhooks",
    tags,
    summary: "Have an address told of events of rollouts",
    description: "The answer holds the secret that signs deliveries; it is not shown again.",
    middleware: admin,
    request: { body: jsonBody(webhookRequestSchema) },
    responses: { 201: jsonAnswer(webhookSchema, "The webhook with its secret") },
  }),
  get: createRoute({
    method: "get",
    path: "/api/v1/webhooks/{webhook}",
    tags,
    summary: "One webhook, and how many of its deliveries wait or were given up",
    middleware: admin,
    request: { params },
    responses: { 200: jsonAnswer(webhookSchema, "The webhook") },
  }),
  change: createRoute({
    method: "patch",
    path: "/api/v1/webhooks/{webhook}",
    tags,
    summary: "Change its address, its events, whether it is enabled, or its secret; what is left out stays",
    middleware: admin,
    request: { params, body: jsonBody(webhookChangeSchema) },
    responses: { 200: jsonAnswer(webhookSchema, "The webhook after it") },
  }),
  remove: createRoute({
    method: "delete",
    path: "/api/v1/webhooks/{webhook}",
    tags,
    summary: "Forget a webhook and its deliveries",
    middleware: admin,
    request: { params },
    responses: { 204: { description: "Gone" } },
  }),
  test: createRoute({
    method: "post",
    path: "/api/v1/webhooks/{webhook}/test",
    tags,
    summary: "Send it a ping",
    middleware: admin,
    request: { params },
    responses: { 202: jsonAnswer(webhookDeliverySchema, "The delivery, not tried yet") },
  }),
  deliveries: createRoute({
    method: "get",
    path: "/api/v1/webhooks/{webhook}/deliveries",
    tags,
    summary: "What it was sent and how that went, newest first",
    middleware: admin,
    request: {
      params,
      query: z.object({
        state: webhookDeliverySchema.shape.state.optional(),
        limit: z.coerce.number().int().min(1).max(SERVER_LIMITS.listItemsMax).default(100),
        cursor: newestCursorSchema,
      }),
    },
    responses: { 200: pageAnswer(webhookDeliverySchema, "Deliveries") },
  }),
  resend: createRoute({
    method: "post",
    path: "/api/v1/webhooks/{webhook}/deliveries/{delivery}/resend",
    tags,
    summary: "Try a delivery again that was given up",
    middleware: admin,
    request: { params: deliveryParams },
    responses: { 202: jsonAnswer(webhookDeliverySchema, "The delivery, waiting again") },
  }),
};

export function registerWebhookRoutes(app: App, webhooks: WebhookService): void {
  app.openapi(routes.list, async (c) => c.json({ items: await webhooks.list(), next: null }, 200));
  app.openapi(routes.create, async (c) => {
    c.header("Cache-Control", "no-store");
    return c.json(await webhooks.create(c.req.valid("json"), principalName(currentPrincipal(c))), 201);
  });
  app.openapi(routes.get, async (c) => c.json(await webhooks.get(c.req.valid("param").webhook), 200));
  app.openapi(routes.change, async (c) => {
    const { webhook } = c.req.valid("param");
    c.header("Cache-Control", "no-store");
    return c.json(
      await webhooks.change(webhook, c.req.valid("json"), principalName(currentPrincipal(c))),
      200,
    );
  });
  app.openapi(routes.remove, async (c) => {
    await webhooks.remove(c.req.valid("param").webhook, principalName(currentPrincipal(c)));
    return c.body(null, 204);
  });
  app.openapi(routes.test, async (c) =>
    c.json(await webhooks.test(c.req.valid("param").webhook, principalName(currentPrincipal(c))), 202),
  );
  app.openapi(routes.deliveries, async (c) => {
    const { state, cursor, limit } = c.req.valid("query");
    const options = { ...(state ? { state } : {}), ...behindCursor(cursor), limit };
    const items = await webhooks.deliveries(c.req.valid("param").webhook, options);
    return c.json(
      newestPage(items, limit, ({ created, delivery }) => ({ time: created, id: delivery })),
      200,
    );
  });
  app.openapi(routes.resend, async (c) => {
    const { webhook, delivery } = c.req.valid("param");
    return c.json(await webhooks.resend(webhook, delivery, principalName(currentPrincipal(c))), 202);
  });
}
