import { FieldloopError, LIMITS } from "@fieldloop/protocol";
import { OpenAPIHono } from "@hono/zod-openapi";
import type { MiddlewareHandler } from "hono";
import { secureHeaders } from "hono/secure-headers";
import type { Logger } from "../context.js";
import type { App, AppEnv } from "./env.js";
import { identify, limitBody, type Authenticator } from "./guards.js";
import { idempotency } from "./idempotency.js";
import type { IdempotencyStore } from "../store/idempotency.js";
import { answerError, validationError } from "./problem.js";

export interface AppOptions {
  readonly logger: Logger;
  readonly authenticator: Authenticator;
  readonly idempotency: IdempotencyStore;
}

/** Paths whose bodies have limits of their own, set by their routes: artifacts are streamed. */
const STREAMED = /^\/api\/v1\/artifacts\//;

/**
 * The HTTP application without its routes. A route file exports `register…Routes(app, services)`, declares each route with
 * `createRoute` (its schemas become the OpenAPI document), `middleware: [requireRole("viewer")]`, and answers with `c.json(view, 200)`;
 * whatever it throws becomes a problem document, whatever its schemas refuse an `invalid_body` or `invalid_argument` with issues.
 */
export function createApp(options: AppOptions): App {
  const app = new OpenAPIHono<AppEnv>({
    defaultHook: (result) => {
      if (!result.success) throw validationError(result.error, result.target);
    },
  });
  app.onError((error, c) => answerError(error, c, options.logger));
  app.notFound((c) => {
    throw new FieldloopError("not_found", `Find route: ${c.req.method} "${c.req.path.slice(0, 200)}"`);
  });
  app.use(
    secureHeaders({
      contentSecurityPolicy: {
        defaultSrc: ["'self'"],
        imgSrc: ["'self'", "data:", "blob:"],
        styleSrc: ["'self'"],
        objectSrc: ["'none'"],
        baseUri: ["'none'"],
        formAction: ["'self'"],
        frameAncestors: ["'none'"],
      },
      crossOriginEmbedderPolicy: false,
      strictTransportSecurity: false,
    }),
  );
  app.use(limitJson());
  app.use("/api/*", identify(options.authenticator));
  app.use("/artifacts/*", identify(options.authenticator));
  app.use("/tuf/*", identify(options.authenticator));
  app.use("/metrics", identify(options.authenticator));
  app.use("/api/v1/*", idempotency(options.idempotency));
  return app;
}

function limitJson(): MiddlewareHandler<AppEnv> {
  const limit = limitBody(LIMITS.jsonBodyBytesMax);
  return (c, next) => (STREAMED.test(c.req.path) ? next() : limit(c, next));
}
