import type { OpenAPIHono } from "@hono/zod-openapi";
import type { HttpBindings } from "@hono/node-server";
import type { Role } from "@fieldloop/protocol";

/** Who is asking: a person or program with a role, or a device. */
export type Principal =
  | {
      readonly kind: "user";
      readonly name: string;
      readonly role: Role;
      /** Whose token it is; null for a program's. */
      readonly person: string | null;
      /** Who answers for it: the person, or who made the program's token. */
      readonly sponsor: string;
      /** How it proved itself: a cookie needs a check of the request's origin. */
      readonly by: "token" | "session";
    }
  | { readonly kind: "device"; readonly device: string };

export interface AppEnv {
  Bindings: HttpBindings;
  Variables: { principal: Principal | undefined };
}
export type App = OpenAPIHono<AppEnv>;
