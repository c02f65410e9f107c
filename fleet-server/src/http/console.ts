import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { extname, join, resolve, sep } from "node:path";
import { Readable } from "node:stream";
import { FieldloopError } from "@fieldloop/protocol";
import type { Context } from "hono";
import type { App, AppEnv } from "./env.js";

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".ico": "image/x-icon",
  ".json": "application/json",
  ".map": "application/json",
  ".woff2": "font/woff2",
  ".wasm": "application/wasm",
  ".webmanifest": "application/manifest+json",
};
/** Paths that belong to programs: an unknown one is an error, not a page. */
const NOT_PAGES = /^\/(?:api|artifacts|healthz|metrics)(?:\/|$)/;

/** The console's files; a path without a file is a page of the single-page application. */
export function registerConsole(app: App, folder: string): void {
  const root = resolve(folder);
  app.on(["GET", "HEAD"], "*", async (c, next) => {
    const { path } = c.req;
    if (NOT_PAGES.test(path)) return next();
    const file = await fileOf(root, path);
    const asset = file ?? (isPage(path) ? await fileOf(root, "/index.html") : undefined);
    if (!asset) {
      throw new FieldloopError("not_found", `Read file: "${path.slice(0, 200)}" is not part of the console`);
    }
    return send(c, asset);
  });
}

async function send(c: Context<AppEnv>, file: string): Promise<Response> {
  const zipped = /\bgzip\b/.test(c.req.header("Accept-Encoding") ?? "") && (await isFile(`${file}.gz`));
  const path = zipped ? `${file}.gz` : file;
  if (zipped) c.header("Content-Encoding", "gzip");
  c.header("Vary", "Accept-Encoding");
  c.header("Content-Type", TYPES[extname(file)] ?? "application/octet-stream");
  c.header("Content-Length", String((await stat(path)).size));
  // Files under assets/ carry a hash in their name; everything else may change with the next version.
  c.header(
    "Cache-Control",
    file.includes(`${sep}assets${sep}`) ? "public, max-age=31536000, immutable" : "no-cache",
  );
  if (c.req.method === "HEAD") return c.body(null, 200);
  return c.body(Readable.toWeb(createReadStream(path)) as ReadableStream<Uint8Array>, 200);
}

/** A name with an ending is a file, but for a device, whose id may hold a dot. */
function isPage(path: string): boolean {
  return extname(path) === "" || path.startsWith("/devices/");
}

async function fileOf(root: string, path: string): Promise<string | undefined> {
  let decoded: string;
  try {
    decoded = decodeURIComponent(path);
  } catch {
    // A malformed escape names no file.
    return undefined;
  }
  const file = join(root, decoded);
  if (decoded.includes("\0") || !file.startsWith(root + sep)) return undefined;
  return (await isFile(file)) ? file : undefined;
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile();
  } catch {
    // Whatever the reason: it cannot be served.
    return false;
  }
}
