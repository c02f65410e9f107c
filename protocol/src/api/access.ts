import { z } from "zod";
import { timeSchema } from "../names.js";
import { ROLES } from "./common.js";

/** Who a request comes from. */
export const sessionSchema = z.object({ role: z.enum(ROLES), name: z.string() });

/** Name of an API token, or of a person; lower case, so that case makes no other person. */
export const tokenNameSchema = z.string().regex(/^[a-z0-9][a-z0-9._-]{0,62}$/);

/** An API token without its secret, which is not kept. */
export const apiTokenSchema = z.object({
  name: tokenNameSchema,
  role: z.enum(ROLES),
  /** Whose it is; null for a program's. */
  person: tokenNameSchema.nullable(),
  /** Who answers for what is done with it: the person, or who made the program's token. */
  sponsor: tokenNameSchema,
  created: timeSchema,
  revoked: z.boolean(),
});
export type ApiToken = z.output<typeof apiTokenSchema>;

/** A token as it was made: its secret is told this once. */
export const createdTokenSchema = apiTokenSchema
  .pick({ name: true, role: true, person: true })
  .extend({ token: z.string() });
export type CreatedToken = z.output<typeof createdTokenSchema>;
