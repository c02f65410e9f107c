import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { FieldloopError, type DeploymentWaiting } from "@fieldloop/protocol";
import type { Clock, RandomSource } from "../clock.js";
import { AGENT_LIMITS } from "../limits.js";
import type { Bandwidth } from "./bandwidth.js";
import { sleep } from "./deployment-rules.js";
import { ArtifactAnswer } from "./download-answer.js";
import { DownloadRate, type RateTerms } from "./download-rate.js";
import type { Durable, PartFile } from "./durable.js";
import { reasonOf } from "./files.js";
import type { HttpFetch } from "./http-fetch.js";

/** Times of a download that a test makes shorter. */
export interface DownloadTerms extends RateTerms {
  readonly attemptsMax: number;
  readonly retryMinMs: number;
  readonly retryMaxMs: number;
}

export const DOWNLOAD_TERMS: DownloadTerms = {
  attemptsMax: AGENT_LIMITS.downloadAttemptsMax,
  retryMinMs: AGENT_LIMITS.downloadRetryMinMs,
  retryMaxMs: AGENT_LIMITS.downloadRetryMaxMs,
  stallMs: AGENT_LIMITS.downloadStallMs,
  bytesPerSecondMin: AGENT_LIMITS.downloadBytesPerSecondMin,
  windowMs: AGENT_LIMITS.downloadRateWindowMs,
};

export interface DownloadOptions {
  readonly server: string;
  readonly credential: string;
  readonly fetch: HttpFetch;
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly durable: Durable;
  readonly bandwidth: Bandwidth;
  readonly signal: AbortSignal;
  /** What it waits for at the moment: the day's budget, or a server to try again; undefined: it goes on. */
  readonly onWaiting?: ((waiting: DeploymentWaiting | undefined) => void) | undefined;
  /** Called every `downloadCheckBytes`; what it throws ends the download. */
  readonly onCheck?: (() => Promise<void>) | undefined;
  readonly terms?: Partial<DownloadTerms> | undefined;
}

export interface Artifact {
  readonly sha256: string;
  /** Its length as signed metadata or a manifest says; not a byte more is taken. */
  readonly bytes: number;
}

/** The day's budget is used up in the middle: the connection is given back, and the rest asked for when there is a budget again. */
class BudgetSpent extends Error {}

/**
 * Fetches `/artifacts/sha256/{hash}` into `path`, going on where an earlier try was cut (Range, RFC 9110 section 14).
 * Neither server nor proxy is trusted: length and hash decide. Returns the bytes that travelled now.
 * @throws FieldloopError `download_failed`, `download_too_slow`, `download_length_mismatch`, `package_hash_mismatch`, `storage_full`,
 * `storage_failed` or `cancelled`
 */
export async function downloadArtifact(
  artifact: Artifact,
  path: string,
  options: DownloadOptions,
): Promise<number> {
  return new Download(artifact, path, options).run();
}

class Download {
  readonly #artifact: Artifact;
  readonly #path: string;
  readonly #options: DownloadOptions;
  readonly #terms: DownloadTerms;
  readonly #rate: DownloadRate;
  #travelled = 0;
  /** The longest part so far: only beyond it there is progress. */
  #farthest = 0;
  /** Tries in a row without any progress, tries with next to none, and tries that were too slow. */
  #failures = 0;
  #drips = 0;
  #slow = 0;
  /** Whole files with another hash. */
  #mismatches = 0;
  #useRange = true;
  #sinceCheck = 0;

  constructor(artifact: Artifact, path: string, options: DownloadOptions) {
    this.#artifact = artifact;
    this.#path = path;
    this.#options = options;
    this.#terms = { ...DOWNLOAD_TERMS, ...options.terms };
    this.#rate = new DownloadRate(options.clock, this.#terms);
  }

  async run(): Promise<number> {
    const { signal, durable } = this.#options;
    this.#farthest = await sizeOf(this.#path);
    for (;;) {
      await this.#budget();
      if (signal.aborted) throw cancelled(signal);
      const before = await this.#resumeFrom();
      try {
        await this.#fetchRest(before);
        const hash = await hashFile(this.#path);
        if (hash === this.#artifact.sha256) return this.#travelled;
        await durable.remove("part_drop", this.#path);
        this.#farthest = 0;
        this.#mismatched(before, hash);
      } catch (error) {
        if (signal.aborted) throw cancelled(signal);
        if (error instanceof BudgetSpent) continue;
        await this.#failed(error, before);
      }
    }
  }

  /** Where a part is that is not too long; the whole again where the server refuses ranges. */
  async #resumeFrom(): Promise<number> {
    const have = await sizeOf(this.#path);
    if (have <= this.#artifact.bytes && this.#useRange) return have;
    await this.#options.durable.remove("part_drop", this.#path);
    return 0;
  }

  async #fetchRest(from: number): Promise<void> {
    const { server, credential, signal, durable } = this.#options;
    if (from === this.#artifact.bytes && from > 0) {
      // Whole, and perhaps not on the disk yet when the process was ended.
      const part = await durable.append(this.#path, "a");
      return finish(part);
    }
    const connection = new AbortController();
    const url = `${server}/artifacts/sha256/${this.#artifact.sha256}`;
    const headers = {
      authorization: `Bearer ${credential}`,
      ...(from > 0 ? { range: `bytes=${from}-` } : {}),
      // What a proxy kept had another hash: ask the server itself.
      ...(this.#mismatches > 0 ? { "cache-control": "no-cache" } : {}),
    };
    const both = AbortSignal.any([signal, connection.signal]);
    try {
      const asked = this.#options.fetch(url, { headers, signal: both });
      // Where it comes too late nobody waits for it any more.
      asked.catch(() => undefined);
      const response = await this.#rate.next(() => asked);
      if (response === "stalled") throw this.#stalled();
      const answer = new ArtifactAnswer(this.#artifact, response, from);
      await this.#take(answer);
    } finally {
      connection.abort();
    }
  }

  async #take(answer: ArtifactAnswer): Promise<void> {
    const { signal, bandwidth } = this.#options;
    let at = answer.start;
    const part = await this.#options.durable.append(this.#path, at === 0 ? "w" : "a");
    try {
      for (;;) {
        const read = await this.#rate.next(() => answer.read());
        if (read === "stalled") throw this.#stalled();
        if (read === undefined) break;
        const bytes = read;
        at += bytes.length;
        if (at > this.#artifact.bytes) throw this.#tooLong();
        await part.write(bytes);
        this.#travelled += bytes.length;
        bandwidth.take("download", bytes.length);
        if (at < this.#artifact.bytes && this.#rate.isTooSlow(bytes.length)) throw this.#tooSlow();
        await this.#check(part, bytes.length);
        if (bandwidth.downloadsResumeAt !== undefined && at < this.#artifact.bytes) throw new BudgetSpent();
        await bandwidth.downloadReady(signal);
        if (signal.aborted) throw cancelled(signal);
      }
      if (at < this.#artifact.bytes)
        throw failed(this.#artifact, `cut after ${at} of ${this.#artifact.bytes} bytes`);
    } finally {
      answer.cancel();
      await finish(part);
    }
  }

  /** Every now and then what came is made sure of, and the caller asked whether to go on. */
  async #check(part: PartFile, bytes: number): Promise<void> {
    this.#sinceCheck += bytes;
    if (this.#sinceCheck < AGENT_LIMITS.downloadCheckBytes) return;
    this.#sinceCheck = 0;
    await part.sync();
    await this.#options.onCheck?.();
  }

  /** Waits while the day's budget is used up. */
  async #budget(): Promise<void> {
    const { bandwidth, signal, onWaiting } = this.#options;
    const until = bandwidth.downloadsResumeAt;
    if (until === undefined) return;
    onWaiting?.({ reason: "budget", until });
    await bandwidth.downloadReady(signal);
    onWaiting?.(undefined);
  }

  #mismatched(from: number, hash: string): void {
    const error = new FieldloopError(
      "package_hash_mismatch",
      `Download "${this.#artifact.sha256}": what arrived has the hash "${hash}"`,
    );
    // A resumed file may mix two answers, or hold what a power cut left of it; one fetched in one go is what the server, or a proxy, has.
    if (from === 0) this.#mismatches++;
    else this.#failures++;
    if (this.#mismatches >= AGENT_LIMITS.downloadMismatchesMax) throw error;
    if (this.#failures >= this.#terms.attemptsMax) throw error;
  }

  /** Waits for the next try. @throws FieldloopError where there is none */
  async #failed(error: unknown, before: number): Promise<void> {
    const coded = error instanceof FieldloopError ? error : failed(this.#artifact, reasonOf(error), error);
    const { retry, retryAfterMs, refusesRanges } = ArtifactAnswer.verdictOf(coded);
    if (!retry) throw coded;
    if (refusesRanges && before > 0) this.#useRange = false;
    const size = await sizeOf(this.#path);
    const progress = size - Math.max(this.#farthest, before);
    this.#farthest = Math.max(this.#farthest, size);
    this.#failures = progress > 0 ? 0 : this.#failures + 1;
    if (progress < AGENT_LIMITS.downloadProgressBytesMin) this.#drips++;
    if (coded.code === "download_too_slow") this.#slow++;
    const { attemptsMax, retryMinMs, retryMaxMs } = this.#terms;
    const isOver =
      this.#failures >= attemptsMax ||
      this.#drips >= AGENT_LIMITS.downloadDripsMax ||
      this.#slow >= AGENT_LIMITS.downloadSlowMax;
    if (isOver) throw coded;
    const limitMs = Math.min(retryMaxMs, retryMinMs * 2 ** this.#failures);
    const waitMs = Math.max(
      limitMs * (0.5 + 0.5 * this.#options.random()),
      Math.min(retryAfterMs, retryMaxMs),
    );
    await this.#backOff(waitMs, coded);
  }

  async #backOff(waitMs: number, { code }: FieldloopError): Promise<void> {
    const { signal, clock, onWaiting } = this.#options;
    onWaiting?.({ reason: "server", until: Math.round(clock.now() + waitMs), code });
    await sleep(waitMs, signal);
    onWaiting?.(undefined);
    if (signal.aborted) throw cancelled(signal);
  }

  #stalled(): FieldloopError {
    return failed(this.#artifact, `nothing arrived for ${this.#terms.stallMs} ms`);
  }
  #tooSlow(): FieldloopError {
    const { bytesPerSecondMin, windowMs } = this.#terms;
    return new FieldloopError(
      "download_too_slow",
      `Download "${this.#artifact.sha256}": less than ${bytesPerSecondMin} bytes a second over ${windowMs} ms`,
    );
  }
  #tooLong(): FieldloopError {
    return new FieldloopError(
      "download_length_mismatch",
      `Download "${this.#artifact.sha256}": more than the ${this.#artifact.bytes} bytes announced`,
    );
  }
}

/** What was written is on the disk, also where the rest did not come. */
async function finish(part: PartFile): Promise<void> {
  try {
    await part.sync();
  } finally {
    await part.close();
  }
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

/** The abort's own reason where it is a coded error (a timeout of the state), else `cancelled`. */
export function cancelled(signal: AbortSignal): FieldloopError {
  const reason: unknown = signal.reason;
  return reason instanceof FieldloopError ? reason : new FieldloopError("cancelled", "Deployment: cancelled");
}

function failed(artifact: Artifact, what: string, cause?: unknown): FieldloopError {
  return new FieldloopError("download_failed", `Download "${artifact.sha256}": ${what}`, { cause });
}
