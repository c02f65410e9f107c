import { z } from "zod";
import { LIMITS } from "../limits.js";
import { sha256Schema } from "../names.js";

/** One path segment or two (`golden/1.bin`): letters, digits, `._-`; no leading dot, no `..`, no absolute path. */
const FILE_NAME = /^(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\/)?[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$/;
export const fileNameSchema = z
  .string()
  .regex(FILE_NAME)
  .refine((name) => !name.includes(".."));

export const fileShape = {
  file: fileNameSchema,
  sha256: sha256Schema,
  bytes: z.int().min(0).max(LIMITS.packageFileBytesMax),
};
export const fileSchema = z.object(fileShape);
export type PackageFile = z.output<typeof fileSchema>;
