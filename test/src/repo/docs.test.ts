import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { protocolReference } from "@fieldloop/protocol";
import { describe, expect, it } from "vitest";

describe("generated documents", () => {
  it("docs/protocol.md is what the schemas say (npm run docs)", () => {
    const path = fileURLToPath(new URL("../../../docs/protocol.md", import.meta.url));
    expect(readFileSync(path, "utf8")).toBe(protocolReference());
  });
});

/** `](path)` and `](path#part)`, within the repository. */
const LINK = /\]\(([\w./-]+\.(?:md|png|svg|ts))(?:#[^)]*)?\)/g;

describe("documents", () => {
  it("link to files that are there", () => {
    const root = fileURLToPath(new URL("../../..", import.meta.url));
    const documents = ["README.md", ...readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" })]
      .filter((name) => name.endsWith(".md"))
      .map((name) => (name === "README.md" ? name : join("docs", name)));
    const dead = documents.flatMap((name) =>
      [...readFileSync(join(root, name), "utf8").matchAll(LINK)]
        .map(([, target]) => join(dirname(name), target!))
        .filter((target) => !existsSync(join(root, target)))
        .map((target) => `${name}: ${target}`),
    );
    expect(documents.length).toBeGreaterThan(20);
    expect(dead).toEqual([]);
  });
});
