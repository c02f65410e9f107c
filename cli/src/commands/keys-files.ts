import { open, readFile } from "node:fs/promises";
import { createInterface } from "node:readline/promises";
import { Writable } from "node:stream";
import { FieldloopError, LIMITS } from "@fieldloop/protocol";
import type { z } from "zod";

/** @throws FieldloopError `not_found`, `limit_exceeded` */
export async function readText(path: string, what: string): Promise<string> {
  try {
    const bytes = await readFile(path);
    if (bytes.length > LIMITS.signingRequestBytesMax) {
      throw new FieldloopError(
        "limit_exceeded",
        `Read ${what}: "${path}" has ${bytes.length} bytes, at most ${LIMITS.signingRequestBytesMax}`,
      );
    }
    return bytes.toString("utf8");
  } catch (cause) {
    if (cause instanceof FieldloopError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FieldloopError("not_found", `Read ${what}: ${reason}`, { cause });
  }
}

/** @throws FieldloopError `invalid_argument` for anything but JSON of this form */
export async function readForm<Schema extends z.ZodType>(
  path: string,
  schema: Schema,
  what: string,
): Promise<z.output<Schema>> {
  const text = await readText(path, what);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new FieldloopError("invalid_argument", `Read ${what}: "${path}" is not JSON`, { cause });
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new FieldloopError(
    "invalid_argument",
    `Read ${what}: "${path}" is none (${issue?.path.join(".") || "form"}: ${issue?.message})`,
  );
}

/** Never over a file that is there. @throws FieldloopError `already_exists`, `storage_failed` */
export async function writeNew(path: string, text: string, mode = 0o644): Promise<void> {
  try {
    const file = await open(path, "wx", mode);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
  } catch (cause) {
    const exists = cause instanceof Error && "code" in cause && cause.code === "EEXIST";
    const reason = exists ? "it exists" : cause instanceof Error ? cause.message : String(cause);
    throw new FieldloopError(exists ? "already_exists" : "storage_failed", `Write "${path}": ${reason}`, {
      cause,
    });
  }
}

/**
 * From a file, the environment, or the terminal.
 * @param twice asked for a second time, so that a slip does not close a key for ever
 * @returns undefined where there is no terminal to ask at
 */
export async function findPassphrase(
  file: string | undefined,
  question: string,
  twice: boolean,
): Promise<string | undefined> {
  if (file !== undefined) return (await readText(file, "passphrase")).split(/\r?\n/, 1)[0]!;
  const given = process.env.FIELDLOOP_KEY_PASSPHRASE;
  if (given) return given;
  if (!process.stdin.isTTY) return undefined;
  const passphrase = await askHidden(`${question}: `);
  if (!twice) return passphrase;
  if (passphrase.length < 12) {
    throw new FieldloopError(
      "invalid_argument",
      "Make key: a passphrase of at least 12 characters is wanted",
    );
  }
  if ((await askHidden("again: ")) === passphrase) return passphrase;
  throw new FieldloopError("invalid_argument", "Make key: the two passphrases differ");
}

/** @returns false where there is no terminal to ask at */
export async function confirm(question: string): Promise<boolean> {
  if (!process.stdin.isTTY) return false;
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return /^y(es)?$/i.test((await terminal.question(`${question} [y/N] `)).trim());
  } finally {
    terminal.close();
  }
}

async function askHidden(question: string): Promise<string> {
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() });
  const terminal = createInterface({ input: process.stdin, output: silent, terminal: true });
  process.stderr.write(question);
  try {
    return await terminal.question("");
  } finally {
    terminal.close();
    process.stderr.write("\n");
  }
}
