import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { FieldloopError, type DeviceState } from "@fieldloop/protocol";
import type { OipServer } from "@fieldloop/runtime/oip";
import type { Registry } from "prom-client";
import { AGENT_LIMITS } from "../limits.js";
import type { LocalAppForm } from "../strangers.js";
import type { FeedbackItem } from "./feedback.js";
import { answerMonitor } from "./local-monitor.js";
import type { LocalRoutesOptions } from "./local-routes.js";
import { LocalSocket } from "./local-socket.js";

export interface LocalApiOptions extends LocalRoutesOptions {
  /** 0: any free one. */
  readonly port: number;
  /** A unix socket beside it. */
  readonly socketPath?: string | undefined;
  /** The Open Inference Protocol over gRPC, on loopback; 0 for any free port. */
  readonly grpcPort?: number | undefined;
  readonly metrics: Registry;
  readonly state: () => DeviceState;
  /** Process id of the inference host; undefined between two of them. */
  readonly hostPid: () => number | undefined;
  readonly health: () => { readonly healthy: boolean; readonly reasons: readonly string[] };
  /** Resolves when durable on this device. @throws FieldloopError `prediction_unknown`, `storage_failed` */
  readonly feedback: (boot: number, items: readonly FeedbackItem[]) => Promise<void>;
  /** The version before, at once. @throws FieldloopError `conflict` where there is none, and why it does not load */
  readonly returnPrevious: (lane: string) => Promise<void>;
  readonly setCondition: (condition: string, lane: string | undefined) => Promise<string>;
  readonly truth: (boot: number, n: number) => Promise<string | undefined>;
}

const LOOPBACK = "127.0.0.1";
const CLOSE_GRACE_MS = 500;

/**
 * What other programs on this machine may ask. It listens on loopback, and where that is asked for on a unix socket for this user and
 * for gRPC. Over TCP it answers only to a loopback `Host` (a page in a browser that rebinds its name to 127.0.0.1 has another) and to
 * no page of another origin.
 */
export class LocalApi {
  readonly #options: LocalApiOptions;
  #servers: Server[] = [];
  #socket: LocalSocket | undefined;
  #grpc: OipServer | undefined;
  #port = 0;

  constructor(options: LocalApiOptions) {
    this.#options = options;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Of the gRPC server; undefined where there is none. */
  get grpcUrl(): string | undefined {
    return this.#grpc?.url;
  }
  get socketPath(): string | undefined {
    return this.#socket?.path;
  }

  /** @throws FieldloopError `unavailable`, `conflict`, `invalid_argument` */
  async start(): Promise<void> {
    try {
      await this.#start();
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  async #start(): Promise<void> {
    const { port, socketPath, grpcPort, inference } = this.#options;
    const server = this.#serve({ checksHost: true });
    await listen(server, port);
    this.#port = (server.address() as AddressInfo).port;
    if (socketPath !== undefined) {
      this.#socket = await LocalSocket.listen(this.#serve({ checksHost: false }), socketPath);
    }
    if (grpcPort === undefined) return;
    const { serveGrpc } = await import("@fieldloop/runtime/oip");
    this.#grpc = await serveGrpc(
      inference,
      { host: LOOPBACK, port: grpcPort },
      { messageBytesMax: AGENT_LIMITS.localTensorBytesMax },
    );
  }

  #serve(form: LocalAppForm): Server {
    const {
      localHeadersTimeoutMs: headersTimeout,
      localRequestTimeoutMs: requestTimeout,
      localTimeoutCheckMs: connectionsCheckingInterval,
    } = AGENT_LIMITS;
    let app: Promise<RequestListener> | undefined;
    const server = createServer(
      { headersTimeout, requestTimeout, connectionsCheckingInterval },
      (request, response) => {
        if (answerMonitor(this.#options, form, request, response)) return;
        app ??= import("./local-app.js").then(({ localListener }) => localListener(this.#options, form));
        app.then(
          (listener) => listener(request, response),
          () => response.destroy(),
        );
      },
    );
    server.maxConnections = AGENT_LIMITS.localConnectionsMax;
    this.#servers.push(server);
    return server;
  }

  async stop(): Promise<void> {
    this.#options.feed.close();
    const servers = this.#servers;
    this.#servers = [];
    await Promise.all([...servers.map(close), this.#grpc?.stop()]);
    this.#grpc = undefined;
    await this.#socket?.remove();
    this.#socket = undefined;
  }
}

async function listen(server: Server, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const failed = (cause: Error): void => {
      const message = `Open local interface on port ${port}: ${cause.message}`;
      reject(new FieldloopError("unavailable", message, { cause }));
    };
    server.once("error", failed);
    server.listen({ host: LOOPBACK, port }, () => {
      server.off("error", failed);
      resolve();
    });
  });
}

async function close(server: Server): Promise<void> {
  if (!server.listening) return;
  await new Promise<void>((resolve) => {
    server.close(() => resolve());
    server.closeIdleConnections();
    setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS).unref();
  });
}
