import {
  apiTokenSchema,
  createdTokenSchema,
  ROLES,
  sessionSchema,
  tokenNameSchema,
} from "@fieldloop/protocol";
import { createRoute, z } from "@hono/zod-openapi";
import type { AuthService } from "../../auth/auth.js";
import type { App } from "../env.js";
import { currentActor, currentPrincipal, principalName, requireAnyone, requireRole } from "../guards.js";
import { jsonAnswer, jsonBody, pageAnswer } from "../schemas.js";

const tags = ["access"];

const signInRoute = createRoute({
  method: "post",
  path: "/api/v1/session",
  tags,
  summary: "Sign in with an API token; sets a session cookie",
  request: { body: jsonBody(z.object({ token: z.string().min(1).max(256) })) },
  responses: { 200: jsonAnswer(sessionSchema, "Signed in") },
});
const whoRoute = createRoute({
  method: "get",
  path: "/api/v1/session",
  tags,
  summary: "Who is asking",
  middleware: [requireRole("viewer")] as const,
  responses: { 200: jsonAnswer(sessionSchema, "The caller") },
});
const signOutRoute = createRoute({
  method: "delete",
  path: "/api/v1/session",
  tags,
  summary: "Sign out",
  middleware: [requireAnyone()] as const,
  responses: { 204: { description: "Signed out" } },
});

const listTokensRoute = createRoute({
  method: "get",
  path: "/api/v1/tokens",
  tags,
  summary: "API tokens by name; their secrets are not kept",
  middleware: [requireRole("admin")] as const,
  responses: { 200: pageAnswer(apiTokenSchema, "Tokens") },
});
const createTokenRoute = createRoute({
  method: "post",
  path: "/api/v1/tokens",
  tags,
  summary: "Make an API token; its secret is told once",
  description:
    "With a `person` it is theirs, whatever its name; without one it is a program's, for which its maker answers, and which cannot approve rollouts.",
  middleware: [requireRole("admin")] as const,
  request: {
    body: jsonBody(
      z.object({ name: tokenNameSchema, role: z.enum(ROLES), person: tokenNameSchema.optional() }),
    ),
  },
  responses: {
    201: jsonAnswer(createdTokenSchema, "The token"),
  },
});
const revokeTokenRoute = createRoute({
  method: "delete",
  path: "/api/v1/tokens/{name}",
  tags,
  summary: "Revoke a token and end its sessions",
  middleware: [requireRole("admin")] as const,
  request: { params: z.object({ name: tokenNameSchema }) },
  responses: { 204: { description: "Revoked" } },
});

export function registerSessionRoutes(app: App, auth: AuthService): void {
  app.openapi(signInRoute, async (c) => c.json(await auth.signIn(c, c.req.valid("json").token), 200));
  app.openapi(whoRoute, (c) => {
    const principal = currentPrincipal(c);
    const role = principal.kind === "user" ? principal.role : "viewer";
    return c.json({ role, name: principalName(principal) }, 200);
  });
  app.openapi(signOutRoute, async (c) => {
    await auth.signOut(c);
    return c.body(null, 204);
  });
  app.openapi(listTokensRoute, async (c) => c.json({ items: await auth.tokens(), next: null }, 200));
  app.openapi(createTokenRoute, async (c) => {
    const { name, role, person = null } = c.req.valid("json");
    const maker = currentActor(c);
    c.header("Cache-Control", "no-store");
    return c.json({ name, role, person, token: await auth.createToken({ name, role, person }, maker) }, 201);
  });
  app.openapi(revokeTokenRoute, async (c) => {
    await auth.revokeToken(c.req.valid("param").name, principalName(currentPrincipal(c)));
    return c.body(null, 204);
  });
}
