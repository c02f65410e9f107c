import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { PackageToRun, ProviderToRun } from "../ipc.js";
import { scratchFolder } from "../testing/package.test.kit.js";
import { Durable } from "./durable.js";
import { MODEL_MARK, ProviderPlans } from "./provider-plans.js";

let folder: Awaited<ReturnType<typeof scratchFolder>>;
beforeEach(async () => {
  folder = await scratchFolder();
});
afterEach(() => folder.remove());

const SHA = "a".repeat(64);
const TARGET: PackageToRun = { directory: "/", packageSha256: SHA };
const GPU: ProviderToRun = { executionProvider: "webgpu", variant: "fp32", medianMs: 1 };
const CPU: ProviderToRun = { executionProvider: "cpu", variant: "int8", medianMs: 2 };

function load(option: string, machine: readonly string[] = []): Promise<ProviderPlans> {
  return ProviderPlans.load(folder.path, { option, threadCount: 2, machine }, new Durable(), (message) => {
    throw new Error(message);
  });
}

describe("the providers of a package", () => {
  it("are there again after a start, without one that ended the host in this one", async () => {
    const plans = await load("auto");
    expect(plans.planFor(TARGET)).toBe(TARGET);
    await plans.remember(SHA, [GPU, CPU]);
    plans.demote(SHA, GPU);
    expect(plans.planFor(TARGET).providers).toEqual([CPU]);
    expect((await load("auto")).planFor(TARGET).providers).toEqual([GPU, CPU]);
    expect((await load("cpu")).planFor(TARGET)).toBe(TARGET);
  });

  it("are outdated once they were found out under other terms, and then run only where they are still asked for", async () => {
    const server = { executionProvider: "oip+http://127.0.0.1:8000/v2/models/parts", variant: "fp32" };
    const plans = await load("http://127.0.0.1:8000,webgpu");
    expect(plans.isOutdated(SHA)).toBe(true);
    await plans.remember(SHA, [server, GPU, CPU]);
    expect(plans.isOutdated(SHA)).toBe(false);
    const later = [
      ["http://127.0.0.1:8000,webgpu", [], false, [server, GPU, CPU]],
      ["http://127.0.0.1:8000,webgpu", ["another driver"], true, [server, GPU, CPU]],
      ["http://127.0.0.1:8000", [], true, [server, CPU]],
      ["http://127.0.0.1:9000", [], true, [CPU]],
      ["auto", [], true, [GPU, CPU]],
    ] as const;
    for (const [option, machine, isOutdated, providers] of later) {
      const then = await load(option, machine);
      expect([then.isOutdated(SHA), then.planFor(TARGET).providers]).toEqual([isOutdated, providers]);
    }
    expect((await load("cpu")).isOutdated(SHA)).toBe(false);
    await plans.remember(SHA, []);
    expect([plans.isOutdated(SHA), plans.planFor(TARGET)]).toEqual([false, TARGET]);
  });

  it("are all remembered where the self tests of several lanes end at the same time", async () => {
    const plans = await load("auto");
    const names = ["a", "b", "c", "d"].map((letter) => letter.repeat(64));
    await Promise.all(names.map((packageSha256) => plans.remember(packageSha256, [GPU, CPU])));
    const then = await load("auto");
    for (const packageSha256 of names) {
      expect(then.planFor({ directory: "/", packageSha256 }).providers).toEqual([GPU, CPU]);
    }
  });

  it("are forgotten with what was measured for them, the machine's own are not", async () => {
    const plans = await load("auto");
    const { directory } = plans.search!;
    await mkdir(directory);
    const names = [`${SHA}.json`, `${"b".repeat(64)}.json`, "machine.json"];
    for (const name of names) await writeFile(join(directory, name), "{}");
    await plans.remember(SHA, [CPU]);
    expect((await readdir(directory)).sort()).toEqual([`${SHA}.json`, "machine.json"]);
  });

  it("are looked for where it was said, and on the processor in the end", async () => {
    expect((await load("auto")).search).toMatchObject({ executionProviders: undefined, endpoints: [] });
    expect((await load("cuda, http://127.0.0.1:8000")).search).toMatchObject({
      executionProviders: ["cuda", `oip+http://127.0.0.1:8000/v2/models/${MODEL_MARK}`, "cpu"],
    });
    expect((await load("cpu")).search).toBeUndefined();
  });
});
