import {
  deviceIdSchema,
  modelNameSchema,
  overviewSchema,
  proportionSchema,
  timeSchema,
  versionSchema,
  type Overview,
} from "@fieldloop/protocol";
import { createRoute, z } from "@hono/zod-openapi";
import type { TelemetryService } from "../../services/telemetry.js";
import type { App } from "../env.js";
import { requireRole } from "../guards.js";
import { jsonAnswer } from "../schemas.js";

const overviewRoute = createRoute({
  method: "get",
  path: "/api/v1/overview",
  tags: ["fleet"],
  summary: "The fleet at a glance",
  middleware: [requireRole("viewer")] as const,
  responses: { 200: jsonAnswer(overviewSchema, "Overview") },
});
const accuracyRoute = createRoute({
  method: "get",
  path: "/api/v1/accuracy",
  tags: ["fleet"],
  summary: "Share of right predictions among those with feedback",
  description:
    "Times select buckets of ten seconds: from the one that `from` falls into to those that begin before `to`.",
  middleware: [requireRole("viewer")] as const,
  request: {
    query: z.object({
      device: deviceIdSchema.optional(),
      model: modelNameSchema.optional(),
      version: z.coerce.number().pipe(versionSchema).optional(),
      from: z.coerce.number().pipe(timeSchema).optional(),
      to: z.coerce.number().pipe(timeSchema).optional(),
    }),
  },
  responses: { 200: jsonAnswer(proportionSchema, "The share with its 95 % Wilson interval") },
});

export function registerOverviewRoutes(
  app: App,
  overview: () => Promise<Overview>,
  telemetry: TelemetryService,
): void {
  app.openapi(overviewRoute, async (c) => c.json(await overview(), 200));
  app.openapi(accuracyRoute, async (c) => {
    const { device, model, version, from, to } = c.req.valid("query");
    const filter = {
      ...(device === undefined ? {} : { device }),
      ...(model === undefined ? {} : { model }),
      ...(version === undefined ? {} : { version }),
      ...(from === undefined ? {} : { from }),
      ...(to === undefined ? {} : { to }),
    };
    return c.json(await telemetry.accuracy(filter), 200);
  });
}
