import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** Makes other bytes of an artifact's; undefined: there is no such artifact. */
export type Tamper = (bytes: Buffer) => Buffer | undefined;

const ARTIFACT = /^\/artifacts\/sha256\/([0-9a-f]{64})$/;

/** An HTTP proxy before a fleet server that alters artifacts on their way: a broken cache, or one in a stranger's hands. */
export class ArtifactProxy {
  readonly #target: string;
  readonly #server: Server;
  readonly #tampered = new Map<string, Tamper>();
  readonly #added = new Map<string, Buffer>();

  private constructor(target: string) {
    this.#target = target;
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch(() => response.destroy());
    });
  }

  static async open(target: string): Promise<ArtifactProxy> {
    const proxy = new ArtifactProxy(target);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  tamper(sha256: string, how: Tamper): void {
    this.#tampered.set(sha256, how);
  }

  /** Serves bytes that the server itself would never have taken. */
  add(sha256: string, bytes: Uint8Array): void {
    this.#added.set(sha256, Buffer.from(bytes));
  }

  honest(): void {
    this.#tampered.clear();
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const sha256 = ARTIFACT.exec(request.url ?? "")?.[1] ?? "";
    const how = this.#tampered.get(sha256);
    const added = this.#added.get(sha256);
    if (added) return serve(response, added, request.headers.range);
    const headers = Object.fromEntries(
      ["authorization", "content-type", "accept", ...(how ? [] : ["range"])].flatMap((name) => {
        const value = request.headers[name];
        return typeof value === "string" ? [[name, value]] : [];
      }),
    );
    const chunks: Buffer[] = [];
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
    const answer = await fetch(this.#target + request.url, {
      method: request.method ?? "GET",
      headers,
      ...(chunks.length > 0 ? { body: Buffer.concat(chunks) } : {}),
    });
    const bytes = Buffer.from(await answer.arrayBuffer());
    if (how && answer.ok) return serve(response, how(bytes), request.headers.range);
    for (const name of ["content-type", "content-range", "etag"]) {
      const value = answer.headers.get(name);
      if (value !== null) response.setHeader(name, value);
    }
    response.writeHead(answer.status, { "content-length": bytes.length }).end(bytes);
  }
}

/** A whole answer, or the rest from a position (RFC 9110 section 14). */
function serve(response: ServerResponse, bytes: Buffer | undefined, range: string | undefined): void {
  if (!bytes) {
    response.writeHead(404).end();
    return;
  }
  const from = Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
  if (from >= bytes.length) {
    response.writeHead(416, { "content-range": `bytes */${bytes.length}` }).end();
    return;
  }
  if (from > 0) response.setHeader("content-range", `bytes ${from}-${bytes.length - 1}/${bytes.length}`);
  response
    .writeHead(from > 0 ? 206 : 200, { "content-length": bytes.length - from })
    .end(bytes.subarray(from));
}
