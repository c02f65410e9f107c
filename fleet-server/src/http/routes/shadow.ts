import { shadowViewSchema } from "@fieldloop/protocol";
import { createRoute, z } from "@hono/zod-openapi";
import type { ShadowService } from "../../services/shadow.js";
import type { App } from "../env.js";
import { requireRole } from "../guards.js";
import { jsonAnswer } from "../schemas.js";

const route = createRoute({
  method: "get",
  path: "/api/v1/deployments/{deployment}/shadow",
  tags: ["rollouts"],
  summary: "How the candidate of a deployment and the active version answered the same frames on its device",
  description:
    "`labelled` counts the sampled disagreements whose truth is known, by a person's label or else by feedback: who was right. Label them with `GET /api/v1/samples?shadow={deployment}`.",
  middleware: [requireRole("viewer")] as const,
  request: { params: z.object({ deployment: z.string().min(1).max(64) }) },
  responses: { 200: jsonAnswer(shadowViewSchema, "The shadow") },
});

export function registerShadowRoute(app: App, shadow: ShadowService): void {
  app.openapi(route, async (c) => c.json(await shadow.view(c.req.valid("param").deployment), 200));
}
