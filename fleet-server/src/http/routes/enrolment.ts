import {
  enrolRequestSchema,
  enrolResponseSchema,
  enrolmentTokenRequestSchema,
  enrolmentTokenSchema,
} from "@fieldloop/protocol";
import { createRoute } from "@hono/zod-openapi";
import { addressOf } from "../../auth/auth.js";
import type { EnrolmentService } from "../../services/enrolment.js";
import type { App } from "../env.js";
import { currentPrincipal, principalName, requireRole } from "../guards.js";
import { jsonAnswer, jsonBody } from "../schemas.js";

const tags = ["devices"];

const tokenRoute = createRoute({
  method: "post",
  path: "/api/v1/enrolment-tokens",
  tags,
  summary: "Make an enrolment token: few uses, short life, told once",
  middleware: [requireRole("operator")] as const,
  request: { body: jsonBody(enrolmentTokenRequestSchema) },
  responses: { 201: jsonAnswer(enrolmentTokenSchema, "The token") },
});
const enrolRoute = createRoute({
  method: "post",
  path: "/api/v1/enrol",
  tags,
  summary: "Trade an enrolment token for a device's own credential",
  request: { body: jsonBody(enrolRequestSchema) },
  responses: { 201: jsonAnswer(enrolResponseSchema, "The device's identity") },
});

/** @param mqttUrl what devices are told to connect to, given the host name that they reached the server by */
export function registerEnrolmentRoutes(
  app: App,
  enrolment: EnrolmentService,
  mqttUrl: (hostname: string) => string,
): void {
  app.openapi(tokenRoute, async (c) => {
    const { ttlSeconds, uses } = c.req.valid("json");
    c.header("Cache-Control", "no-store");
    return c.json(await enrolment.createToken(principalName(currentPrincipal(c)), ttlSeconds, uses), 201);
  });
  app.openapi(enrolRoute, async (c) => {
    c.header("Cache-Control", "no-store");
    const url = mqttUrl(new URL(c.req.url).hostname);
    return c.json(await enrolment.enrol(c.req.valid("json"), url, addressOf(c)), 201);
  });
}
