import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

/** Who may import whom, with the reason beside each. Held against the imports that stand in the sources. */
const root = fileURLToPath(new URL("../../..", import.meta.url));

const WORKSPACES = {
  protocol: {
    folder: "protocol",
    may: [],
    reason: "schemas and codecs only: everything else is built on it",
  },
  runtime: {
    folder: "runtime",
    may: ["protocol"],
    reason: "runs on devices and in the browser: knows no fleet",
  },
  models: {
    folder: "models",
    may: ["protocol", "runtime"],
    reason: "recipes use the runtime, never a device or a server",
  },
  "device-agent": {
    folder: "device-agent",
    may: ["protocol", "runtime"],
    reason: "meets the server in the protocol only",
  },
  "fleet-server": {
    folder: "fleet-server",
    may: ["protocol", "runtime"],
    reason: "meets devices in the protocol only",
  },
  cli: {
    folder: "cli",
    may: ["protocol", "runtime", "models", "device-agent", "fleet-server"],
    reason: "the one place that joins all",
  },
  test: {
    folder: "test",
    may: ["protocol", "runtime", "models", "device-agent", "fleet-server", "cli"],
    reason: "nobody imports tests",
  },
} as const;

/** Libraries that only named places may import, so that each can be replaced in one place. */
const GUARDED = [
  {
    library: /^onnxruntime-node$/,
    files: /^runtime\/src\/node\/ort\.ts$/,
    reason: "one file per platform knows ONNX Runtime",
  },
  {
    library: /^onnxruntime-web(\/.+)?$/,
    files: /^runtime\/src\/(web\/|node\/ort-web\.ts$)/,
    reason: "one file per platform knows ONNX Runtime",
  },
  {
    library: /^@grpc\/grpc-js$/,
    files: /^runtime\/src\/node\/oip-grpc-/,
    reason: "loaded only where somebody speaks gRPC: it costs memory",
  },
  {
    library: /^sharp$/,
    files: /^(runtime\/src\/node\/|models\/src\/)/,
    reason: "images are decoded behind the runtime's limits",
  },
  {
    library: /^better-sqlite3$|^pg$|^@electric-sql\/pglite$/,
    files: /^fleet-server\/src\/store\//,
    reason: "only store/ knows a database",
  },
  {
    library: /^drizzle-orm/,
    files: /^fleet-server\/src\/store\//,
    reason: "only store/ knows SQL",
  },
  {
    library: /^tuf-js/,
    files: /^device-agent\/src\/control\/trust\//,
    reason: "its internals are known in one place",
  },
  {
    library: /^aedes/,
    files: /^fleet-server\/src\/broker\//,
    reason: "the broker can be replaced by an external one",
  },
] as const;

const PROTOCOL_LIBRARIES = /^(zod|fflate|@noble\/(curves|hashes)\/.+)$/;

describe("boundaries", () => {
  for (const [name, { folder, may, reason }] of Object.entries(WORKSPACES)) {
    it(`${name} imports only ${may.join(", ") || "libraries"}: ${reason}`, () => {
      const wrong = importsBelow(folder).filter(({ module }) => {
        const other = workspaceOf(module);
        return other !== undefined && other !== name && !(may as readonly string[]).includes(other);
      });
      expect(wrong).toEqual([]);
    });
  }

  it("protocol uses schema and codec libraries only, and no Node module", () => {
    const wrong = importsBelow("protocol").filter(
      ({ file, module }) => !isTest(file) && !module.startsWith(".") && !PROTOCOL_LIBRARIES.test(module),
    );
    expect(wrong).toEqual([]);
  });

  it("platform-free runtime code imports no Node module", () => {
    const wrong = importsBelow("runtime").filter(
      ({ file, module }) =>
        !file.startsWith("runtime/src/node/") && !isTest(file) && module.startsWith("node:"),
    );
    expect(wrong).toEqual([]);
  });

  for (const { library, files, reason } of GUARDED) {
    it(`${library.source} is imported only where ${files.source}: ${reason}`, () => {
      const wrong = Object.values(WORKSPACES)
        .flatMap(({ folder }) => importsBelow(folder))
        .filter(({ file, module }) => library.test(module) && !files.test(file) && !isTest(file));
      expect(wrong).toEqual([]);
    });
  }

  it("nobody reaches into another workspace past its exports", () => {
    const wrong = Object.values(WORKSPACES)
      .flatMap(({ folder }) => importsBelow(folder))
      .filter(
        ({ module }) =>
          /^@fieldloop\/[^/]+\/(src|dist)/.test(module) ||
          /^(\.\.\/)+(protocol|runtime|models|device-agent|fleet-server|cli)\//.test(module),
      );
    expect(wrong).toEqual([]);
  });
});

/** Tests and what only they use: they may take a library from anywhere. */
function isTest(file: string): boolean {
  return /\.test\.([a-z]+\.)?ts$|^test\//.test(file);
}

function workspaceOf(module: string): string | undefined {
  if (module === "fieldloop") return "cli";
  return /^@fieldloop\/([^/]+)/.exec(module)?.[1];
}

function importsBelow(folder: string): { file: string; module: string }[] {
  const found: { file: string; module: string }[] = [];
  for (const path of sources(join(root, folder))) {
    const text = readFileSync(path, "utf8");
    for (const match of text.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*"([^"\n]+)"/g)) {
      found.push({ file: relative(root, path), module: match[1]! });
    }
  }
  return found;
}

function sources(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (entry.name === "node_modules" || entry.name === "dist" || entry.name === "generated") return [];
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return sources(path);
    return /\.tsx?$/.test(entry.name) ? [path] : [];
  });
}
