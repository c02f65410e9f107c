import { join } from "node:path";
import { readPrivate, writePrivate } from "../private-files.js";

const ADMIN_FILE = "admin-token";

/** The first administrator's token, for the command line and the demo on the same machine. */
export async function readAdminToken(dataDir: string): Promise<string | undefined> {
  return (await readPrivate(join(dataDir, ADMIN_FILE)))?.trim();
}

export async function writeAdminToken(dataDir: string, token: string): Promise<string> {
  const path = join(dataDir, ADMIN_FILE);
  await writePrivate(path, `${token}\n`);
  return path;
}
