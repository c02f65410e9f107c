import { ReadableStream } from "node:stream/web";
import { datasetSchema, sha256Schema, snapshotSchema } from "@fieldloop/protocol";
import { createRoute, z } from "@hono/zod-openapi";
import { itemLine } from "../../domain/split.js";
import type { DatasetService } from "../../services/datasets.js";
import type { App } from "../env.js";
import { currentPrincipal, principalName, requireRole } from "../guards.js";
import { jsonAnswer, jsonBody, pageAnswer } from "../schemas.js";

const tags = ["datasets"];
const datasetParams = z.object({ dataset: z.string().regex(/^dst_[0-9a-z]{1,40}$/) });
const snapshotParams = z.object({ snapshot: sha256Schema });
const createSchema = datasetSchema.pick({ model: true, query: true }).extend({
  name: z.string().trim().min(1).max(200),
  query: datasetSchema.shape.query.prefault({ labelled: true }),
});

const listRoute = createRoute({
  method: "get",
  path: "/api/v1/datasets",
  tags,
  summary: "Datasets, newest first",
  middleware: [requireRole("viewer")] as const,
  responses: { 200: pageAnswer(datasetSchema, "Datasets") },
});
const createDatasetRoute = createRoute({
  method: "post",
  path: "/api/v1/datasets",
  tags,
  summary: "Save a query over labelled samples as a dataset",
  description:
    "`labelled: true` takes samples that a person labelled; `false` also those whose truth the application's feedback told.",
  middleware: [requireRole("labeler")] as const,
  request: { body: jsonBody(createSchema) },
  responses: { 201: jsonAnswer(datasetSchema, "The dataset") },
});
const getRoute = createRoute({
  method: "get",
  path: "/api/v1/datasets/{dataset}",
  tags,
  summary: "One dataset and how many samples it holds now",
  middleware: [requireRole("viewer")] as const,
  request: { params: datasetParams },
  responses: { 200: jsonAnswer(datasetSchema, "The dataset") },
});
const snapshotsRoute = createRoute({
  method: "get",
  path: "/api/v1/datasets/{dataset}/snapshots",
  tags,
  summary: "Snapshots of a dataset, newest first",
  middleware: [requireRole("viewer")] as const,
  request: { params: datasetParams },
  responses: { 200: pageAnswer(snapshotSchema, "Snapshots") },
});
const freezeRoute = createRoute({
  method: "post",
  path: "/api/v1/datasets/{dataset}/snapshots",
  tags,
  summary: "Freeze what the dataset holds now; the same content is the same snapshot",
  middleware: [requireRole("labeler")] as const,
  request: { params: datasetParams },
  responses: { 201: jsonAnswer(snapshotSchema, "The snapshot") },
});
const snapshotRoute = createRoute({
  method: "get",
  path: "/api/v1/snapshots/{snapshot}",
  tags,
  summary: "One snapshot",
  middleware: [requireRole("viewer")] as const,
  request: { params: snapshotParams },
  responses: { 200: jsonAnswer(snapshotSchema, "The snapshot") },
});
const itemsRoute = createRoute({
  method: "get",
  path: "/api/v1/snapshots/{snapshot}/items",
  tags,
  summary: "The snapshot's content as NDJSON, exactly the bytes that its SHA-256 is over",
  middleware: [requireRole("viewer")] as const,
  request: { params: snapshotParams },
  responses: {
    200: { description: "One line per sample", content: { "application/x-ndjson": { schema: z.string() } } },
  },
});

export function registerDatasetRoutes(app: App, datasets: DatasetService): void {
  app.openapi(listRoute, async (c) => c.json({ items: await datasets.list(), next: null }, 200));
  app.openapi(createDatasetRoute, async (c) =>
    c.json(await datasets.create(c.req.valid("json"), principalName(currentPrincipal(c))), 201),
  );
  app.openapi(getRoute, async (c) => c.json(await datasets.get(c.req.valid("param").dataset), 200));
  app.openapi(snapshotsRoute, async (c) =>
    c.json({ items: await datasets.snapshots(c.req.valid("param").dataset), next: null }, 200),
  );
  app.openapi(freezeRoute, async (c) =>
    c.json(await datasets.freeze(c.req.valid("param").dataset, principalName(currentPrincipal(c))), 201),
  );
  app.openapi(snapshotRoute, async (c) =>
    c.json(await datasets.snapshot(c.req.valid("param").snapshot), 200),
  );
  app.openapi(itemsRoute, async (c) => {
    const { snapshot } = await datasets.snapshot(c.req.valid("param").snapshot);
    const body = ReadableStream.from(lines(datasets, snapshot)) as unknown as globalThis.ReadableStream;
    // The route's type takes every "…json" for one JSON document; this is a stream of them.
    return c.body(body, 200, { "Content-Type": "application/x-ndjson" }) as never;
  });
}

async function* lines(datasets: DatasetService, snapshot: string): AsyncGenerator<Uint8Array> {
  const encoder = new TextEncoder();
  for await (const item of datasets.items(snapshot)) yield encoder.encode(itemLine(item));
}
