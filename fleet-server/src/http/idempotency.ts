import { createHash } from "node:crypto";
import { FieldloopError } from "@fieldloop/protocol";
import type { Context, MiddlewareHandler } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { SERVER_LIMITS } from "../limits.js";
import type { IdempotencyStore } from "../store/idempotency.js";
import type { AppEnv } from "./env.js";
import { isWrite, principalName } from "./guards.js";

/** A write with an `Idempotency-Key` happens once: the same key and request get the stored answer, another request a conflict. */
export function idempotency(store: IdempotencyStore): MiddlewareHandler<AppEnv> {
  return async (c, next) => {
    const key = c.req.header("Idempotency-Key");
    const principal = c.get("principal");
    if (key === undefined || principal === undefined || !isWrite(c.req.method)) return next();
    if (!/^[\x21-\x7e]+$/.test(key) || key.length > SERVER_LIMITS.idempotencyKeyLengthMax) {
      throw new FieldloopError(
        "invalid_argument",
        "Read Idempotency-Key: wanted 1 to 128 visible characters",
      );
    }
    const owner = `${principal.kind}:${principalName(principal)}`;
    const claimed = await store.claim(owner, key, await requestSha256(c));
    if (claimed !== "claimed") {
      c.header("Idempotent-Replayed", "true");
      return c.body(claimed.body, claimed.status as ContentfulStatusCode, {
        "Content-Type": claimed.contentType,
      });
    }
    await next();
    await remember(c, store, owner, key);
  };
}

/** Only what decided something is kept: after a failure of the server the same request may be tried again. */
async function remember(
  c: Context<AppEnv>,
  store: IdempotencyStore,
  owner: string,
  key: string,
): Promise<void> {
  if (c.res.status >= 500 || c.res.status === 429 || c.res.status === 401) return store.release(owner, key);
  const body = await c.res.clone().text();
  if (body.length > SERVER_LIMITS.idempotencyBodyBytesMax) return store.release(owner, key);
  await store.complete(owner, key, {
    status: c.res.status,
    contentType: c.res.headers.get("Content-Type") ?? "application/json",
    body,
    secret: c.res.headers.get("Cache-Control") === "no-store",
  });
}

async function requestSha256(c: Context<AppEnv>): Promise<string> {
  const hash = createHash("sha256").update(
    `${c.req.method} ${new URL(c.req.url).pathname}${new URL(c.req.url).search}\n`,
  );
  if (!c.req.path.startsWith("/api/v1/artifacts/")) hash.update(new Uint8Array(await c.req.arrayBuffer()));
  return hash.digest("hex");
}
