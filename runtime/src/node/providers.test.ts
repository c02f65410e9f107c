import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { copyFile, readFile, readdir, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type { Variant } from "@fieldloop/protocol";
import { chooseVariant } from "../package/variant.js";
import { backendFor } from "./backends.js";
import { ortNode } from "./ort.js";
import { sharesOfProfile } from "./ort-profile.js";
import { probe } from "./probe.js";
import { chooseProviders, pairsOf, ranked } from "./providers.js";
import { workingProviders } from "./providers-host.js";
import type { ProviderChoice } from "./providers-types.js";
import { checkRuntimeLibrary, libraryEnvironment } from "./runtime-library.js";
import { brightnessDraft, scratchFolder, writeBrightnessPackage } from "./small-packages.test.kit.js";
import { writePackage } from "./write-package.js";

let scratch: Awaited<ReturnType<typeof scratchFolder>>;
let goodDir: string;
let wrongDir: string;
beforeAll(async () => {
  scratch = await scratchFolder();
  goodDir = join(scratch.path, "good");
  wrongDir = join(scratch.path, "wrong");
  await writeBrightnessPackage(goodDir);
  await writeBrightnessPackage(wrongDir, { goldenError: 1 });
});
afterAll(() => scratch.remove());

/** Each spawns processes, which may take their time on a busy machine. */
const SPAWNING = { timeout: 90_000 };

describe("choosing an execution provider", SPAWNING, () => {
  const options = (): { directory: string; threadCount: number; runsMax: number } => ({
    directory: join(scratch.path, "cache"),
    threadCount: 1,
    runsMax: 3,
  });

  it("tries each in a process of its own, ranks the correct ones, and names why others are not", async () => {
    const found = await chooseProviders(goodDir, {
      ...options(),
      executionProviders: ["tensorrt", "cpu", "wasm"],
    });
    expect(found.chosen).toMatchObject({ variant: "fp32", works: true, correct: true });
    expect(found.chosen?.medianMs).toBeGreaterThan(0);
    const byName = Object.fromEntries(found.choices.map((choice) => [choice.executionProvider, choice]));
    expect(byName["cpu"]).toMatchObject({ correct: true, shares: { cpu: 1 } });
    expect(byName["wasm"]).toMatchObject({ correct: true, shares: null });
    expect(byName["tensorrt"]).toMatchObject({ works: false, reason: { code: "provider_unavailable" } });
    expect(found.choices.at(-1)?.executionProvider).toBe("tensorrt");
  });

  it("remembers, per candidates and machine, and probes again where the file is damaged", async () => {
    const asked = { ...options(), executionProviders: ["cpu"] };
    expect((await chooseProviders(goodDir, asked)).remembered).toBe(false);
    const again = await chooseProviders(goodDir, asked);
    expect(again).toMatchObject({ remembered: true, chosen: { executionProvider: "cpu" } });
    expect((await chooseProviders(goodDir, { ...asked, threadCount: 2 })).remembered).toBe(false);
    const files = await readdir(asked.directory);
    expect(files.every((file) => file.endsWith(".json"))).toBe(true);
    for (const file of files) await writeFile(join(asked.directory, file), "{");
    expect((await chooseProviders(goodDir, asked)).remembered).toBe(false);
  });

  it("chooses none where the results are wrong", async () => {
    const found = await chooseProviders(wrongDir, { ...options(), executionProviders: ["cpu"] });
    expect(found.chosen).toBeUndefined();
    expect(found.choices[0]).toMatchObject({
      works: true,
      correct: false,
      reason: { code: "golden_case_failed" },
    });
  });

  it("holds a package without golden cases to finite numbers", async () => {
    const { draft, files } = brightnessDraft();
    const kept = Object.entries(files).filter(([name]) => !name.startsWith("golden/"));
    const dir = join(scratch.path, "unproven");
    await writePackage(dir, { ...draft, golden: [] }, Object.fromEntries(kept));
    const found = await chooseProviders(dir, { ...options(), executionProviders: ["cpu"] });
    expect(found.chosen).toMatchObject({ executionProvider: "cpu", correct: true });
  });

  it("asks a server again that did not answer, and nobody else", async () => {
    const served = "oip+http://127.0.0.1:9/v2/models/m";
    const asked = {
      ...options(),
      directory: join(scratch.path, "servers"),
      executionProviders: ["cpu", served],
    };
    expect((await chooseProviders(goodDir, asked)).remembered).toBe(false);
    const tried: string[] = [];
    const again = await chooseProviders(goodDir, { ...asked, progress: (name) => tried.push(name) });
    expect(tried).toEqual([served]);
    expect(again).toMatchObject({ remembered: false, chosen: { executionProvider: "cpu" } });
    expect(again.choices).toHaveLength(2);
  });

  it("begins no pair after its time, and tries what is left the next time", async () => {
    const asked = { ...options(), directory: join(scratch.path, "late"), executionProviders: ["cpu"] };
    const late = await chooseProviders(goodDir, { ...asked, totalMs: -1 });
    expect(late.choices).toEqual([]);
    expect((await chooseProviders(goodDir, asked)).chosen).toMatchObject({ executionProvider: "cpu" });
  });

  it("times those again that are nearly as fast, and keeps the better time", async () => {
    const asked = { ...options(), directory: join(scratch.path, "twins"), executionProviders: ["cpu"] };
    const { draft, files } = brightnessDraft();
    const [first] = draft.variants;
    const twin = { ...first!, name: "twin", file: "twin.onnx" };
    const dir = join(scratch.path, "twins-package");
    const all = { ...files, "twin.onnx": files[first!.file]! };
    await writePackage(dir, { ...draft, variants: [first!, twin] }, all);
    const { choices, chosen } = await chooseProviders(dir, asked);
    expect(choices.map(({ correct }) => correct)).toEqual([true, true]);
    const again = await chooseProviders(dir, asked);
    expect(again).toMatchObject({ remembered: true, chosen });
  });

  it("stops between two pairs", async () => {
    const controller = new AbortController();
    const progress = (): void => controller.abort();
    await expect(
      chooseProviders(goodDir, { ...options(), signal: controller.signal, progress, fresh: true }),
    ).rejects.toMatchObject({ code: "cancelled" });
  });
});

describe("a probing process", SPAWNING, () => {
  const request = { kind: "built-in", executionProvider: "cpu" } as const;

  it("is killed when it takes too long or too much memory, or may die by itself", async () => {
    expect(await probe(request, { timeoutMs: 1 })).toMatchObject({
      works: false,
      reason: { code: "timed_out" },
    });
    expect(await probe(request, { memoryBytesMax: 1 })).toMatchObject({ reason: { code: "limit_exceeded" } });
    const environment = { ...process.env, NODE_OPTIONS: "--no-such-option" };
    const died = await probe(request, { environment });
    expect(died.reason).toMatchObject({
      code: "host_crashed",
      message: expect.stringMatching(/no-such-option/),
    });
  });

  it.skipIf(process.platform !== "linux")("ends when its parent is gone, whatever it does", async () => {
    // A parent that is killed while its child waits for a request that never comes.
    const entry = new URL("./probe-entry.js", import.meta.url).pathname;
    const child = `spawn(process.execPath, [${JSON.stringify(entry)}, String(process.pid)], { stdio: [fd, "ignore", "ignore", "ignore"] })`;
    const fifo = join(scratch.path, "requests");
    spawnSync("mkfifo", [fifo]);
    const script = `const { spawn } = require("node:child_process"); const fd = require("node:fs").openSync(${JSON.stringify(fifo)}, "r+"); const child = ${child}; console.log(child.pid); setInterval(() => {}, 1000)`;
    const parent = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "ignore"] });
    const [line] = (await once(parent.stdout, "data")) as [Buffer];
    const pid = Number(String(line));
    const lives = (): boolean =>
      existsSync(`/proc/${pid}/cmdline`) && readFileSync(`/proc/${pid}/cmdline`, "utf8") !== "";
    // Forked, a process has no command line of its own yet.
    await vi.waitFor(() => expect(lives()).toBe(true)).finally(() => parent.kill("SIGKILL"));
    await vi.waitFor(() => expect(lives()).toBe(false), { timeout: 30_000 });
  });

  it("knows a provider that nobody has", async () => {
    const reply = await probe({ kind: "built-in", executionProvider: "npu9000" }, {});
    expect(reply.reason).toMatchObject({
      code: "provider_unavailable",
      message: expect.stringMatching(/cpu/),
    });
  });

  it("finds what works on this machine, once", async () => {
    const directory = join(scratch.path, "machine");
    const found = await workingProviders({ directory });
    expect(found).toContain("cpu");
    expect(await workingProviders({ directory })).toEqual(found);
  });
});

describe.skipIf(process.platform !== "linux")("a vendor's library", SPAWNING, () => {
  const bundled = join(
    dirname(createRequire(import.meta.url).resolve("onnxruntime-node")),
    `../bin/napi-v6/linux/${process.arch}/libonnxruntime.so.1`,
  );

  it("is used instead of the bundled one", async () => {
    const runtimeLibrary = join(scratch.path, "libonnxruntime.so.1");
    await copyFile(bundled, runtimeLibrary);
    expect(await checkRuntimeLibrary(runtimeLibrary, ortNode.version)).toBe(ortNode.version);
    const reply = await probe({ kind: "library" }, { runtimeLibrary, environment: process.env });
    expect(reply).toMatchObject({ works: true, libraryPath: runtimeLibrary });
    expect(await probe({ kind: "library" }, {})).toMatchObject({ libraryPath: bundled });
  });

  it("of another version is refused before it is loaded", async () => {
    const other = join(scratch.path, "other.so");
    const bytes = await readFile(bundled);
    const at = bytes.indexOf(`\0VERS_${ortNode.version}\0`);
    bytes.write("VERS_1.20.1\0", at + 1, "latin1");
    await writeFile(other, bytes);
    await expect(checkRuntimeLibrary(other, ortNode.version)).rejects.toMatchObject({
      code: "provider_unavailable",
      message: expect.stringMatching(/is ONNX Runtime 1\.20\.1, wanted/),
    });
    await writeFile(other, "#!/bin/sh");
    await expect(checkRuntimeLibrary(other, ortNode.version)).rejects.toThrow(/no shared library/);
    await expect(checkRuntimeLibrary(join(scratch.path, "none"), "1.0.0")).rejects.toThrow(/can't be read/);
  });

  it.each(["lib.so", "/a b/lib.so", "/a:/lib.so", "/$LIB/lib.so"])(
    "is refused where the loader would read %s in its own way",
    async (path) => {
      await expect(checkRuntimeLibrary(path, "1.0.0")).rejects.toThrow(/wanted a whole path/);
    },
  );

  it("goes before what is preloaded already, once", () => {
    expect(libraryEnvironment({ LD_PRELOAD: "/a.so /b.so", X: "1" }, "/b.so")).toEqual({
      LD_PRELOAD: "/b.so:/a.so",
      X: "1",
    });
  });
});

describe("pairs to try", () => {
  const variant = (name: string, precision: Variant["precision"], executionProviders: string[]): Variant => ({
    name,
    precision,
    executionProviders,
    file: `${name}.onnx`,
    sha256: "0".repeat(64),
    bytes: 1,
    opset: 17,
    cpuFlags: [],
  });
  const variants = [variant("fp32", "fp32", ["cpu"]), variant("int8", "int8", ["cpu"])];
  const pairs = (candidates: string[], of = variants): string[] =>
    pairsOf({ variants: of }, candidates).map((pair) => `${pair.executionProvider} ${pair.variant.name}`);

  it("are what a provider is named for, and floats everywhere", () => {
    expect(pairs(["cpu"])).toEqual(["cpu fp32", "cpu int8"]);
    expect(pairs(["webgpu"])).toEqual(["webgpu fp32"]);
    expect(pairs(["wasm"])).toEqual(["wasm fp32", "wasm int8"]);
  });
  it("are one for a served model", () => {
    const name = "oip+http://h:1/v2/models/m";
    expect(pairs([name])).toEqual([`${name} int8`]);
    expect(pairs([name], [...variants, variant("npu", "fp16", ["oip"])])).toEqual([`${name} npu`]);
  });

  it("rank by speed, and by exactness where the speed is the same", () => {
    const choice = (executionProvider: string, of: string, medianMs: number | null): ProviderChoice => ({
      executionProvider,
      variant: of,
      works: medianMs !== null,
      correct: medianMs !== null,
      medianMs,
      shares: null,
    });
    const order = (choices: ProviderChoice[]): string[] =>
      ranked({ variants }, choices).choices.map((each) => `${each.executionProvider} ${each.variant}`);
    const broken = choice("cuda", "fp32", null);
    const slow = choice("wasm", "fp32", 9);
    expect(order([broken, slow, choice("cpu", "fp32", 4), choice("cpu", "int8", 2)])).toEqual([
      "cpu int8",
      "cpu fp32",
      "wasm fp32",
      "cuda fp32",
    ]);
    expect(order([choice("cpu", "int8", 2), choice("cpu", "fp32", 2.05)])[0]).toBe("cpu fp32");
    expect(ranked({ variants }, [broken]).chosen).toBeUndefined();
  });
  it("prefer half floats where an accelerator works", () => {
    const both = [variant("fp32", "fp32", ["cpu", "webgpu"]), variant("fp16", "fp16", ["webgpu"])];
    const choose = (executionProviders: string[]): string =>
      chooseVariant(
        { model: "m", version: 1, variants: both },
        { cpuFlags: [], executionProviders, memoryBytes: 1e9 },
      ).name;
    expect(choose(["cpu"])).toBe("fp32");
    expect(choose(["webgpu", "cpu"])).toBe("fp16");
  });
});

describe("ONNX Runtime's profile", () => {
  it("gives the share of nodes per provider, each node once", () => {
    const node = (name: string, provider: string): object => ({
      cat: "Node",
      name: `${name}_kernel_time`,
      args: { provider },
    });
    const events = [
      { cat: "Session", name: "model_run" },
      node("a", "CPUExecutionProvider"),
      node("b", "WebGpuExecutionProvider"),
      node("b", "WebGpuExecutionProvider"),
    ];
    expect(sharesOfProfile(JSON.stringify(events))).toEqual({ cpu: 0.5, webgpu: 0.5 });
    const many = Array.from({ length: 49 }, (_, index) => node(String(index), "CPUExecutionProvider"));
    expect(sharesOfProfile(JSON.stringify(many))).toEqual({ cpu: 1 });
    expect(() => sharesOfProfile("[")).toThrow(expect.objectContaining({ code: "data_file_malformed" }));
  });
  it("is nothing that a name nobody knows opens", async () => {
    await expect(backendFor("npu9000")).rejects.toMatchObject({ code: "provider_unavailable" });
  });
});
