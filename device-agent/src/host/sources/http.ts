import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { ERROR_CODES, FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import type { Frame } from "@fieldloop/runtime";
import { AGENT_LIMITS } from "../../limits.js";
import type { SourceSpec } from "../../source-spec.js";
import type { DropPolicy, Outcome, Source, SourceContext } from "./source.js";

const IMAGE_TYPES = ["image/jpeg", "image/png", "image/webp"];
/** A window as raw float32 little-endian samples. */
const WINDOW_TYPES = ["application/x-fieldloop-window", "application/octet-stream"];

/**
 * Frames pushed by another program on this machine: `POST /` with an image, or a window as float32 little-endian; the
 * answer is the prediction. Loopback only. When the queue is full the answer is 503 at once: the sender knows it.
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
    if (request.method !== "POST")
      throw new FieldloopError("not_found", "Push frame: POST / with an image or a window");
    if (this.#inHand >= AGENT_LIMITS.pushRequestsMax || this.#context.sink.isFull) throw busy();
    this.#inHand++;
    try {
      const frame = toFrame(request.headers["content-type"] ?? "", await readBody(request));
      const outcome = await new Promise<Outcome>((answer) => {
        this.#context.sink.offer({ frame, time: this.#context.clock.now(), answer });
      });
      if (outcome === undefined) throw busy();
      if (outcome instanceof FieldloopError) throw outcome;
      const { prediction } = outcome;
      sendJson(response, 200, {
        prediction: outcome.id,
        class: prediction.class,
        label: prediction.label,
        confidence: prediction.confidence,
        latencyMs: prediction.latencyMs,
        signals: prediction.signals,
        ...(prediction.boxes ? { boxes: prediction.boxes } : {}),
      });
    } finally {
      this.#inHand--;
    }
  }
}

function toFrame(contentType: string, body: Buffer): Frame {
  const type = contentType.split(";")[0]!.trim().toLowerCase();
  if (IMAGE_TYPES.includes(type)) return { kind: "encoded", bytes: new Uint8Array(body) };
  if (WINDOW_TYPES.includes(type)) {
    if (body.length === 0 || body.length % 4 !== 0) {
      throw new FieldloopError("window_invalid", `Push frame: ${body.length} bytes are no float32 samples`);
    }
    // A view wants its offset to be a multiple of four.
    const samples = new Float32Array(new Uint8Array(body).buffer);
    if (!samples.every((value) => Number.isFinite(value))) {
      throw new FieldloopError("window_invalid", "Push frame: a sample that is not a finite number");
    }
    return { kind: "window", samples };
  }
  throw new FieldloopError(
    "unsupported_media_type",
    `Push frame: "${type.slice(0, 80)}", wanted ${[...IMAGE_TYPES, ...WINDOW_TYPES].join(", ")}`,
  );
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
