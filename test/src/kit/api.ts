import { request, type ClientRequest, type OutgoingHttpHeaders } from "node:http";
import { enrolResponseSchema, manifestFiles, type EnrolResponse, type Facts } from "@fieldloop/protocol";
import type { ModelPackage } from "@fieldloop/runtime/node";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";

export const TEST_FACTS: Facts = {
  arch: "x64",
  platform: "linux",
  cpuModel: "test",
  cpuCount: 2,
  cpuFlags: ["avx2"],
  memoryBytes: 1 << 30,
  executionProviders: ["cpu"],
  nodeVersion: "20.20.2",
  runtimeVersion: "1.30.0",
  timeZone: "UTC",
  deviceClass: "linux-x64",
  opsetMax: 21,
  irVersionMax: 10,
  manifestSchemaMax: 1,
};

const CLOSED_TRIES = 8;

export interface Answer {
  readonly status: number;
  readonly headers: NodeJS.Dict<string | string[]>;
  readonly bytes: Buffer;
  readonly text: string;
  /** The stable code of a problem document, `undefined` for every other body. */
  readonly code: string | undefined;
}

export interface Request {
  readonly headers?: OutgoingHttpHeaders;
  /** Bytes and text go as they are, everything else as JSON. */
  readonly body?: unknown;
  /** Without a length that is announced. */
  readonly chunked?: boolean;
}

/** The HTTP API with a token; the path goes onto the wire as it is written here, dots and escapes included. */
export class Api {
  readonly url: string;
  readonly token: string | undefined;

  constructor(url: string, token: string | undefined) {
    this.url = url;
    this.token = token;
  }

  as(token: string | undefined): Api {
    return new Api(this.url, token);
  }

  /** A server that refuses a large body may close before the client has read why: such a request is made again. */
  async send(method: string, path: string, options: Request = {}): Promise<Answer> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.#sendOnce(method, path, options);
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (tries === CLOSED_TRIES || (code !== "EPIPE" && code !== "ECONNRESET")) throw error;
      }
    }
  }

  #sendOnce(method: string, path: string, options: Request): Promise<Answer> {
    const { hostname, port } = new URL(this.url);
    const body = bodyOf(options.body);
    const isJson =
      body !== undefined && !(typeof options.body === "string" || options.body instanceof Uint8Array);
    const headers: OutgoingHttpHeaders = {
      ...(this.token === undefined ? {} : { authorization: `Bearer ${this.token}` }),
      ...(isJson ? { "content-type": "application/json" } : {}),
      ...(body === undefined || options.chunked ? {} : { "content-length": body.length }),
      ...options.headers,
    };
    return new Promise((resolve, reject) => {
      let answered = false;
      const sent = request({ hostname, port, method, path, headers, agent: false }, (response) => {
        answered = true;
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () =>
          resolve(answerOf(response.statusCode ?? 0, response.headers, Buffer.concat(chunks))),
        );
      });
      // A server that refuses a body closes while the rest of it is still on its way; what it said came first.
      sent.on("error", (error) => (answered ? undefined : reject(error)));
      void writeBody(sent, body, () => answered);
    });
  }

  /** The body of an answer that must be a success. */
  async ok<Result>(method: string, path: string, body?: unknown): Promise<Result> {
    const answer = await this.send(method, path, { body });
    if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.status} ${answer.text}`);
    return (answer.text === "" ? undefined : JSON.parse(answer.text)) as Result;
  }

  /** Enrols a device for real; this API's token must be an operator's. */
  async enrol(device: string, tags: Record<string, string> = {}): Promise<EnrolResponse> {
    const { token } = await this.ok<{ token: string }>("POST", "/api/v1/enrolment-tokens", {});
    const body = { token, device, tags, facts: TEST_FACTS };
    return enrolResponseSchema.parse(await this.as(undefined).ok("POST", "/api/v1/enrol", body));
  }

  putArtifact(sha256: string, bytes: Uint8Array): Promise<Answer> {
    return this.send("PUT", `/api/v1/artifacts/sha256/${sha256}`, {
      body: bytes,
      headers: { "content-type": "application/octet-stream" },
    });
  }

  /** Uploads every file of a package and publishes it. */
  async publish(made: ModelPackage): Promise<void> {
    for (const { file, sha256 } of manifestFiles(made.manifest)) {
      await this.putArtifact(sha256, await readFile(join(made.dir, file)));
    }
    await this.putArtifact(made.packageSha256, made.manifestBytes);
    await this.ok("POST", `/api/v1/models/${made.manifest.model}/versions`, {
      manifestSha256: made.packageSha256,
    });
  }
}

function bodyOf(body: unknown): Buffer | undefined {
  if (body === undefined) return undefined;
  if (typeof body === "string") return Buffer.from(body);
  return body instanceof Uint8Array ? Buffer.from(body) : Buffer.from(JSON.stringify(body));
}

function answerOf(status: number, headers: NodeJS.Dict<string | string[]>, bytes: Buffer): Answer {
  const text = bytes.toString("utf8");
  let code: string | undefined;
  if (String(headers["content-type"]).startsWith("application/problem+json")) {
    code = (JSON.parse(text) as { code?: string }).code;
  }
  return { status, headers, bytes, text, code };
}

/** In parts, and no more of them once the answer is there: writing on could end the connection before the answer is read. */
async function writeBody(
  sent: ClientRequest,
  body: Uint8Array | undefined,
  isAnswered: () => boolean,
): Promise<void> {
  for (let at = 0; body !== undefined && at < body.length && !isAnswered(); at += 65_536) {
    sent.write(body.subarray(at, at + 65_536));
    await setTimeout(1);
  }
  sent.end();
}
