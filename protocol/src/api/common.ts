import { z } from "zod";
import { ERROR_CODES, type ErrorCode } from "../errors.js";

/** RFC 9457 problem details; `code` is the stable one of the error table. */
export const problemSchema = z.object({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  code: z.enum(Object.keys(ERROR_CODES) as [ErrorCode, ...ErrorCode[]]),
  detail: z.string(),
  /** Fields of the body or query that were refused. */
  issues: z.array(z.object({ path: z.string(), message: z.string() })).optional(),
});
export type Problem = z.output<typeof problemSchema>;

export const ROLES = ["viewer", "labeler", "operator", "admin"] as const;
export type Role = (typeof ROLES)[number];

/** A page of a list; `next` is the cursor of the following page, null on the last. */
export function pageSchema<Item extends z.ZodType>(item: Item) {
  return z.object({ items: z.array(item), next: z.string().nullable() });
}
export interface Page<Item> {
  items: Item[];
  next: string | null;
}

/** A share with its 95 % Wilson interval and what it was counted from. */
export const proportionSchema = z.object({
  value: z.number().min(0).max(1).nullable(),
  low: z.number(),
  high: z.number(),
  successes: z.int(),
  count: z.int(),
});
export type Proportion = z.output<typeof proportionSchema>;
