import { connect, createServer, type Server, type Socket } from "node:net";
import { FieldloopError } from "@fieldloop/protocol";
import { reasonOf } from "../../control/files.js";
import { AGENT_LIMITS } from "../../limits.js";
import type { SpecOf } from "../../source-spec.js";
import { Deliverer } from "./deliver.js";
import { type Attempt, type AttemptEnd, KeepTrying } from "./keep-trying.js";
import { RowLedger } from "./row-frames.js";
import { RowStream } from "./row-stream.js";
import type { DropPolicy, Source, SourceContext } from "./source.js";

type TcpSpec = SpecOf<"tcp" | "tcp-listen">;

const KEEP_ALIVE_MS = 15_000;

/** Rows from a TCP connection that we open, or from those that others open to us; each connection is a stream of its own. */
export class TcpSource implements Source {
  readonly dropPolicy: DropPolicy;
  readonly #spec: TcpSpec;
  readonly #context: SourceContext;
  readonly #action: string;
  readonly #deliverer: Deliverer;
  readonly #ledger: RowLedger;
  readonly #trying: KeepTrying;
  #connections = 0;
  #server: Server | undefined;

  constructor(spec: TcpSpec, context: SourceContext) {
    this.#spec = spec;
    this.#context = context;
    this.dropPolicy = spec.drop;
    this.#action = `Read ${spec.kind} "${spec.host}:${spec.port}"`;
    this.#deliverer = new Deliverer(context, spec.drop);
    this.#ledger = new RowLedger(context, this.#action);
    this.#trying = new KeepTrying(context, (attempt) =>
      spec.kind === "tcp" ? this.#connect(attempt) : this.#listen(attempt),
    );
  }

  /** The port that is listened on, where 0 was asked for. */
  get port(): number {
    const address = this.#server?.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  open(): Promise<void> {
    this.#trying.start();
    return Promise.resolve();
  }

  close(): Promise<void> {
    return this.#trying.stop();
  }

  counts(): Readonly<Record<string, number>> {
    const { rows, malformedRows, gaps } = this.#ledger;
    return { rows, malformedRows, gaps, connections: this.#connections, restarts: this.#trying.restarts };
  }

  async #connect({ signal, healthy }: Attempt): Promise<AttemptEnd> {
    const { host, port } = this.#spec;
    const socket = connect({ host, port, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS });
    // An abort before the connection stands; afterwards it ends the reading.
    const stop = (): void => void socket.destroy();
    signal.addEventListener("abort", stop, { once: true });
    try {
      await connected(socket);
      healthy();
      await this.#read(socket, signal);
    } catch (cause) {
      if (signal.aborted) return "ended";
      throw new FieldloopError("source_failed", `${this.#action}: ${reasonOf(cause)}`, { cause });
    } finally {
      signal.removeEventListener("abort", stop);
      socket.destroy();
    }
    if (signal.aborted) return "ended";
    throw new FieldloopError("source_failed", `${this.#action}: the other side ended the connection`);
  }

  async #listen({ signal, healthy }: Attempt): Promise<AttemptEnd> {
    const sockets = new Set<Socket>();
    const reads = new Set<Promise<void>>();
    const server = createServer({ keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS }, (socket) => {
      sockets.add(socket);
      const read = this.#read(socket, signal)
        // A broken connection is its sender's affair: the next one is welcome.
        .catch(() => undefined)
        .finally(() => {
          socket.destroy();
          sockets.delete(socket);
          reads.delete(read);
        });
      reads.add(read);
    });
    server.maxConnections = AGENT_LIMITS.tcpSourceConnectionsMax;
    this.#server = server;
    const { host, port } = this.#spec;
    try {
      await new Promise<void>((resolve, reject) => {
        server.once("error", (cause) => {
          reject(new FieldloopError("source_failed", `${this.#action}: ${cause.message}`, { cause }));
        });
        signal.addEventListener("abort", () => resolve(), { once: true });
        server.listen(port, host, healthy);
      });
    } finally {
      for (const socket of sockets) socket.destroy();
      await Promise.all(reads);
      if (server.listening) await new Promise<void>((resolve) => server.close(() => resolve()));
      this.#server = undefined;
    }
    return "ended";
  }

  async #read(socket: Socket, signal: AbortSignal): Promise<void> {
    const connection = String(++this.#connections);
    const stream = new RowStream(this.#spec.rows, this.#context, this.#ledger);
    try {
      for await (const chunk of socket as AsyncIterable<Buffer>) {
        for (const frame of stream.push(chunk)) {
          if (signal.aborted) return;
          await this.#deliverer.deliver({ ...frame, stream: connection }, signal);
        }
      }
    } finally {
      if (!signal.aborted) stream.breakOff();
    }
  }
}

function connected(socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      socket.destroy(new Error(`no connection in ${AGENT_LIMITS.sourceConnectTimeoutMs} ms`));
    }, AGENT_LIMITS.sourceConnectTimeoutMs);
    socket.once("error", reject);
    socket.once("close", () => {
      clearTimeout(timer);
      reject(new Error("closed"));
    });
    socket.once("connect", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
