import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, stat } from "node:fs/promises";
import { FieldloopError } from "@fieldloop/protocol";
import type { RandomSource } from "../clock.js";
import { AGENT_LIMITS } from "../limits.js";
import { reasonOf, unlinkIfThere } from "./files.js";

export interface DownloadOptions {
  readonly server: string;
  readonly credential: string;
  readonly fetch: typeof fetch;
  readonly random: RandomSource;
  readonly signal: AbortSignal;
  readonly stallMs?: number;
}

export interface Artifact {
  readonly sha256: string;
  /** Its length as a signed statement or manifest says; not a byte more is taken. */
  readonly bytes: number;
}

/** An answer that another try would not change. */
class Refused extends FieldloopError {}

/**
 * Fetches `/artifacts/sha256/{hash}` into `path`, going on where an earlier try was cut (Range, RFC 9110 section 14).
 * Neither server nor proxy is trusted: length and hash decide. Returns the bytes that travelled now.
 * @throws FieldloopError `download_failed`, `download_length_mismatch`, `package_hash_mismatch`, `storage_failed` or `cancelled`
 */
export async function downloadArtifact(
  artifact: Artifact,
  path: string,
  options: DownloadOptions,
): Promise<number> {
  let travelled = 0;
  let lastError: FieldloopError | undefined;
  for (let attempt = 0; attempt < AGENT_LIMITS.downloadAttemptsMax; attempt++) {
    if (attempt > 0) await backOff(attempt, options);
    const before = await sizeOf(path);
    try {
      await fetchRest(artifact, path, before, options, (bytes) => (travelled += bytes));
      const hash = await hashFile(path);
      if (hash === artifact.sha256) return travelled;
      await unlinkIfThere(path);
      lastError = new FieldloopError(
        "package_hash_mismatch",
        `Download "${artifact.sha256}": what arrived has the hash "${hash}"`,
      );
      // A resumed file may mix two answers; a file fetched in one go that differs is what the server has.
      if (before === 0) throw lastError;
    } catch (error) {
      if (options.signal.aborted) throw cancelled(options.signal);
      const coded = error instanceof FieldloopError ? error : failed(artifact, reasonOf(error), error);
      if (coded instanceof Refused || coded.code !== "download_failed") throw coded;
      lastError = coded;
      // Progress makes a slow link a success in the end: only tries without any count.
      if ((await sizeOf(path)) > before) attempt = -1;
    }
  }
  throw lastError ?? failed(artifact, "no try left", undefined);
}

async function fetchRest(
  artifact: Artifact,
  path: string,
  have: number,
  options: DownloadOptions,
  onBytes: (bytes: number) => void,
): Promise<void> {
  if (have === artifact.bytes && have > 0) return;
  if (have > artifact.bytes) await unlinkIfThere(path);
  const from = have > artifact.bytes ? 0 : have;
  const stall = new AbortController();
  const stallMs = options.stallMs ?? AGENT_LIMITS.downloadStallMs;
  let timer = setTimeout(() => stall.abort(), stallMs);
  try {
    const response = await options.fetch(`${options.server}/artifacts/sha256/${artifact.sha256}`, {
      headers: {
        authorization: `Bearer ${options.credential}`,
        ...(from > 0 ? { range: `bytes=${from}-` } : {}),
      },
      redirect: "error",
      signal: AbortSignal.any([options.signal, stall.signal]),
    });
    const start = checkStatus(artifact, response, from);
    if (!response.body) throw failed(artifact, "an answer without a body", undefined);
    const handle = await open(path, start === 0 ? "w" : "a", 0o600);
    let at = start;
    try {
      for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
        clearTimeout(timer);
        timer = setTimeout(() => stall.abort(), stallMs);
        at += chunk.length;
        if (at > artifact.bytes) {
          throw new FieldloopError(
            "download_length_mismatch",
            `Download "${artifact.sha256}": more than the ${artifact.bytes} bytes announced`,
          );
        }
        await handle.writeFile(chunk);
        onBytes(chunk.length);
      }
      await handle.sync();
    } finally {
      await handle.close();
    }
    if (at < artifact.bytes) throw failed(artifact, `cut after ${at} of ${artifact.bytes} bytes`, undefined);
  } catch (error) {
    if (stall.signal.aborted) throw failed(artifact, `nothing arrived for ${stallMs} ms`, error);
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** Where the body begins: at `from`, or at 0 where the server sends the whole again. */
function checkStatus(artifact: Artifact, response: Response, from: number): number {
  if (response.status === 200) return 0;
  if (response.status === 206) {
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get("content-range") ?? "");
    const total = range?.[2];
    if (range && Number(range[1]) === from && (total === "*" || Number(total) === artifact.bytes))
      return from;
    throw new FieldloopError(
      "download_length_mismatch",
      `Download "${artifact.sha256}": the range "${response.headers.get("content-range") ?? ""}" is not the one asked for`,
    );
  }
  void response.body?.cancel().catch(() => undefined);
  const text = `the server answered ${response.status}`;
  const isFinal =
    response.status >= 400 && response.status < 500 && ![408, 425, 429].includes(response.status);
  if (isFinal) throw new Refused("download_failed", `Download "${artifact.sha256}": ${text}`);
  throw failed(artifact, text, undefined);
}

export async function hashFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

async function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    (info) => info.size,
    () => 0,
  );
}

async function backOff(attempt: number, options: DownloadOptions): Promise<void> {
  const limitMs = Math.min(AGENT_LIMITS.downloadRetryMaxMs, AGENT_LIMITS.downloadRetryMinMs * 2 ** attempt);
  const waitMs = limitMs * (0.5 + 0.5 * options.random());
  await new Promise<void>((resolve) => {
    const timer = setTimeout(done, waitMs);
    options.signal.addEventListener("abort", done, { once: true });
    function done(): void {
      clearTimeout(timer);
      options.signal.removeEventListener("abort", done);
      resolve();
    }
  });
  if (options.signal.aborted) throw cancelled(options.signal);
}

/** The abort's own reason where it is a coded error (a timeout of the state), else `cancelled`. */
export function cancelled(signal: AbortSignal): FieldloopError {
  const reason: unknown = signal.reason;
  return reason instanceof FieldloopError ? reason : new FieldloopError("cancelled", "Download: cancelled");
}

function failed(artifact: Artifact, what: string, cause: unknown): FieldloopError {
  return new FieldloopError("download_failed", `Download "${artifact.sha256}": ${what}`, { cause });
}
