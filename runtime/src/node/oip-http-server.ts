import { chmod, lstat, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { connect, type AddressInfo } from "node:net";
import { FieldloopError } from "@fieldloop/protocol";
import { OIP_LIMITS } from "../oip/limits.js";
import { handleInference, oipErrorResponse, type OipHttpResponse } from "../oip/rest-server.js";
import type { InferenceService } from "../oip/service.js";

/** Where a server listens: TCP (port 0 takes a free one) or a unix socket. */
export type OipAddress =
  | { readonly host: string; readonly port: number }
  | {
      readonly socketPath: string /** Who may connect, as file mode. Default 0o660. */;
      readonly mode?: number;
    };

export interface OipServer {
  /** `http://127.0.0.1:8000`, `unix:/run/x.sock`, `grpc://127.0.0.1:8001`. */
  readonly url: string;
  /** Stops listening, waits for answers under way and closes connections. */
  stop(): Promise<void>;
}

const CONNECTIONS_MAX = 256;
const KEEP_ALIVE_MS = 60_000;
const READ_TIMEOUT_MS = 60_000;
const STOP_GRACE_MS = 5_000;

/**
 * Serves the REST form of the protocol with Node's own HTTP server.
 * @throws FieldloopError `unavailable` where the address is taken or not allowed
 */
export async function serveHttp(service: InferenceService, address: OipAddress): Promise<OipServer> {
  const server = createServer({
    requestTimeout: READ_TIMEOUT_MS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    noDelay: true,
  });
  server.maxConnections = CONNECTIONS_MAX;
  const held: HeldBytes = { bytes: 0 };
  server.on("request", (incoming, outgoing) => void answer(service, incoming, outgoing, held));
  server.on("clientError", (_error, socket) =>
    socket.end("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n"),
  );
  await listen(server, address);
  if ("socketPath" in address) await chmod(address.socketPath, address.mode ?? 0o660);
  const bound = server.address();
  const url =
    "socketPath" in address
      ? `unix:${address.socketPath}`
      : urlOf("http", address.host, bound as AddressInfo);
  return { url, stop: () => stop(server) };
}

/** `grpc://[::1]:8001` */
export function urlOf(scheme: string, host: string, { port }: { port: number }): string {
  return `${scheme}://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

async function listen(server: Server, address: OipAddress): Promise<void> {
  if ("socketPath" in address) await clearSocket(address.socketPath);
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause) =>
      reject(new FieldloopError("unavailable", `Listen for inference requests: ${cause.message}`, { cause })),
    );
    server.listen("socketPath" in address ? { path: address.socketPath } : { ...address }, resolve);
  });
}

/** A socket that a killed process left behind would be taken for one in use; nothing else is removed. */
async function clearSocket(path: string): Promise<void> {
  const refuse = (why: string): FieldloopError =>
    new FieldloopError("unavailable", `Listen for inference requests: "${path}" ${why}`);
  const info = await lstat(path).catch(() => undefined);
  if (info === undefined) return;
  if (!info.isSocket()) throw refuse("is there and is no socket");
  const inUse = await new Promise<boolean>((resolve) => {
    const probe = connect({ path });
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", () => resolve(false));
  });
  if (inUse) throw refuse("is in use by another process");
  await rm(path, { force: true });
}

/** Bytes of the bodies that a server holds at the moment. */
interface HeldBytes {
  bytes: number;
}

async function answer(
  service: InferenceService,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  held: HeldBytes,
): Promise<void> {
  const mine: HeldBytes = { bytes: 0 };
  const gone = new AbortController();
  outgoing.once("close", () => gone.abort());
  let response: OipHttpResponse;
  try {
    refusePages(incoming);
    const body = await readBody(incoming, (count) => {
      if (held.bytes + count > OIP_LIMITS.bodiesBytesMax) {
        throw new FieldloopError("unavailable", "Read request: too many large requests at once, try again");
      }
      held.bytes += count;
      mine.bytes += count;
    });
    const headers = Object.fromEntries(
      Object.entries(incoming.headers).map(([name, value]) => [
        name,
        Array.isArray(value) ? value[0] : value,
      ]),
    );
    const { method = "GET", url = "/" } = incoming;
    response = await handleInference(service, { method, path: url, headers, body, signal: gone.signal });
  } catch (error) {
    response = oipErrorResponse(error);
    // The rest of the body was not read: this connection can't carry another request.
    outgoing.setHeader("connection", "close");
  } finally {
    held.bytes -= mine.bytes;
  }
  if (outgoing.destroyed) return;
  const length = response.body.reduce((sum, part) => sum + part.length, 0);
  outgoing.writeHead(response.status, { ...response.headers, "content-length": length });
  outgoing.cork();
  if (incoming.method !== "HEAD") for (const part of response.body) outgoing.write(part);
  outgoing.uncork();
  outgoing.end();
}

const LOOPBACK_ORIGIN = /^https?:\/\/(?:127\.0\.0\.1|localhost|\[::1\])(?::\d+)?$/i;

/** A page says where it is from, other programs do not: without this any site could use a server on its visitor's machine. */
function refusePages({ headers: { origin } }: IncomingMessage): void {
  if (origin === undefined || LOOPBACK_ORIGIN.test(origin)) return;
  throw new FieldloopError("forbidden", "Inference requests of pages of another origin are refused");
}

async function readBody(incoming: IncomingMessage, hold: (bytes: number) => void): Promise<Uint8Array> {
  const announced = Number(incoming.headers["content-length"] ?? 0);
  const refuse = (bytes: number): FieldloopError =>
    new FieldloopError("limit_exceeded", `Read request: ${bytes} bytes, at most ${OIP_LIMITS.bodyBytesMax}`);
  if (announced > OIP_LIMITS.bodyBytesMax) throw refuse(announced);
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of incoming) {
    bytes += (part as Buffer).length;
    if (bytes > OIP_LIMITS.bodyBytesMax) throw refuse(bytes);
    hold((part as Buffer).length);
    parts.push(part as Buffer);
  }
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
}

async function stop(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeIdleConnections();
  const force = setTimeout(() => server.closeAllConnections(), STOP_GRACE_MS);
  await closed;
  clearTimeout(force);
}
