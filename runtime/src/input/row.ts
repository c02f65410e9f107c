import { FieldloopError } from "@fieldloop/protocol";
import { z } from "zod";
import type { RowFrame } from "./frame.js";
import { INPUT_LIMITS } from "./limits.js";

const rowSchema = z
  .record(z.string().max(256), z.union([z.number(), z.string().max(4096), z.boolean(), z.null()]))
  .refine((row) => Object.keys(row).length <= INPUT_LIMITS.rowColumnsMax, "too many columns");

/**
 * The row that a JSON object in UTF-8 is: as it is pushed, and as a sample of it is stored.
 * @throws FieldloopError `row_malformed`; `limit_exceeded` above {@link INPUT_LIMITS.rowBytesMax}
 */
export function parseRow(bytes: Uint8Array): RowFrame {
  if (bytes.length > INPUT_LIMITS.rowBytesMax) {
    throw new FieldloopError(
      "limit_exceeded",
      `Read row: ${bytes.length} bytes, at most ${INPUT_LIMITS.rowBytesMax}`,
    );
  }
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new FieldloopError("row_malformed", "Read row: it is no JSON text in UTF-8", { cause });
  }
  const parsed = rowSchema.safeParse(value);
  if (parsed.success) return { kind: "row", values: parsed.data };
  const issue = parsed.error.issues[0]!;
  throw new FieldloopError(
    "row_malformed",
    `Read row: ${issue.path.join(".") || "object"}: ${issue.message}`,
  );
}

/** The bytes that {@link parseRow} reads. */
export function formatRow(row: RowFrame): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(row.values));
}
