import type { IncomingMessage, ServerResponse } from "node:http";
import { type FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import { type LocalAppForm, refuseStrangers } from "../strangers.js";
import type { LocalApiOptions } from "./local-api.js";

interface Answer {
  readonly status: number;
  readonly body: string;
  readonly contentType: string;
}

type Monitored = Pick<LocalApiOptions, "health" | "metrics" | "state" | "hostPid">;
type Routes = Readonly<Record<string, (options: Monitored) => Answer | Promise<Answer>>>;

/** What a monitor asks every few seconds, answered with nothing but Node's own server. */
const ROUTES: Routes = {
  "/healthz": ({ health }) => {
    const { healthy, reasons } = health();
    return json({ status: healthy ? "ok" : "unhealthy", reasons }, healthy ? 200 : 503);
  },
  "/metrics": async ({ metrics }) => ({
    status: 200,
    body: await metrics.metrics(),
    contentType: metrics.contentType,
  }),
  "/v1/state": ({ state, hostPid }) => json({ ...state(), hostPid: hostPid() ?? null }),
};

/** Answers a request for the state of the agent; false where it asks for something else, and nothing was done. */
export function answerMonitor(
  options: Monitored,
  form: LocalAppForm,
  request: IncomingMessage,
  response: ServerResponse,
): boolean {
  const path = (request.url ?? "").split("?")[0]!;
  const isRead = request.method === "GET" || request.method === "HEAD";
  const route = isRead && Object.hasOwn(ROUTES, path) ? ROUTES[path] : undefined;
  if (!route) return false;
  void answer(async () => {
    refuseStrangers(request.headers, form);
    return route(options);
  }, response);
  return true;
}

async function answer(make: () => Promise<Answer>, response: ServerResponse): Promise<void> {
  const { status, body, contentType } = await make().catch((error: unknown) =>
    problemOf(toFieldloopError(error)),
  );
  const headers = { "content-type": contentType, "content-length": Buffer.byteLength(body) };
  response.writeHead(status, headers).end(body);
}

/** An error as its answer (RFC 9457). */
export function problemOf(error: FieldloopError): Answer {
  const { status, code, message } = error;
  const body = { type: "about:blank", title: code, status, code, detail: message };
  return { status, body: `${JSON.stringify(body)}\n`, contentType: "application/problem+json" };
}

function json(value: unknown, status = 200): Answer {
  return { status, body: JSON.stringify(value), contentType: "application/json" };
}
