import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { beforeAll, describe, expect, it } from "vitest";
import { CONTRACT_CASES, type ContractResult } from "@fieldloop/runtime/contract";
import { NO_HALF_FLOATS, expectHeld } from "./results.js";
import { SOFTWARE_VULKAN } from "./software-vulkan.js";

const CHILD = fileURLToPath(new URL("./child.js", import.meta.url));
const missing = existsSync(SOFTWARE_VULKAN)
  ? undefined
  : `${SOFTWARE_VULKAN} is not installed (package chromium)`;
if (missing !== undefined) process.stdout.write(`skipped: backend contract on webgpu in Node: ${missing}\n`);

describe.skipIf(missing !== undefined)("backend contract: webgpu in Node, software Vulkan", () => {
  let results: ContractResult[] = [];

  beforeAll(async () => {
    const { stdout } = await promisify(execFile)(process.execPath, [CHILD, "webgpu"], {
      env: { ...process.env, VK_DRIVER_FILES: SOFTWARE_VULKAN, XDG_RUNTIME_DIR: "/tmp" },
      maxBuffer: 16 * 1024 * 1024,
    });
    results = JSON.parse(stdout) as ContractResult[];
  }, 180_000);

  it.each(CONTRACT_CASES)("$name", ({ name }) => expectHeld(results, name, NO_HALF_FLOATS));

  it("ran every case", () => expect(results).toHaveLength(CONTRACT_CASES.length));
});
