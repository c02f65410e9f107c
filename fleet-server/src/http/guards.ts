import { FieldloopError, ROLES, type Role } from "@fieldloop/protocol";
import type { Context, MiddlewareHandler } from "hono";
import { bodyLimit } from "hono/body-limit";
import type { Actor } from "../domain/rollout-actions.js";
import type { AppEnv, Principal } from "./env.js";

/** What proves who asks; implemented by the auth services. */
export interface Authenticator {
  /** @returns undefined where the request carries no credential. @throws FieldloopError `unauthenticated` for one that is not known */
  authenticate(c: Context<AppEnv>): Promise<Principal | undefined>;
}

/** Sets the principal of every request, and refuses writes by cookie from another origin (cross-site request forgery). */
export function identify(authenticator: Authenticator): MiddlewareHandler<AppEnv> {
  return async (c, next) => {
    const principal = await authenticator.authenticate(c);
    c.set("principal", principal);
    if (principal?.kind === "user" && principal.by === "session" && isWrite(c.req.method))
      refuseForeignOrigin(c);
    await next();
  };
}

/** Roles include those before them: viewer < labeler < operator < admin. A device has none of them. */
export function requireRole(role: Role): MiddlewareHandler<AppEnv> {
  return async (c, next) => {
    const principal = c.get("principal");
    if (!principal) throw new FieldloopError("unauthenticated", "Authorize: no credential was sent");
    if (principal.kind !== "user" || ROLES.indexOf(principal.role) < ROLES.indexOf(role)) {
      throw new FieldloopError("forbidden", `Authorize: this needs the role "${role}"`);
    }
    await next();
  };
}

/** Any known caller, devices included. */
export function requireAnyone(): MiddlewareHandler<AppEnv> {
  return async (c, next) => {
    if (!c.get("principal")) throw new FieldloopError("unauthenticated", "Authorize: no credential was sent");
    await next();
  };
}

/** The principal of a request that passed a guard. */
export function currentPrincipal(c: Context<AppEnv>): Principal {
  const principal = c.get("principal");
  if (!principal) throw new FieldloopError("unauthenticated", "Authorize: no credential was sent");
  return principal;
}

/** The caller as an actor of rollouts. @throws FieldloopError `forbidden` for a device */
export function currentActor(c: Context<AppEnv>): Actor {
  const principal = currentPrincipal(c);
  if (principal.kind !== "user") throw new FieldloopError("forbidden", "Authorize: a device is no actor");
  const { name, person, sponsor } = principal;
  return { name, person, sponsor };
}

/** The name to write beside what the caller did. */
export function principalName(principal: Principal): string {
  return principal.kind === "user" ? principal.name : principal.device;
}

/** Refuses a body above the limit by its announced length or while reading it; the socket is closed after the answer. */
export function limitBody(bytesMax: number): MiddlewareHandler<AppEnv> {
  return bodyLimit({
    maxSize: bytesMax,
    onError: () => {
      throw new FieldloopError("limit_exceeded", `Read body: more than ${bytesMax} bytes`);
    },
  });
}

export function isWrite(method: string): boolean {
  return method !== "GET" && method !== "HEAD" && method !== "OPTIONS";
}

function refuseForeignOrigin(c: Context<AppEnv>): void {
  const origin = c.req.header("Origin");
  const site = c.req.header("Sec-Fetch-Site");
  const same = origin === undefined ? site === "same-origin" : hostOf(origin) === c.req.header("Host");
  if (!same) {
    throw new FieldloopError(
      "forbidden",
      `Authorize: a write with a session from the origin "${origin ?? "none"}"`,
    );
  }
}

function hostOf(origin: string): string | undefined {
  return URL.canParse(origin) ? new URL(origin).host : undefined;
}
