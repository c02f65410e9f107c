import {
  changeKeysRequestSchema,
  signaturesFileSchema,
  signingRequestSchema,
  trustOutcomeSchema,
  trustRoleSchema,
  trustViewSchema,
} from "@fieldloop/protocol";
import { createRoute, z } from "@hono/zod-openapi";
import type { KeyCeremony } from "../../trust/ceremony.js";
import type { TrustService } from "../../trust/service.js";
import type { App } from "../env.js";
import { currentPrincipal, principalName, requireRole } from "../guards.js";
import { jsonAnswer, jsonBody } from "../schemas.js";

const tags = ["trust"];

const viewRoute = createRoute({
  method: "get",
  path: "/api/v1/trust",
  tags,
  summary: "Roles, keys, expiry, what waits for signatures",
  middleware: [requireRole("viewer")] as const,
  responses: { 200: jsonAnswer(trustViewSchema, "The trust repository") },
});
const keysRoute = createRoute({
  method: "post",
  path: "/api/v1/trust/keys",
  tags,
  summary: "Add, revoke and replace keys of a role, and set its threshold",
  description:
    "Everything in one request comes into force in one root. Where the root keys are not on the server it waits for their signatures.",
  middleware: [requireRole("admin")] as const,
  request: { body: jsonBody(changeKeysRequestSchema) },
  responses: { 200: jsonAnswer(trustOutcomeSchema, "In force, or waiting") },
});
const directorRoute = createRoute({
  method: "post",
  path: "/api/v1/trust/director",
  tags,
  summary: "Replace the key that signs desired states and commands",
  middleware: [requireRole("admin")] as const,
  responses: { 200: jsonAnswer(trustOutcomeSchema, "In force, or waiting") },
});
const renewRoute = createRoute({
  method: "post",
  path: "/api/v1/trust/renewals",
  tags,
  summary: "Make metadata anew before their time",
  middleware: [requireRole("admin")] as const,
  request: { body: jsonBody(z.object({ roles: z.array(trustRoleSchema).min(1).max(4) })) },
  responses: { 200: jsonAnswer(trustOutcomeSchema, "In force, or waiting") },
});
const documentSchema = z.enum(["root", "targets"]);
const requestRoute = createRoute({
  method: "post",
  path: "/api/v1/trust/requests",
  tags,
  summary: "Ask the owners of other keys to sign what waits",
  description:
    "The open request, where there is one; with `replace` a new one, for which earlier signatures are worth nothing.",
  middleware: [requireRole("admin")] as const,
  request: {
    body: jsonBody(
      z.object({
        replace: z.boolean().default(false),
        renew: z.array(documentSchema).max(2).default([]),
        only: documentSchema.optional(),
      }),
    ),
  },
  responses: { 200: jsonAnswer(signingRequestSchema, "The request, to be carried to the keys") },
});
const openRoute = createRoute({
  method: "get",
  path: "/api/v1/trust/requests/open",
  tags,
  summary: "The signing request that is open",
  middleware: [requireRole("admin")] as const,
  responses: { 200: jsonAnswer(signingRequestSchema, "The request") },
});
const withdrawRoute = createRoute({
  method: "delete",
  path: "/api/v1/trust/requests/open",
  tags,
  summary: "Drop the open request and everything that is staged",
  middleware: [requireRole("admin")] as const,
  responses: { 200: jsonAnswer(trustOutcomeSchema, "Nothing is staged any more") },
});
const importRoute = createRoute({
  method: "post",
  path: "/api/v1/trust/signatures",
  tags,
  summary: "Bring signatures for the open request",
  middleware: [requireRole("admin")] as const,
  request: { body: jsonBody(signaturesFileSchema) },
  responses: { 200: jsonAnswer(trustOutcomeSchema, "In force, or waiting for more") },
});

/** Keys and signatures. Private keys never travel: they are files of the server or of other machines. */
export function registerTrustRoutes(app: App, trust: TrustService, ceremony: KeyCeremony): void {
  app.openapi(viewRoute, async (c) => c.json(await trust.view(), 200));
  app.openapi(keysRoute, async (c) =>
    c.json(await ceremony.changeKeys(c.req.valid("json"), principalName(currentPrincipal(c))), 200),
  );
  app.openapi(directorRoute, async (c) =>
    c.json(await ceremony.rotateDirector(principalName(currentPrincipal(c))), 200),
  );
  app.openapi(renewRoute, async (c) =>
    c.json(await ceremony.renew(c.req.valid("json").roles, principalName(currentPrincipal(c))), 200),
  );
  app.openapi(requestRoute, async (c) => {
    const { only, ...options } = c.req.valid("json");
    const request = { ...options, ...(only ? { only } : {}) };
    return c.json(await ceremony.request(request, principalName(currentPrincipal(c))), 200);
  });
  app.openapi(openRoute, async (c) => c.json(await ceremony.openRequest(), 200));
  app.openapi(withdrawRoute, async (c) =>
    c.json(await ceremony.withdraw(principalName(currentPrincipal(c))), 200),
  );
  app.openapi(importRoute, async (c) =>
    c.json(await ceremony.importSignatures(c.req.valid("json"), principalName(currentPrincipal(c))), 200),
  );
}
