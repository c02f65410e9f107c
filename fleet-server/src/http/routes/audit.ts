import { timeSchema } from "@fieldloop/protocol";
import { createRoute, z } from "@hono/zod-openapi";
import type { AuditStore } from "../../store/audit.js";
import type { App } from "../env.js";
import { requireRole } from "../guards.js";
import { behindCursor, newestCursorSchema, newestPage, pageAnswer, pageQuerySchema } from "../schemas.js";

const entrySchema = z.object({
  entry: z.string(),
  time: timeSchema,
  actor: z.string(),
  action: z.string(),
  subject: z.string(),
  detail: z.record(z.string(), z.unknown()),
});
const listRoute = createRoute({
  method: "get",
  path: "/api/v1/audit",
  tags: ["audit"],
  summary: "Who decided what, newest first",
  middleware: [requireRole("viewer")] as const,
  request: {
    query: pageQuerySchema.extend({
      /** `rollout:rol_…`, `version:parts@2`, `sample:smp_…`, … */
      subject: z.string().max(200).optional(),
      cursor: newestCursorSchema,
    }),
  },
  responses: { 200: pageAnswer(entrySchema, "Audit entries") },
});

export function registerAuditRoutes(app: App, audit: AuditStore): void {
  app.openapi(listRoute, async (c) => {
    const { subject, cursor, limit } = c.req.valid("query");
    const items = await audit.list({
      ...(subject === undefined ? {} : { subject }),
      ...behindCursor(cursor),
      limit,
    });
    const page = newestPage(items, limit, ({ time, entry }) => ({ time, id: entry }));
    return c.json({ ...page, items: page.items.map((item) => ({ ...item })) }, 200);
  });
}
