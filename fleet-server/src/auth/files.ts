import { randomBytes } from "node:crypto";
import { chmod, open, readFile, rename, stat } from "node:fs/promises";
import { join } from "node:path";
import {
  FieldloopError,
  createSigningKey,
  fromHex,
  keyIdOf,
  toHex,
  type SigningKey,
} from "@fieldloop/protocol";
import { ed25519 } from "./keys.js";

const KEY_FILE = "fleet-key.json";
const ADMIN_FILE = "admin-token";

/**
 * The key that signs desired states, commands and packages: made at the first start, readable by the server's user only.
 * @throws FieldloopError `storage_failed` for a file that others can read or that does not parse; it is never replaced
 */
export async function loadSigningKey(dataDir: string): Promise<SigningKey> {
  const path = join(dataDir, KEY_FILE);
  const text = await readPrivate(path);
  if (text === undefined) {
    const key = createSigningKey((length) => randomBytes(length));
    await writePrivate(path, `${JSON.stringify({ keyId: key.keyId, secretKey: toHex(key.secretKey) })}\n`);
    return key;
  }
  try {
    const { secretKey } = JSON.parse(text) as { secretKey: string };
    const seed = fromHex(secretKey);
    if (seed.length !== 32) throw new Error(`${seed.length} bytes of seed, wanted 32`);
    const publicKey = ed25519(seed);
    return { keyId: keyIdOf(publicKey), publicKey, secretKey: seed };
  } catch (cause) {
    throw new FieldloopError("storage_failed", `Read signing key: "${path}" holds no key`, { cause });
  }
}

/** The first administrator's token, for the command line and the demo on the same machine. */
export async function readAdminToken(dataDir: string): Promise<string | undefined> {
  return (await readPrivate(join(dataDir, ADMIN_FILE)))?.trim();
}

export async function writeAdminToken(dataDir: string, token: string): Promise<string> {
  const path = join(dataDir, ADMIN_FILE);
  await writePrivate(path, `${token}\n`);
  return path;
}

async function readPrivate(path: string): Promise<string | undefined> {
  try {
    const { mode } = await stat(path);
    if (process.platform !== "win32" && (mode & 0o077) !== 0) {
      throw new FieldloopError(
        "storage_failed",
        `Read secret: "${path}" has mode ${(mode & 0o777).toString(8)}, wanted 600`,
      );
    }
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

async function writePrivate(path: string, text: string): Promise<void> {
  const temporary = `${path}.new`;
  const file = await open(temporary, "w", 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await chmod(temporary, 0o600);
  await rename(temporary, path);
}
