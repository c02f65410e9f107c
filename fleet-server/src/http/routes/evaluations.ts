import { evaluationSchema, modelNameSchema, sha256Schema, versionSchema } from "@fieldloop/protocol";
import { createRoute, z } from "@hono/zod-openapi";
import type { EvaluationService } from "../../services/evaluation.js";
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

const tags = ["evaluations"];
const params = z.object({ evaluation: z.string().regex(/^evl_[0-9a-z]{1,40}$/) });
const querySchema = z.object({
  model: modelNameSchema.optional(),
  candidate: z.coerce.number().pipe(versionSchema).optional(),
  cursor: newestCursorSchema,
});
const requestSchema = z.object({
  model: modelNameSchema,
  base: versionSchema,
  candidate: versionSchema,
  snapshot: sha256Schema,
});
const PAGE = 50;

const listRoute = createRoute({
  method: "get",
  path: "/api/v1/evaluations",
  tags,
  summary: "Evaluations, newest first",
  middleware: [requireRole("viewer")] as const,
  request: { query: querySchema },
  responses: { 200: pageAnswer(evaluationSchema, "Evaluations") },
});
const getRoute = createRoute({
  method: "get",
  path: "/api/v1/evaluations/{evaluation}",
  tags,
  summary:
    "One evaluation: per slice and class, with intervals, confusion and what only one version got right",
  middleware: [requireRole("viewer")] as const,
  request: { params },
  responses: { 200: jsonAnswer(evaluationSchema, "The evaluation") },
});
const runRoute = createRoute({
  method: "post",
  path: "/api/v1/evaluations",
  tags,
  summary: "Evaluate one version against another on a snapshot, now",
  description:
    "Only samples that neither version was trained on are counted. The verdict becomes the candidate's newest evidence.",
  middleware: [requireRole("operator")] as const,
  request: { body: jsonBody(requestSchema) },
  responses: { 201: jsonAnswer(evaluationSchema, "The evaluation") },
});

export function registerEvaluationRoutes(app: App, evaluations: EvaluationService): void {
  app.openapi(listRoute, async (c) => {
    const { model, candidate, cursor } = c.req.valid("query");
    const items = await evaluations.list({
      ...(model === undefined ? {} : { model }),
      ...(candidate === undefined ? {} : { candidate }),
      ...behindCursor(cursor),
      limit: PAGE,
    });
    return c.json(
      newestPage(items, PAGE, ({ created, evaluation }) => ({ time: created, id: evaluation })),
      200,
    );
  });
  app.openapi(getRoute, async (c) => c.json(await evaluations.get(c.req.valid("param").evaluation), 200));
  app.openapi(runRoute, async (c) =>
    c.json(await evaluations.run(c.req.valid("json"), principalName(currentPrincipal(c))), 201),
  );
}
