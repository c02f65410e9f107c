import { on } from "node:events";
import { request as requestPlain, type IncomingMessage } from "node:http";
import { request as requestSecure } from "node:https";

export interface HttpRequest {
  /** `GET` by default. */
  readonly method?: "GET" | "HEAD" | "POST";
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /** Ends the request, and the body of its answer. */
  readonly signal?: AbortSignal;
}

/** The answer's head; its body comes as it is read. Whoever does not read it to its end cancels it; after HEAD there is none. */
export interface HttpAnswer {
  readonly status: number;
  readonly headers: { get(name: string): string | null };
  readonly body: AsyncIterable<Uint8Array>;
  /** Gives the connection up with what is left of the body. */
  cancel(): void;
}

/** As much of `fetch` as the agent needs. */
export type HttpFetch = (url: string, request?: HttpRequest) => Promise<HttpAnswer>;

/**
 * Asks by Node's own HTTP client. `fetch` would do the same with a second client that parses HTTP in WebAssembly: the first call takes
 * some 12 MB for good, a sixth of the process. No redirect is followed and nothing is decoded; connections are kept for the next request.
 * @throws Error of the system or of the signal where there is no answer
 */
export const httpFetch: HttpFetch = (url, { method = "GET", headers, body, signal } = {}) =>
  new Promise((resolve, reject) => {
    const address = new URL(url);
    const send = address.protocol === "https:" ? requestSecure : requestPlain;
    const ask = (): void => {
      const asked = send(address, { method, headers, signal }, (message) => resolve(answerOf(message)));
      // It stays: what ends the connection later is told to whoever reads the body.
      asked.on("error", (error: NodeJS.ErrnoException) => {
        if (signal?.aborted) reject(signal.reason as Error);
        // The server gave a kept connection up at the moment of the request: it has not seen it.
        else if (asked.reusedSocket && error.code === "ECONNRESET" && method !== "POST") ask();
        else reject(error);
      });
      asked.end(body);
    };
    ask();
  });

/** Parts of a body, some 64 kB each, that may wait for whoever reads it. */
const PARTS_WAITING_MAX = 8;

function answerOf(message: IncomingMessage): HttpAnswer {
  // What came before a connection was cut is given before the error is: the message itself would drop it.
  const parts = on(message, "data", {
    close: ["end", "close"],
    highWaterMark: PARTS_WAITING_MAX,
    lowWaterMark: 1,
  }) as AsyncIterable<[Uint8Array]>;
  return {
    status: message.statusCode ?? 0,
    headers: { get: (name) => message.headersDistinct[name.toLowerCase()]?.join(", ") ?? null },
    body: bodyOf(message, parts),
    cancel: () => void message.destroy(),
  };
}

async function* bodyOf(
  message: IncomingMessage,
  parts: AsyncIterable<[Uint8Array]>,
): AsyncGenerator<Uint8Array, void> {
  try {
    for await (const [part] of parts) yield part;
  } finally {
    message.destroy();
  }
}
