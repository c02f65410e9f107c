import { Agent, request as httpRequest, type IncomingMessage, type RequestOptions } from "node:http";
import { Agent as TlsAgent, request as httpsRequest } from "node:https";
import { FieldloopError } from "@fieldloop/protocol";
import { OIP_LIMITS } from "../oip/limits.js";
import type { OipEndpoint } from "../oip/provider-name.js";
import type { OipHttpTransport } from "../oip/rest-client.js";

type Request = Parameters<OipHttpTransport["send"]>[0];
type Reply = Awaited<ReturnType<OipHttpTransport["send"]>>;

/** Connections to one server that are kept for the next run. */
const CONNECTIONS_MAX = 4;

/** HTTP over TCP, TLS or a unix socket with kept connections; one that the server closed meanwhile is opened anew once. */
export function httpTransport(endpoint: OipEndpoint, timeoutMs: number): OipHttpTransport {
  const secure = endpoint.transport === "https";
  const settings = { keepAlive: true, maxSockets: CONNECTIONS_MAX, noDelay: true };
  const agent = secure ? new TlsAgent(settings) : new Agent(settings);
  const target = targetOf(endpoint);
  const send = (request: Request): Promise<Reply> =>
    new Promise((resolve, reject) => {
      const length = request.body.reduce((sum, part) => sum + part.length, 0);
      const options: RequestOptions = {
        ...target,
        agent,
        method: request.method,
        path: request.path,
        headers: { ...request.headers, "content-length": length },
        timeout: timeoutMs,
      };
      const outgoing = (secure ? httpsRequest : httpRequest)(options, (incoming) => {
        readAll(incoming)
          .then(resolve, (cause: unknown) => reject(late ?? cause))
          .finally(() => clearTimeout(timer));
      });
      let late: FieldloopError | undefined;
      const timer = setTimeout(() => {
        late = new FieldloopError(
          "timed_out",
          `Ask inference server: no whole answer within ${timeoutMs} ms`,
        );
        outgoing.destroy(late);
      }, timeoutMs);
      outgoing.on("error", (cause: NodeJS.ErrnoException) => {
        clearTimeout(timer);
        if (cause instanceof FieldloopError) return reject(cause);
        reject(
          new FieldloopError(
            "unavailable",
            `Ask inference server at ${endpoint.authority}: ${cause.message}`,
            {
              cause,
              detail: { reused: outgoing.reusedSocket },
            },
          ),
        );
      });
      // Head and tensors in one write to the socket, where the system takes them.
      outgoing.cork();
      for (const part of request.body) outgoing.write(part);
      outgoing.uncork();
      outgoing.end();
    });
  return {
    send: async (request) => {
      try {
        return await send(request);
      } catch (error) {
        // A kept connection that the server closed in between says nothing of the server.
        if (error instanceof FieldloopError && error.detail?.["reused"] === true) return await send(request);
        throw error;
      }
    },
    close: async () => agent.destroy(),
  };
}

function targetOf({ transport, authority }: OipEndpoint): RequestOptions {
  if (transport === "unix") return { socketPath: authority };
  const { hostname, port } = new URL(`${transport}://${authority}`);
  return {
    // An address of IPv6 has brackets in a URL and none in a connection.
    host: hostname.replace(/^\[|\]$/g, ""),
    port: port === "" ? (transport === "https" ? 443 : 80) : Number(port),
  };
}

async function readAll(incoming: IncomingMessage): Promise<Reply> {
  const parts: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const part of incoming) {
      bytes += (part as Buffer).length;
      if (bytes > OIP_LIMITS.bodyBytesMax) {
        throw new FieldloopError(
          "limit_exceeded",
          `Ask inference server: an answer of more than ${OIP_LIMITS.bodyBytesMax} bytes`,
        );
      }
      parts.push(part as Buffer);
    }
  } catch (cause) {
    incoming.destroy();
    if (cause instanceof FieldloopError) throw cause;
    throw new FieldloopError("unavailable", "Ask inference server: the connection broke within the answer", {
      cause,
    });
  }
  const headers = Object.fromEntries(
    Object.entries(incoming.headers).map(([name, value]) => [name, Array.isArray(value) ? value[0] : value]),
  );
  return {
    status: incoming.statusCode ?? 0,
    headers,
    body: parts.length === 1 ? parts[0]! : Buffer.concat(parts),
  };
}
