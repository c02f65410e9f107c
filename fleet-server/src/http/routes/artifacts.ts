import { Readable } from "node:stream";
import type { ReadableStream as WebStream } from "node:stream/web";
import { FieldloopError, LIMITS, sha256Schema } from "@fieldloop/protocol";
import type { Context } from "hono";
import type { BlobInfo, BlobStore } from "../../blob/blob.js";
import type { App, AppEnv } from "../env.js";
import { requireAnyone, requireRole } from "../guards.js";
import { rangeOf } from "../range.js";

/**
 * Package files by their hash: uploaded by operators, downloaded by devices and people, with Range so that a cut download goes on
 * (RFC 9110 section 14). What a hash names never changes, so it may be cached for ever.
 */
export function registerArtifactRoutes(app: App, blobs: BlobStore): void {
  app.put("/api/v1/artifacts/sha256/:sha256", requireRole("operator"), async (c) => {
    const sha256 = hashOf(c);
    const announced = Number(c.req.header("Content-Length") ?? "0");
    if (announced > LIMITS.packageFileBytesMax) {
      throw new FieldloopError(
        "limit_exceeded",
        `Store artifact: ${announced} bytes, at most ${LIMITS.packageFileBytesMax}`,
      );
    }
    const existed = await blobs.has(sha256);
    const body = c.req.raw.body;
    const content = body ? Readable.fromWeb(body as WebStream<Uint8Array>) : new Uint8Array();
    const info = await blobs.put(content, { sha256, bytesMax: LIMITS.packageFileBytesMax });
    return c.json({ sha256: info.sha256, bytes: info.bytes }, existed ? 200 : 201);
  });
  app.on(["GET", "HEAD"], "/artifacts/sha256/:sha256", requireAnyone(), async (c) => {
    const sha256 = hashOf(c);
    const info = await blobs.stat(sha256);
    if (!info) throw new FieldloopError("not_found", `Read artifact: there is no "${sha256}"`);
    return answerBlob(c, blobs, info);
  });
}

/** A blob, or the range of it that was asked for. */
export async function answerBlob(c: Context<AppEnv>, blobs: BlobStore, info: BlobInfo): Promise<Response> {
  const etag = `"${info.sha256}"`;
  c.header("ETag", etag);
  c.header("Accept-Ranges", "bytes");
  c.header("Cache-Control", "private, max-age=31536000, immutable");
  c.header("Content-Type", "application/octet-stream");
  if (c.req.header("If-None-Match") === etag) return c.body(null, 304);
  const range = rangeOf(c.req.header("Range"), c.req.header("If-Range"), etag, info.bytes);
  if (range === "unsatisfiable") {
    c.header("Content-Range", `bytes */${info.bytes}`);
    return c.body(null, 416);
  }
  const { from, to } = range ?? { from: 0, to: info.bytes };
  c.header("Content-Length", String(to - from));
  if (range) c.header("Content-Range", `bytes ${from}-${to - 1}/${info.bytes}`);
  const status = range ? 206 : 200;
  if (c.req.method === "HEAD") return c.body(null, status);
  const chunks = await blobs.stream(info.sha256, { from, to });
  return c.body(
    Readable.toWeb(Readable.from(chunks, { objectMode: false })) as ReadableStream<Uint8Array>,
    status,
  );
}

/** The hash in a path. @throws FieldloopError `invalid_argument` */
export function hashOf(c: Context<AppEnv>, name = "sha256"): string {
  const parsed = sha256Schema.safeParse(c.req.param(name));
  if (!parsed.success)
    throw new FieldloopError("invalid_argument", "Read path: wanted a SHA-256 in lower-case hexadecimal");
  return parsed.data;
}
