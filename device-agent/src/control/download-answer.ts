import { FieldloopError } from "@fieldloop/protocol";
import type { Artifact } from "./download.js";
import type { HttpAnswer } from "./http-fetch.js";

/** How a try that failed is met. */
export interface AnswerVerdict {
  /** Another try may end otherwise. */
  readonly retry: boolean;
  /** What the server asked to wait, in milliseconds; 0 where it did not. */
  readonly retryAfterMs: number;
  /** The rest cannot be asked for, the whole may. */
  readonly refusesRanges: boolean;
}

type Detail = Partial<AnswerVerdict>;

/** A server's answer to the request for an artifact, or for its rest: from where its body goes on, and its parts. */
export class ArtifactAnswer {
  /** At `from`, or at 0 where the server sends the whole again (RFC 9110 section 14.2 allows it to). */
  readonly start: number;
  readonly #answer: HttpAnswer;
  readonly #chunks: AsyncIterator<Uint8Array>;

  /** @throws FieldloopError `download_failed`, to be judged by {@link verdictOf} */
  constructor(artifact: Artifact, answer: HttpAnswer, from: number) {
    const refusal = refusalOf(answer, artifact, from);
    if (refusal !== undefined) {
      answer.cancel();
      const [what, detail] = refusal;
      throw new FieldloopError("download_failed", `Download "${artifact.sha256}": ${what}`, {
        detail: detail as Record<string, unknown>,
      });
    }
    this.start = answer.status === 206 ? from : 0;
    this.#answer = answer;
    this.#chunks = answer.body[Symbol.asyncIterator]();
  }

  /** Undefined at its end. */
  async read(): Promise<Uint8Array | undefined> {
    const { done, value } = await this.#chunks.next();
    return done === true ? undefined : value;
  }

  cancel(): void {
    this.#answer.cancel();
  }

  static verdictOf(error: FieldloopError): AnswerVerdict {
    const detail: Detail = error.detail ?? {};
    const mayPass = error.code === "download_failed" || error.code === "download_too_slow";
    return {
      retry: mayPass && detail.retry !== false,
      retryAfterMs: detail.retryAfterMs ?? 0,
      refusesRanges: detail.refusesRanges ?? false,
    };
  }
}

/** Status codes that say "not now" (RFC 9110 section 15). */
const NOT_NOW: ReadonlySet<number> = new Set([408, 425, 429]);

function refusalOf(answer: HttpAnswer, artifact: Artifact, from: number): [string, Detail] | undefined {
  const { status, headers } = answer;
  if (status === 200) return undefined;
  if (status === 206) {
    const text = headers.get("content-range") ?? "";
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(text);
    const total = range?.[2];
    const fits = range && Number(range[1]) === from && (total === "*" || Number(total) === artifact.bytes);
    if (fits) return undefined;
    return [`the range "${text}" is not the one asked for`, { retry: from > 0, refusesRanges: true }];
  }
  const what = `the server answered ${status}`;
  if (status === 416) return [what, { retry: from > 0, refusesRanges: true }];
  const isFinal = status >= 400 && status < 500 && !NOT_NOW.has(status);
  return [what, { retry: !isFinal, retryAfterMs: secondsOf(headers.get("retry-after")) * 1_000 }];
}

/** A date in its place is not worth the trust in two clocks. */
function secondsOf(text: string | null): number {
  return text !== null && /^\d{1,6}$/.test(text) ? Number(text) : 0;
}
