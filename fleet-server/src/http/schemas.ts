import { pageSchema, type Page } from "@fieldloop/protocol";
import { z } from "@hono/zod-openapi";
import { SERVER_LIMITS } from "../limits.js";
import type { Behind } from "../store/newest.js";

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

/** Cursor of a list that is newest first: `{milliseconds}.{id}` of the last one read. */
export const newestCursorSchema = z
  .string()
  .regex(/^\d{1,16}\.[a-z]{3}_[0-9a-z]{1,40}$/)
  .optional();

/** Where a list goes on; nothing for its first page. */
export function behindCursor(cursor: string | undefined): { before?: Behind } {
  if (cursor === undefined) return {};
  const [time, id] = cursor.split(".");
  return { before: { time: Number(time), id: id! } };
}

/** A page of a list that is newest first; a full one is followed by another. */
export function newestPage<Item>(items: Item[], limit: number, keyOf: (item: Item) => Behind): Page<Item> {
  const last = items.length === limit ? items.at(-1) : undefined;
  if (last === undefined) return { items, next: null };
  const { time, id } = keyOf(last);
  return { items, next: `${time}.${id}` };
}
