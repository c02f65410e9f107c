import { pageSchema } from "@fieldloop/protocol";
import { z } from "@hono/zod-openapi";
import { SERVER_LIMITS } from "../limits.js";

/** Pieces of route declarations. */
export function jsonContent<Schema extends z.ZodType>(schema: Schema) {
  return { "application/json": { schema } };
}

export function jsonBody<Schema extends z.ZodType>(schema: Schema) {
  return { content: jsonContent(schema), required: true as const };
}

export function jsonAnswer<Schema extends z.ZodType>(schema: Schema, description: string) {
  return { content: jsonContent(schema), description };
}

export function pageAnswer<Schema extends z.ZodType>(item: Schema, description: string) {
  return jsonAnswer(pageSchema(item), description);
}

export const pageQuerySchema = z.object({
  limit: z.coerce.number().int().min(1).max(SERVER_LIMITS.listItemsMax).default(100),
  cursor: z.string().max(200).optional(),
});
