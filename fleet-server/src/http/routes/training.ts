import { modelNameSchema, trainingRunRequestSchema, trainingRunSchema } from "@fieldloop/protocol";
import { createRoute, z } from "@hono/zod-openapi";
import type { TrainingService } from "../../services/training.js";
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

const tags = ["training"];
const params = z.object({ run: z.string().regex(/^trn_[0-9a-z]{1,40}$/) });
const PAGE = 50;

const listRoute = createRoute({
  method: "get",
  path: "/api/v1/training-runs",
  tags,
  summary: "Training runs, newest first",
  middleware: [requireRole("viewer")] as const,
  request: {
    query: z.object({
      model: modelNameSchema.optional(),
      cursor: newestCursorSchema,
    }),
  },
  responses: { 200: pageAnswer(trainingRunSchema, "Training runs") },
});
const createRunRoute = createRoute({
  method: "post",
  path: "/api/v1/training-runs",
  tags,
  summary: "Train a candidate version from a base version and a snapshot",
  description:
    "Fine-tunes with replay of the base's old data, quantizes, calibrates, evaluates against the base on samples kept out of training and on old data, and publishes the candidate with that evidence.",
  middleware: [requireRole("operator")] as const,
  request: { body: jsonBody(trainingRunRequestSchema) },
  responses: { 201: jsonAnswer(trainingRunSchema, "The run") },
});
const getRoute = createRoute({
  method: "get",
  path: "/api/v1/training-runs/{run}",
  tags,
  summary: "One training run with its progress and loss curve",
  middleware: [requireRole("viewer")] as const,
  request: { params },
  responses: { 200: jsonAnswer(trainingRunSchema, "The run") },
});
const cancelRoute = createRoute({
  method: "post",
  path: "/api/v1/training-runs/{run}/cancel",
  tags,
  summary: "Cancel a training run",
  middleware: [requireRole("operator")] as const,
  request: { params },
  responses: { 200: jsonAnswer(trainingRunSchema, "The run") },
});

export function registerTrainingRoutes(app: App, training: TrainingService): void {
  app.openapi(listRoute, async (c) => {
    const { model, cursor } = c.req.valid("query");
    const items = await training.list({
      ...(model === undefined ? {} : { model }),
      ...behindCursor(cursor),
      limit: PAGE,
    });
    return c.json(
      newestPage(items, PAGE, ({ created, run }) => ({ time: created, id: run })),
      200,
    );
  });
  app.openapi(createRunRoute, async (c) =>
    c.json(await training.create(c.req.valid("json"), principalName(currentPrincipal(c))), 201),
  );
  app.openapi(getRoute, async (c) => c.json(await training.get(c.req.valid("param").run), 200));
  app.openapi(cancelRoute, async (c) =>
    c.json(await training.cancel(c.req.valid("param").run, principalName(currentPrincipal(c))), 200),
  );
}
