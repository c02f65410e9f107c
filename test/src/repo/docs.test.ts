import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { protocolReference } from "@fieldloop/protocol";
import { describe, expect, it } from "vitest";

describe("generated documents", () => {
  it("docs/protocol.md is what the schemas say (npm run docs)", () => {
    const path = fileURLToPath(new URL("../../../docs/protocol.md", import.meta.url));
    expect(readFileSync(path, "utf8")).toBe(protocolReference());
  });
});
