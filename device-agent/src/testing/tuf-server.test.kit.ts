import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { hashOf, type TufRepository } from "./tuf-repository.test.kit.js";

/** `["root", 2]`, `["timestamp", null]`: role as it stands in the address, and version. */
export type MetadataRequest = readonly [role: string, version: number | null];
export type Answer = (response: ServerResponse, request: IncomingMessage) => void;

/** What one repository was asked for, and what it answers otherwise than honestly. */
export class Mount {
  readonly repository: TufRepository;
  readonly metadataUrl: string;
  readonly targetsUrl: string;
  metadata: MetadataRequest[] = [];
  /** `["a/b.txt", hash in front of the name]` */
  targets: (readonly [path: string, prefix: string | null])[] = [];
  /** Path below the mount, `metadata/timestamp.json`, → an answer of its own. */
  readonly tampered = new Map<string, Answer>();
  /** Every request's path, headers and time, in order. */
  requests: {
    readonly path: string;
    readonly range: string | undefined;
    readonly ifRange: string | undefined;
  }[] = [];

  constructor(repository: TufRepository, base: string) {
    this.repository = repository;
    this.metadataUrl = `${base}/metadata/`;
    this.targetsUrl = `${base}/targets/`;
  }

  forget(): void {
    this.metadata = [];
    this.targets = [];
    this.requests = [];
  }
}

/** Serves test repositories over HTTP, each below a path of its own. Entity tags and byte ranges work, as with any file server. */
export class TufServer {
  readonly #mounts = new Map<string, Mount>();
  readonly #http: Server = createServer((request, response) => this.#answer(request, response));

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.#http.listen(0, "127.0.0.1", resolve));
  }

  async stop(): Promise<void> {
    this.#http.closeAllConnections();
    await new Promise((resolve) => this.#http.close(resolve));
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#http.address() as AddressInfo).port}`;
  }

  mount(repository: TufRepository, name = `repository-${this.#mounts.size}`): Mount {
    const mount = new Mount(repository, `${this.url}/${name}`);
    this.#mounts.set(name, mount);
    return mount;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const [, name = "", path = ""] = /^\/([^/]+)\/(?:tuf\/)?(.*)$/.exec(request.url ?? "") ?? [];
    const mount = this.#mounts.get(name);
    if (!mount) {
      response.writeHead(404).end();
      return;
    }
    const { range, "if-range": ifRange } = request.headers;
    mount.requests.push({ path, range, ifRange: typeof ifRange === "string" ? ifRange : undefined });
    const bytes = this.#find(mount, path);
    const tampered = mount.tampered.get(path);
    if (tampered) tampered(response, request);
    else if (bytes) serveBytes(response, request, bytes);
    else response.writeHead(404).end();
  }

  #find(mount: Mount, path: string): Buffer | undefined {
    const { repository } = mount;
    const consistent = repository.root.consistent_snapshot;
    const metadata = /^metadata\/(.+)\.json$/.exec(path)?.[1];
    if (metadata !== undefined) {
      const versioned = /^(\d+)\.(.+)$/.exec(metadata);
      mount.metadata.push(versioned ? [versioned[2]!, Number(versioned[1])] : [metadata, null]);
      if (versioned) return repository.files.get(`${versioned[1]}.${decodeURIComponent(versioned[2]!)}.json`);
      if (metadata === "timestamp") return repository.files.get("timestamp.json");
      return consistent ? undefined : repository.file(decodeURIComponent(metadata));
    }
    const target = /^targets\/(.+)$/.exec(path)?.[1];
    if (target === undefined) return undefined;
    const [, folder = "", prefix, file = ""] = consistent
      ? (/^(.*\/)?([0-9a-f]{64,128})\.([^/]+)$/.exec(target) ?? [])
      : [target, "", undefined, target];
    const wanted = decodeURIComponent(`${folder}${file}`);
    mount.targets.push([wanted, prefix ?? null]);
    return repository.contents.get(wanted);
  }
}

/** As a file server does: entity tag, length, byte ranges with If-Range (RFC 9110). */
export function serveBytes(response: ServerResponse, request: IncomingMessage, bytes: Uint8Array): void {
  const etag = `"${hashOf("sha256", bytes).slice(0, 16)}"`;
  const ifRange = request.headers["if-range"];
  const from =
    ifRange === undefined || ifRange === etag
      ? Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0)
      : 0;
  const headers = { etag, "accept-ranges": "bytes" };
  if (from === 0) {
    response.writeHead(200, { ...headers, "content-length": bytes.length }).end(bytes);
  } else if (from >= bytes.length) {
    response.writeHead(416, { "content-range": `bytes */${bytes.length}` }).end();
  } else {
    const range = `bytes ${from}-${bytes.length - 1}/${bytes.length}`;
    response
      .writeHead(206, { ...headers, "content-length": bytes.length - from, "content-range": range })
      .end(bytes.subarray(from));
  }
}
