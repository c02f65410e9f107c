import { createReadStream, statSync } from "node:fs";
import { FieldloopError, problemSchema } from "@fieldloop/protocol";
import type { Command } from "commander";

/** Where a fleet server is, and what to show it. */
export interface ServerAddress {
  readonly url: string;
  readonly token: string;
}

export interface ServerOptions {
  server?: string;
  token?: string;
}

/** Adds `--server` and `--token` to a command that talks to a fleet server. */
export function withServerOptions(command: Command): Command {
  return command
    .option("--server <url>", "fleet server (default: FIELDLOOP_URL or http://127.0.0.1:7300)")
    .option("--token <token>", "API token (default: FIELDLOOP_TOKEN)");
}

/** @throws FieldloopError `unauthenticated` where no token was given anywhere, `invalid_argument` for an address that is none */
export function resolveServer(
  options: ServerOptions,
  environment: NodeJS.ProcessEnv = process.env,
): ServerAddress {
  const token = options.token ?? environment.FIELDLOOP_TOKEN;
  if (!token) {
    throw new FieldloopError(
      "unauthenticated",
      "Talk to the fleet server: no API token; give --token or set FIELDLOOP_TOKEN",
    );
  }
  const url = (options.server ?? environment.FIELDLOOP_URL ?? "http://127.0.0.1:7300").replace(/\/+$/, "");
  if (!/^https?:\/\//.test(url) || !URL.canParse(url)) {
    throw new FieldloopError(
      "invalid_argument",
      `Talk to the fleet server: "${url}" is no address, wanted http://HOST:PORT`,
    );
  }
  return { url, token };
}

/** The HTTP API for programs: JSON in and out, problem+json becomes a coded error. */
export class FleetClient {
  readonly #address: ServerAddress;
  readonly #timeoutMs: number;

  constructor(address: ServerAddress, options: { readonly timeoutMs?: number } = {}) {
    this.#address = address;
    this.#timeoutMs = options.timeoutMs ?? 30_000;
  }

  get url(): string {
    return this.#address.url;
  }

  get<Result>(path: string): Promise<Result> {
    return this.#json<Result>("GET", path);
  }

  post<Result>(path: string, body: unknown = {}): Promise<Result> {
    return this.#json<Result>("POST", path, body);
  }

  put<Result>(path: string, body: unknown): Promise<Result> {
    return this.#json<Result>("PUT", path, body);
  }

  patch<Result>(path: string, body: unknown): Promise<Result> {
    return this.#json<Result>("PATCH", path, body);
  }

  delete<Result>(path: string): Promise<Result> {
    return this.#json<Result>("DELETE", path);
  }

  /** Every item of a paged list. */
  async *list<Item>(path: string): AsyncGenerator<Item> {
    let cursor: string | null = null;
    do {
      const separator = path.includes("?") ? "&" : "?";
      const at: string = cursor === null ? path : `${path}${separator}cursor=${encodeURIComponent(cursor)}`;
      const page: { items: Item[]; next?: string | null } = await this.get(at);
      yield* page.items;
      cursor = page.next ?? null;
    } while (cursor !== null);
  }

  async bytes(path: string): Promise<Uint8Array> {
    const response = await this.request("GET", path);
    return new Uint8Array(await response.arrayBuffer());
  }

  /** Uploads one file under its hash; does nothing where the server has it. */
  async putArtifact(file: string, sha256: string): Promise<void> {
    const known = await this.#send("HEAD", `/artifacts/sha256/${sha256}`);
    if (known.ok) return;
    await this.request("PUT", `/api/v1/artifacts/sha256/${sha256}`, {
      body: createReadStream(file),
      headers: { "content-type": "application/octet-stream", "content-length": String(statSync(file).size) },
    });
  }

  /** One request; anything but success is thrown as the server's own coded error. */
  async request(
    method: string,
    path: string,
    options: { body?: unknown; headers?: Record<string, string>; signal?: AbortSignal } = {},
  ): Promise<Response> {
    const response = await this.#send(method, path, options);
    if (response.ok) return response;
    const text = await response.text();
    const problem = problemSchema.safeParse(parseJson(text));
    if (problem.success)
      throw new FieldloopError(problem.data.code, problem.data.detail, {
        detail: { status: response.status },
      });
    throw new FieldloopError(
      "unavailable",
      `${method} ${path}: the server answered ${response.status}: ${text.slice(0, 200)}`,
    );
  }

  async #json<Result>(method: string, path: string, body?: unknown): Promise<Result> {
    const response = await this.request(
      method,
      path,
      body === undefined
        ? {}
        : { body: JSON.stringify(body), headers: { "content-type": "application/json" } },
    );
    const text = await response.text();
    return (text === "" ? undefined : JSON.parse(text)) as Result;
  }

  async #send(
    method: string,
    path: string,
    options: { body?: unknown; headers?: Record<string, string>; signal?: AbortSignal } = {},
  ): Promise<Response> {
    try {
      return await fetch(this.#address.url + path, {
        method,
        headers: { authorization: `Bearer ${this.#address.token}`, ...options.headers },
        signal: options.signal ?? AbortSignal.timeout(this.#timeoutMs),
        ...(options.body === undefined ? {} : { body: options.body as RequestInit["body"], duplex: "half" }),
      } as RequestInit);
    } catch (cause) {
      const reason =
        cause instanceof Error
          ? ((cause.cause as Error | undefined)?.message ?? cause.message)
          : String(cause);
      throw new FieldloopError("unavailable", `${method} ${this.#address.url}${path}: ${reason}`, { cause });
    }
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Not JSON at all: the caller says so with the text itself.
    return undefined;
  }
}
