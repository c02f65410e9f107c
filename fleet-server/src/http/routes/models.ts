import {
  deviceClassSchema,
  LIMITS,
  modelNameSchema,
  modelSchema,
  modelVersionSchema,
  sha256Schema,
  versionSchema,
} from "@fieldloop/protocol";
import { createRoute, z } from "@hono/zod-openapi";
import type { RegistryService } from "../../services/registry.js";
import type { App } from "../env.js";
import { currentPrincipal, principalName, requireRole } from "../guards.js";
import { jsonAnswer, jsonBody, pageAnswer } from "../schemas.js";

const tags = ["models"];
const modelParams = z.object({ model: modelNameSchema });
const versionParams = modelParams.extend({ version: z.coerce.number().pipe(versionSchema) });

const publishSchema = z.object({
  manifestSha256: sha256Schema,
  /** Device classes that it is made for; any where absent. */
  deviceClasses: z.array(deviceClassSchema).min(1).max(LIMITS.deviceClassesMax).optional(),
});

const listRoute = createRoute({
  method: "get",
  path: "/api/v1/models",
  tags,
  summary: "All models with their versions, newest first",
  middleware: [requireRole("viewer")] as const,
  responses: { 200: pageAnswer(modelSchema, "Models") },
});
const getRoute = createRoute({
  method: "get",
  path: "/api/v1/models/{model}",
  tags,
  summary: "One model with its versions, newest first",
  middleware: [requireRole("viewer")] as const,
  request: { params: modelParams },
  responses: { 200: jsonAnswer(modelSchema, "The model") },
});
const versionRoute = createRoute({
  method: "get",
  path: "/api/v1/models/{model}/versions/{version}",
  tags,
  summary: "One version: manifest, lineage, evidence, and how many devices report it as running",
  middleware: [requireRole("viewer")] as const,
  request: { params: versionParams },
  responses: { 200: jsonAnswer(modelVersionSchema, "The version") },
});
const publishRoute = createRoute({
  method: "post",
  path: "/api/v1/models/{model}/versions",
  tags,
  summary: "Publish a package as the next version",
  description:
    "Upload every file and `manifest.json` as artifacts first. The server checks them, the ONNX files before any runtime sees them, and makes the package a target of the trust repository. Where the targets keys are not on the server the version is `awaiting_signature` until their owners have signed (`fieldloop keys request`). The same package again answers with the same version.",
  middleware: [requireRole("operator")] as const,
  request: { params: modelParams, body: jsonBody(publishSchema) },
  responses: { 201: jsonAnswer(modelVersionSchema, "The published version") },
});

export function registerModelRoutes(app: App, registry: RegistryService): void {
  app.openapi(listRoute, async (c) => c.json({ items: await registry.listModels(), next: null }, 200));
  app.openapi(getRoute, async (c) => c.json(await registry.getModel(c.req.valid("param").model), 200));
  app.openapi(versionRoute, async (c) => {
    const { model, version } = c.req.valid("param");
    return c.json(await registry.getVersion(model, version), 200);
  });
  app.openapi(publishRoute, async (c) => {
    const { model } = c.req.valid("param");
    const { manifestSha256, deviceClasses = null } = c.req.valid("json");
    const actor = principalName(currentPrincipal(c));
    return c.json(await registry.publish(model, manifestSha256, actor, deviceClasses), 201);
  });
}
