import { createReadStream } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { basename, dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";
import { tensorToBytes } from "@fieldloop/runtime";
import { contractModels } from "@fieldloop/runtime/contract";
import { cpuReference } from "./local.js";
import type { WrittenReferences, WrittenTensor } from "./page.js";

const PAGE = fileURLToPath(new URL("./page.js", import.meta.url));
const ORT_WEB = dirname(createRequire(import.meta.url).resolve("onnxruntime-web"));
const TYPES: Readonly<Record<string, string>> = {
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};

/** Bundles the page and serves it on loopback, cross-origin isolated so that WebAssembly has threads. */
export async function servePage(): Promise<{ url: string; stop: () => Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), "fieldloop-page-"));
  await build({
    configFile: false,
    logLevel: "error",
    build: {
      outDir: folder,
      minify: false,
      target: "es2023",
      rollupOptions: { input: PAGE, output: { entryFileNames: "page.js" } },
    },
  });
  const references = JSON.stringify(await writeReferences());
  const server = createServer((request, response) => {
    const path = (request.url ?? "/").split("?", 1)[0]!;
    const head = (type: string): void => {
      response.writeHead(200, {
        "content-type": type,
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-embedder-policy": "require-corp",
      });
    };
    const file = (name: string): void => {
      head(TYPES[extname(name)] ?? "application/octet-stream");
      createReadStream(name)
        .on("error", () => response.destroy())
        .pipe(response);
    };
    if (path === "/") {
      head("text/html");
      response.end('<!doctype html><title>contract</title><script type="module" src="/page.js"></script>');
    } else if (path === "/references.json") {
      head("application/json");
      response.end(references);
    } else if (path.startsWith("/ort/")) file(join(ORT_WEB, basename(path)));
    else file(join(folder, path));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    stop: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** The CPU's results of the networks whose outputs are numbers that a page can hold itself against. */
async function writeReferences(): Promise<WrittenReferences> {
  const written: Record<string, Record<string, WrittenTensor>> = {};
  for (const model of contractModels().values()) {
    if (model.name.startsWith("identity-") || model.name === "large") continue;
    const outputs: Record<string, WrittenTensor> = {};
    for (const [name, tensor] of Object.entries(await cpuReference(model))) {
      const base64 = Buffer.from(tensorToBytes(tensor)).toString("base64");
      outputs[name] = { type: tensor.type, dims: tensor.dims, base64 };
    }
    written[model.name] = outputs;
  }
  return written;
}
