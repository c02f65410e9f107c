import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ProviderChoices } from "@fieldloop/runtime/node";
import { runCli } from "../kit/run-cli.js";
import { writeTinyPackage } from "../kit/tiny-package.js";
import { ModelServer } from "./served.js";

describe("fieldloop model providers", () => {
  let folder: string;
  let packageDir: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "fieldloop-providers-"));
    packageDir = join(folder, "tiny");
    await writeTinyPackage(packageDir);
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it("counts a served model among the providers, and goes on without it when its server is killed", async () => {
    const server = await ModelServer.start([packageDir, "--grpc-port", "0"]);
    const endpoint = `${server.providerPrefix("grpc")}tiny`;
    const providers = async (): Promise<ProviderChoices> => {
      const args = [
        "--endpoint",
        endpoint,
        "--only",
        "cpu",
        "--cache",
        join(folder, "cache"),
        "--fresh",
        "--json",
      ];
      const { stdout } = await runCli(["model", "providers", packageDir, ...args], { timeoutMs: 50_000 });
      return JSON.parse(stdout) as ProviderChoices;
    };
    const found = await providers();
    const served = found.choices.find((choice) => choice.executionProvider === endpoint);
    expect(served).toMatchObject({ works: true, correct: true, shares: null });
    await server.end("SIGKILL");
    const after = await providers();
    expect(after.chosen?.executionProvider).toBe("cpu");
    expect(after.choices.at(-1)).toMatchObject({
      executionProvider: endpoint,
      reason: { code: "provider_unavailable" },
    });
  }, 120_000);
});
