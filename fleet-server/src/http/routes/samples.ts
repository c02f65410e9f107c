import {
  annotationRequestSchema,
  annotationSchema,
  countSchema,
  proportionSchema,
  sampleQuerySchema,
  sampleStatusRequestSchema,
  sampleViewSchema,
  STRATA,
} from "@fieldloop/protocol";
import { createRoute, z } from "@hono/zod-openapi";
import type { SampleService } from "../../services/samples.js";
import type { App } from "../env.js";
import { currentPrincipal, principalName, requireRole } from "../guards.js";
import { jsonAnswer, jsonBody, pageAnswer } from "../schemas.js";

const tags = ["samples"];
const params = z.object({ sample: z.string().regex(/^smp_[0-9a-z]{8,40}$/) });
const statisticsSchema = z.object({
  strata: z.array(
    z.object({
      stratum: z.enum(STRATA),
      samples: countSchema,
      wrong: countSchema,
      right: countSchema,
      errorShare: proportionSchema,
    }),
  ),
});
const historySchema = z.object({ annotations: z.array(annotationSchema), snapshots: z.array(z.string()) });

const listRoute = createRoute({
  method: "get",
  path: "/api/v1/samples",
  tags,
  summary: "Samples by worth or newest first",
  middleware: [requireRole("viewer")] as const,
  request: { query: sampleQuerySchema },
  responses: { 200: pageAnswer(sampleViewSchema, "One page of samples") },
});
const getRoute = createRoute({
  method: "get",
  path: "/api/v1/samples/{sample}",
  tags,
  summary: "One sample",
  middleware: [requireRole("viewer")] as const,
  request: { params },
  responses: { 200: jsonAnswer(sampleViewSchema, "The sample") },
});
const historyRoute = createRoute({
  method: "get",
  path: "/api/v1/samples/{sample}/history",
  tags,
  summary: "Every label a sample was given, newest first, and the snapshots that hold it",
  middleware: [requireRole("viewer")] as const,
  request: { params },
  responses: { 200: jsonAnswer(historySchema, "Labels and snapshots") },
});
const payloadRoute = createRoute({
  method: "get",
  path: "/api/v1/samples/{sample}/payload",
  tags,
  summary: "The captured input: an image as it came, a sensor window as JSON numbers",
  middleware: [requireRole("viewer")] as const,
  request: { params },
  responses: {
    200: {
      description: "The input",
      content: {
        "image/jpeg": { schema: z.string() },
        "image/png": { schema: z.string() },
        "application/json": { schema: z.object({ values: z.array(z.number().nullable()) }) },
      },
    },
  },
});
const annotateRoute = createRoute({
  method: "post",
  path: "/api/v1/samples/{sample}/annotations",
  tags,
  summary: "Label a sample; an earlier label stays in its history",
  middleware: [requireRole("labeler")] as const,
  request: { params, body: jsonBody(annotationRequestSchema) },
  responses: { 201: jsonAnswer(sampleViewSchema, "The sample with its new label") },
});
const statusRoute = createRoute({
  method: "patch",
  path: "/api/v1/samples/{sample}",
  tags,
  summary: "Change the triage status of a sample",
  middleware: [requireRole("labeler")] as const,
  request: { params, body: jsonBody(sampleStatusRequestSchema) },
  responses: { 200: jsonAnswer(sampleViewSchema, "The sample") },
});
const statisticsRoute = createRoute({
  method: "get",
  path: "/api/v1/failures/statistics",
  tags,
  summary: "Per stratum: samples, known wrong and right, and the error share with its interval",
  description:
    "The share of the `random` stratum is an unbiased estimate of the field's error; that of `worth` says how well the finder finds.",
  middleware: [requireRole("viewer")] as const,
  request: {
    query: sampleQuerySchema.pick({ model: true, version: true, device: true, after: true, before: true }),
  },
  responses: { 200: jsonAnswer(statisticsSchema, "Statistics by stratum") },
});

export function registerSampleRoutes(app: App, samples: SampleService): void {
  app.openapi(listRoute, async (c) => c.json(await samples.list(c.req.valid("query")), 200));
  app.openapi(statisticsRoute, async (c) =>
    c.json({ strata: await samples.statistics(c.req.valid("query")) }, 200),
  );
  app.openapi(getRoute, async (c) => c.json(await samples.get(c.req.valid("param").sample), 200));
  app.openapi(historyRoute, async (c) => c.json(await samples.history(c.req.valid("param").sample), 200));
  app.openapi(payloadRoute, async (c) => {
    const { mediaType, bytes } = await samples.payload(c.req.valid("param").sample);
    // A sample's bytes never change.
    c.header("Cache-Control", "private, max-age=86400, immutable");
    if (mediaType === "application/x-fieldloop-window") return c.json({ values: windowValues(bytes) }, 200);
    return c.body(new Uint8Array(bytes), 200, { "Content-Type": mediaType });
  });
  app.openapi(annotateRoute, async (c) => {
    const { label } = c.req.valid("json");
    return c.json(
      await samples.annotate(c.req.valid("param").sample, label, principalName(currentPrincipal(c))),
      201,
    );
  });
  app.openapi(statusRoute, async (c) => {
    const { status } = c.req.valid("json");
    return c.json(
      await samples.setStatus(c.req.valid("param").sample, status, principalName(currentPrincipal(c))),
      200,
    );
  });
}

/** Float32 little-endian; what is not finite has no JSON number and becomes null. */
function windowValues(bytes: Uint8Array): (number | null)[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: Math.floor(bytes.byteLength / 4) }, (_, at) => {
    const value = view.getFloat32(at * 4, true);
    return Number.isFinite(value) ? value : null;
  });
}
