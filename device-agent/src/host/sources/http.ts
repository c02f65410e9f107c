import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { ERROR_CODES, FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import { AGENT_LIMITS } from "../../limits.js";
import { predictionAnswer } from "../../prediction-answer.js";
import { pushedFrame } from "../../pushed-frame.js";
import { refuseStrangers } from "../../strangers.js";
import type { SourceSpec } from "../../source-spec.js";
import type { DropPolicy, Outcome, Source, SourceContext } from "./source.js";

/**
 * Frames pushed by another program on this machine: `POST /` with what {@link pushedFrame} takes; the answer is the prediction. Loopback only. When the queue is full the answer is 503 at once: the sender knows it.
 */
export class HttpSource implements Source {
  readonly dropPolicy: DropPolicy = "refuse";
  readonly #port: number;
  readonly #context: SourceContext;
  #server: Server | undefined;
  #inHand = 0;

  constructor(spec: Extract<SourceSpec, { kind: "http" }>, context: SourceContext) {
    this.#port = spec.port;
    this.#context = context;
  }

  /** The port that was bound, where 0 was asked for. */
  get port(): number {
    const address = this.#server?.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  async open(): Promise<void> {
    const server = createServer(
      {
        headersTimeout: AGENT_LIMITS.localHeadersTimeoutMs,
        requestTimeout: AGENT_LIMITS.localRequestTimeoutMs,
        connectionsCheckingInterval: AGENT_LIMITS.localTimeoutCheckMs,
      },
      (request, response) => {
        this.#handle(request, response).catch((error: unknown) => refuse(response, toFieldloopError(error)));
      },
    );
    server.maxConnections = AGENT_LIMITS.localConnectionsMax;
    await new Promise<void>((resolve, reject) => {
      server.once("error", (cause) => {
        reject(
          new FieldloopError("source_failed", `Open source: port ${this.#port}: ${cause.message}`, { cause }),
        );
      });
      server.listen(this.#port, "127.0.0.1", resolve);
    });
    this.#server = server;
  }

  async close(): Promise<void> {
    const server = this.#server;
    if (!server) return;
    await new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeIdleConnections();
      setTimeout(() => server.closeAllConnections(), 500).unref();
    });
    this.#server = undefined;
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    refuseStrangers(request.headers, { checksHost: true });
    if (request.method !== "POST")
      throw new FieldloopError("not_found", "Push frame: POST / with an image, a window or a row");
    const { sink } = this.#context;
    if (this.#inHand >= AGENT_LIMITS.pushRequestsMax || sink.isFull) throw busy();
    this.#inHand++;
    try {
      const frame = pushedFrame(request.headers["content-type"] ?? "", await readBody(request));
      // Others came while it was read: one that waits already is not sent away for it.
      if (sink.isFull) throw busy();
      const outcome = await new Promise<Outcome>((answer) => {
        sink.offer({ frame, time: this.#context.clock.now(), answer });
      });
      if (outcome === undefined) throw busy();
      if (outcome instanceof FieldloopError) throw outcome;
      sendJson(response, 200, predictionAnswer(outcome.id, outcome.prediction));
    } finally {
      this.#inHand--;
    }
  }
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > AGENT_LIMITS.pushBodyBytesMax) {
      throw new FieldloopError(
        "limit_exceeded",
        `Push frame: more than ${AGENT_LIMITS.pushBodyBytesMax} bytes`,
      );
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function busy(): FieldloopError {
  return new FieldloopError("unavailable", "Push frame: the queue is full, try again");
}

function refuse(response: ServerResponse, error: FieldloopError): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const { status, title } = ERROR_CODES[error.code];
  const problem = { type: "about:blank", title, status, code: error.code, detail: error.message };
  response.setHeader("connection", "close");
  sendJson(response, status, problem, "application/problem+json");
}

function sendJson(response: ServerResponse, status: number, value: unknown, type = "application/json"): void {
  response.writeHead(status, { "content-type": type }).end(`${JSON.stringify(value)}\n`);
}
