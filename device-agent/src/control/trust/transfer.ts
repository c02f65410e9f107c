import { FieldloopError } from "@fieldloop/protocol";
import type { Clock, RandomSource } from "../../clock.js";
import { AGENT_LIMITS } from "../../limits.js";
import { reasonOf } from "../files.js";
import type { HttpAnswer, HttpFetch } from "../http-fetch.js";
import { RateGuard } from "./rate-guard.js";

/** Where a transfer puts what arrives. */
export interface Sink {
  /** Bytes that are in it. */
  readonly length: number;
  append(chunk: Uint8Array): Promise<void>;
  /** Begins anew: the sender has changed what it sends. */
  clear(): Promise<void>;
}

export interface TransferLimits {
  readonly attemptsMax: number;
  readonly retryMinMs: number;
  readonly retryMaxMs: number;
  readonly stallMs: number;
  readonly rateWindowMs: number;
  readonly rateBytesPerSecondMin: number;
  readonly progressBytesMin: number;
}

/** Of metadata and targets of the trust repository. */
export const TRUST_TRANSFER: TransferLimits = {
  attemptsMax: AGENT_LIMITS.trustAttemptsMax,
  retryMinMs: AGENT_LIMITS.downloadRetryMinMs,
  retryMaxMs: AGENT_LIMITS.downloadRetryMaxMs,
  stallMs: AGENT_LIMITS.trustStallMs,
  rateWindowMs: AGENT_LIMITS.trustRateWindowMs,
  rateBytesPerSecondMin: AGENT_LIMITS.trustRateBytesPerSecondMin,
  progressBytesMin: AGENT_LIMITS.trustProgressBytesMin,
};

export interface TransferOptions {
  readonly fetch: HttpFetch;
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly signal: AbortSignal;
  readonly headers?: Readonly<Record<string, string>>;
  readonly limits?: Partial<TransferLimits>;
  /** The device's shared bandwidth budget: resolves when `bytes` more may be taken. Its waiting is not the sender's slowness. */
  readonly budget?: (bytes: number, signal: AbortSignal) => Promise<void>;
  /** What the sink holds from an earlier try is checked by its hash afterwards, so no validator is needed to go on with it. */
  readonly hashed?: boolean;
}

/** The server answered, with a status that another try would not change. */
export class AnsweredStatus extends FieldloopError {
  readonly statusCode: number;

  constructor(url: string, statusCode: number) {
    super(
      statusCode === 401 ? "unauthenticated" : "trust_unreachable",
      `Fetch "${url}": the server answered ${statusCode}`,
    );
    this.statusCode = statusCode;
  }
}

/** A try that failed so that another one may succeed. */
class Broken extends FieldloopError {}

/**
 * Fetches `url` into `sink`: at most `bytesMax` bytes (endless data), not slower than the least rate (slow retrieval), going on where a
 * try was cut (Range and If-Range, RFC 9110 sections 13.1.5 and 14). Who sends is not trusted: what arrived is verified by the caller.
 * @throws FieldloopError `trust_metadata_too_large`, `download_too_slow`, `trust_unreachable`, `unauthenticated`, `storage_failed`, the
 * signal's reason or `cancelled`; {@link AnsweredStatus} where the server refused
 */
export async function transfer(
  url: string,
  bytesMax: number,
  sink: Sink,
  options: TransferOptions,
): Promise<void> {
  const limits = { ...TRUST_TRANSFER, ...options.limits };
  const rate = new RateGuard(options.clock, limits);
  const state: ResumeState = { etag: undefined };
  for (let attempt = 0; ; attempt++) {
    if (attempt > 0) await backOff(attempt, limits, options);
    const before = sink.length;
    try {
      return await transferOnce(url, bytesMax, sink, options, { limits, rate, state });
    } catch (error) {
      if (options.signal.aborted) throw stopped(options.signal);
      if (!(error instanceof Broken)) throw error;
      // Progress makes a poor link a success in the end. A few bytes a try are none: an attacker could go on so for ever.
      if (sink.length - before >= limits.progressBytesMin) attempt = 0;
      else if (attempt + 1 >= limits.attemptsMax) throw error;
    }
  }
}

interface ResumeState {
  /** Of the answer that filled the sink; only a strong one can be gone on with. */
  etag: string | undefined;
}

interface Attempt {
  readonly limits: TransferLimits;
  readonly rate: RateGuard;
  readonly state: ResumeState;
}

async function transferOnce(
  url: string,
  bytesMax: number,
  sink: Sink,
  options: TransferOptions,
  { limits, rate, state }: Attempt,
): Promise<void> {
  const stall = new AbortController();
  let timer = setTimeout(() => stall.abort(), limits.stallMs);
  const signal = AbortSignal.any([options.signal, stall.signal]);
  try {
    if (sink.length > 0 && state.etag === undefined && !options.hashed) await sink.clear();
    const response = await options.fetch(url, {
      headers: { ...options.headers, "accept-encoding": "identity", ...resumeHeaders(sink, state) },
      signal,
    });
    const total = await begin(url, response, sink, state, bytesMax);
    for await (const chunk of response.body) {
      clearTimeout(timer);
      if (sink.length + chunk.length > bytesMax) throw tooLarge(url, bytesMax);
      if (options.budget) await rate.excluding(() => options.budget!(chunk.length, options.signal));
      await rate.excluding(() => sink.append(chunk));
      rate.note(url, chunk.length);
      timer = setTimeout(() => stall.abort(), limits.stallMs);
    }
    if (total !== undefined && sink.length < total) {
      throw new Broken("trust_unreachable", `Fetch "${url}": cut after ${sink.length} of ${total} bytes`);
    }
  } catch (error) {
    if (error instanceof FieldloopError) throw error;
    const what = stall.signal.aborted ? `nothing arrived for ${limits.stallMs} ms` : reasonOf(error);
    throw new Broken("trust_unreachable", `Fetch "${url}": ${what}`, { cause: error });
  } finally {
    clearTimeout(timer);
    // The rest of an answer that was left must not keep its connection.
    stall.abort();
  }
}

function resumeHeaders(sink: Sink, { etag }: ResumeState): Record<string, string> {
  if (sink.length === 0) return {};
  return { range: `bytes=${sink.length}-`, ...(etag === undefined ? {} : { "if-range": etag }) };
}

/** Checks status and length, makes the sink ready, and returns the length of the whole where the server says it. */
async function begin(
  url: string,
  response: HttpAnswer,
  sink: Sink,
  state: ResumeState,
  bytesMax: number,
): Promise<number | undefined> {
  if (response.status === 206) {
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get("content-range") ?? "");
    if (range && Number(range[1]) === sink.length) {
      const total = range[2] === "*" ? undefined : Number(range[2]);
      if (total !== undefined && total > bytesMax) throw tooLarge(url, bytesMax);
      return total;
    }
    await sink.clear();
    throw new Broken("trust_unreachable", `Fetch "${url}": another range than was asked for`);
  }
  if (response.status === 416) {
    await sink.clear();
    throw new Broken("trust_unreachable", `Fetch "${url}": it is shorter than what was there of it`);
  }
  if (response.status !== 200) throw refusedStatus(url, response.status);
  if (sink.length > 0) await sink.clear();
  const etag = response.headers.get("etag") ?? undefined;
  state.etag = etag?.startsWith('"') ? etag : undefined;
  const length = response.headers.get("content-length");
  if (length === null) return undefined;
  if (Number(length) > bytesMax) throw tooLarge(url, bytesMax);
  return Number(length);
}

function refusedStatus(url: string, status: number): FieldloopError {
  const isFinal = status >= 300 && status < 500 && ![408, 425, 429].includes(status);
  if (isFinal) return new AnsweredStatus(url, status);
  return new Broken("trust_unreachable", `Fetch "${url}": the server answered ${status}`);
}

function tooLarge(url: string, bytesMax: number): FieldloopError {
  return new FieldloopError("trust_metadata_too_large", `Fetch "${url}": more than ${bytesMax} bytes`);
}

async function backOff(attempt: number, limits: TransferLimits, options: TransferOptions): Promise<void> {
  const limitMs = Math.min(limits.retryMaxMs, limits.retryMinMs * 2 ** attempt);
  const waitMs = limitMs * (0.5 + 0.5 * options.random());
  const { signal } = options;
  await new Promise<void>((resolve) => {
    const timer = setTimeout(done, signal.aborted ? 0 : waitMs);
    signal.addEventListener("abort", done, { once: true });
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
  });
  if (signal.aborted) throw stopped(signal);
}

/** The abort's own reason where it is a coded error (a timeout of a state), else `cancelled`. */
export function stopped(signal: AbortSignal): FieldloopError {
  const reason: unknown = signal.reason;
  return reason instanceof FieldloopError
    ? reason
    : new FieldloopError("cancelled", "Fetch trust data: cancelled");
}
