import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { manifestFiles } from "@fieldloop/protocol";
import { makeDeltaOf } from "@fieldloop/runtime/delta";
import type { HttpAnswer, HttpFetch, HttpRequest } from "@fieldloop/device-agent";
import type { ModelPackage } from "@fieldloop/runtime/node";

/** What a server, or something on the way to it, does to one answer. `from` is where the body begins; undefined: as an honest one. */
export type Answer = (bytes: Uint8Array, from: number, request: number) => Response | undefined;

/**
 * An artifact server without sockets: what it answers is a real `Response`, whole or a range. Thousands of downloads a
 * minute, each cut or harmed where a test wants it.
 */
export class MemoryServer {
  /** Answers that are not honest, by the hash of the artifact. */
  readonly answers = new Map<string, Answer>();
  /** Whether it has deltas, and what it does to them: made when they are asked for, whatever they save. */
  deltas: "none" | "honest" | ((delta: Uint8Array) => Uint8Array) = "none";
  requests = 0;
  bytesSent = 0;
  #later: Answer | undefined;
  readonly #artifacts: Map<string, Uint8Array>;

  constructor(artifacts: ReadonlyMap<string, Uint8Array>) {
    this.#artifacts = new Map(artifacts);
  }

  /** For every artifact, until the next call. */
  answerAll(answer: Answer | undefined): void {
    this.answers.clear();
    if (answer) for (const sha256 of this.#artifacts.keys()) this.answers.set(sha256, answer);
  }

  /** For an artifact that is not there yet, by its content. */
  answerLater(answer: Answer): void {
    this.#later = answer;
  }

  readonly fetch: HttpFetch = (url, request) => Promise.resolve(answerOf(this.#answer(url, request)));

  #answer(url: string, { headers = {} }: HttpRequest = {}): Response {
    this.requests++;
    const pair = /\/artifacts\/delta\/([0-9a-f]{64})\/([0-9a-f]{64})$/.exec(url);
    if (pair) return this.#delta(pair[1]!, pair[2]!);
    const sha256 = /\/artifacts\/sha256\/([0-9a-f]{64})$/.exec(url)?.[1] ?? "";
    const bytes = this.#artifacts.get(sha256);
    if (!bytes) return new Response(null, { status: 404 });
    const from = Number(/^bytes=(\d+)-$/.exec(headers["range"] ?? "")?.[1] ?? 0);
    this.bytesSent += bytes.length - from;
    return (this.answers.get(sha256) ?? this.#later)?.(bytes, from, this.requests) ?? partOf(bytes, from);
  }

  /** What `HEAD` says: the delta itself is an artifact. */
  #delta(from: string, to: string): Response {
    const [base, target] = [this.#artifacts.get(from), this.#artifacts.get(to)];
    if (this.deltas === "none" || !base || !target) return new Response(null, { status: 404 });
    const made = makeDeltaOf(base, target)!;
    const delta = this.deltas === "honest" ? made : this.deltas(made);
    const sha256 = createHash("sha256").update(delta).digest("hex");
    this.#artifacts.set(sha256, delta);
    const headers = { etag: `"${sha256}"`, "fieldloop-delta-bytes": String(delta.length) };
    return new Response(null, { status: 200, headers });
  }
}

/** Every file of these packages, by its hash. */
export async function artifactsOf(packages: readonly ModelPackage[]): Promise<Map<string, Uint8Array>> {
  const artifacts = new Map<string, Uint8Array>();
  for (const made of packages) {
    artifacts.set(made.packageSha256, made.manifestBytes);
    for (const { file, sha256 } of manifestFiles(made.manifest)) {
      artifacts.set(sha256, new Uint8Array(await readFile(join(made.dir, file))));
    }
  }
  return artifacts;
}

/** What an honest server says; the body ends after `until` bytes of the file where that is given, as when the connection is cut. */
export function partOf(bytes: Uint8Array, from: number, until = bytes.length): Response {
  const headers: Record<string, string> =
    from === 0 ? {} : { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` };
  let at = from;
  const body = new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        const end = Math.min(at + CHUNK_BYTES, until);
        if (at < end) {
          controller.enqueue(new Uint8Array(bytes.subarray(at, end)));
          at = end;
        } else if (until < bytes.length) controller.error(new Error("the connection was cut"));
        else controller.close();
      },
    },
    // Nothing is made before it is asked for: an error would take what waits with it.
    { highWaterMark: 0 },
  );
  return new Response(body, { status: from === 0 ? 200 : 206, headers });
}

/** As a client of the agent gives it. */
function answerOf({ status, headers, body }: Response): HttpAnswer {
  const reader = body?.getReader();
  return {
    status,
    headers,
    body: chunksOf(reader),
    cancel: () => void reader?.cancel().catch(() => undefined),
  };
}

async function* chunksOf(
  reader: ReadableStreamDefaultReader<Uint8Array> | undefined,
): AsyncGenerator<Uint8Array, void> {
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true, value: undefined };
    if (done || value === undefined) return;
    yield value;
  }
}

const CHUNK_BYTES = 16 * 1024;
