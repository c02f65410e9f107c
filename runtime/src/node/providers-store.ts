import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { mkdir, open, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";
import { z } from "zod";
import type { ProviderChoice } from "./providers-types.js";

const choiceSchema = z.object({
  executionProvider: z.string(),
  variant: z.string(),
  works: z.boolean(),
  correct: z.boolean(),
  medianMs: z.number().nonnegative().nullable(),
  shares: z.record(z.string(), z.number()).nullable(),
  reason: z.object({ code: z.string(), message: z.string() }).optional(),
});
const rememberedSchema = z.object({ key: z.string(), choices: z.array(choiceSchema) });

/** What was found for a package, or undefined where nothing is known, the file is damaged, or it holds for another machine. */
export function readRemembered(directory: string, name: string, key: string): ProviderChoice[] | undefined {
  let text: string;
  try {
    text = readFileSync(fileOf(directory, name), "utf8");
  } catch {
    // Nothing was remembered, or it can't be read: probing again is always right.
    return undefined;
  }
  const parsed = rememberedSchema.safeParse(parseJson(text));
  if (!parsed.success || parsed.data.key !== key) return undefined;
  return parsed.data.choices.map(({ reason, ...choice }) => ({
    ...choice,
    ...(reason === undefined ? {} : { reason }),
  }));
}

/**
 * Writes what was found: temporary file, fsync, rename.
 * @throws FieldloopError `storage_failed`
 */
export async function remember(
  directory: string,
  name: string,
  key: string,
  choices: readonly ProviderChoice[],
): Promise<void> {
  const temporary = join(directory, `.${name}-${randomUUID()}.tmp`);
  try {
    await mkdir(directory, { recursive: true });
    const file = await open(temporary, "wx", 0o600);
    try {
      await file.writeFile(JSON.stringify({ key, choices }));
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, fileOf(directory, name));
  } catch (cause) {
    await rm(temporary, { force: true });
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FieldloopError("storage_failed", `Remember execution providers in "${directory}": ${reason}`, {
      cause,
    });
  }
}

function fileOf(directory: string, name: string): string {
  return join(directory, `${name}.json`);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
