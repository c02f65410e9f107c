import { readFile } from "node:fs/promises";
import { FieldloopError } from "@fieldloop/protocol";
import { codeOf, reasonOf } from "../../control/files.js";
import type { SourceLogin } from "../../source-spec.js";

export interface Login {
  readonly username: string;
  readonly password: string;
}

const LOGIN_BYTES_MAX = 4_096;

/** Reads the file with `user:password` at each opening, so that a new password needs no restart. @throws FieldloopError `source_failed` */
export async function readLogin(spec: SourceLogin): Promise<Login | undefined> {
  if (spec.loginPath === undefined) {
    if (spec.username === undefined && spec.password === undefined) return undefined;
    return { username: spec.username ?? "", password: spec.password ?? "" };
  }
  let text: string;
  try {
    text = await readFile(spec.loginPath, "utf8");
  } catch (cause) {
    const what = codeOf(cause) ?? reasonOf(cause);
    throw new FieldloopError("source_failed", `Read login "${spec.loginPath}": ${what}`, { cause });
  }
  const line = text.split("\n")[0]!.trimEnd();
  const colon = line.indexOf(":");
  if (colon < 1 || line.length > LOGIN_BYTES_MAX) {
    throw new FieldloopError(
      "source_failed",
      `Read login "${spec.loginPath}": wanted one line user:password`,
    );
  }
  return { username: line.slice(0, colon), password: line.slice(colon + 1) };
}

/** The URL with both in it, percent-encoded so that nothing ends a quoted text. */
export function withLogin(url: string, login: Login): string {
  const encode = (text: string): string => encodeURIComponent(text).replaceAll("'", "%27");
  return url.replace("//", `//${encode(login.username)}:${encode(login.password)}@`);
}
