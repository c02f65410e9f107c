import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { until } from "../testing/fleet.test.kit.js";
import { pngOf } from "../testing/images.test.kit.js";
import { LaneStage } from "../testing/lanes.test.kit.js";
import { writeTestPackage } from "../testing/package.test.kit.js";

let child: ChildProcess | undefined;
afterEach(() => {
  child?.kill("SIGKILL");
  child = undefined;
});

/** A Vulkan driver in software, as Chromium brings one: a GPU for those who have none. */
const SOFTWARE_VULKAN = "/usr/lib/chromium/vk_swiftshader_icd.json";
const hasVulkan = existsSync(SOFTWARE_VULKAN);
if (!hasVulkan) console.log(`webgpu is not tested: there is no "${SOFTWARE_VULKAN}"`);

let stage: LaneStage;
beforeEach(async () => {
  stage = new LaneStage();
  await stage.open();
});
afterEach(() => stage.close());

describe("an execution provider", () => {
  it("that is killed is left for the next one, the agent predicts on, and returns when it is there again", async () => {
    stage.fleet.desire([await stage.publish(stage.image(), "d1")]);
    const url = await serve(join(stage.path, "image-1", "fp32.onnx"), "brightness");
    await stage.start(["simulator:parts?fps=30"], { provider: url });
    await stage.isActive("d1");
    const provider = `oip+${url}/v2/models/brightness`;
    expect(stage.lane("main").running).toMatchObject({ executionProvider: provider });
    await until(() => stage.predictions > 10, "it predicts on the server");
    child!.kill("SIGKILL");
    await until(() => stage.lane("main").running?.executionProvider === "cpu", "the processor takes over");
    const { predictions } = stage.agent.state().counters;
    await until(() => stage.predictions > predictions + 20, "it predicts on");
    const { warnings, counters } = stage.agent.state();
    expect(counters.hostRestarts).toBe(0);
    expect(warnings.find(({ code }) => code === "provider_failed")?.message).toContain(provider);
    expect(stage.fleet.online).toBe(true);
    await serve(join(stage.path, "image-1", "fp32.onnx"), "brightness", new URL(url).port);
    await until(() => stage.lane("main").running?.executionProvider === provider, "it is back on the server");
    await stage.predicts(20, "it predicts there");
    expect(stage.agent.state().warnings.map(({ code }) => code)).not.toContain("provider_failed");
    expect(stage.agent.state().counters.hostRestarts).toBe(0);
    await stage.agent.stop();
    stage.expectAllStored();
  }, 120_000);

  it("that is asked for at a later start is looked for then, for what runs already", async () => {
    stage.fleet.desire([await stage.publish(stage.image(), "d1")]);
    await stage.start(["simulator:parts?fps=30"]);
    await stage.isActive("d1");
    expect(stage.lane("main").running).toMatchObject({ executionProvider: "cpu" });
    await stage.agent.stop();
    const url = await serve(join(stage.path, "image-1", "fp32.onnx"), "brightness");
    await stage.start(["simulator:parts?fps=30"], { provider: url });
    const provider = `oip+${url}/v2/models/brightness`;
    await until(() => stage.lane("main").running?.executionProvider === provider, "it runs on the server");
    await stage.predicts(10, "it predicts there");
    expect(stage.fleet.deploymentStates("d1").filter((state) => state === "self_testing")).toHaveLength(1);
    await stage.agent.stop();
    // Nothing has changed: it is there at once.
    await stage.start(["simulator:parts?fps=30"], { provider: url });
    await until(() => stage.lane("main").running !== null, "it runs");
    expect(stage.lane("main").running?.executionProvider).toBe(provider);
    await stage.agent.stop();
    stage.expectAllStored();
  }, 120_000);

  it("that was asked for and is not there is told, and the processor runs the model", async () => {
    stage.fleet.desire([await stage.publish(stage.image(), "d1")]);
    await stage.start(["simulator:parts?fps=30"], { provider: "http://127.0.0.1:9" });
    await stage.isActive("d1");
    expect(stage.lane("main").running).toMatchObject({ executionProvider: "cpu" });
    const warning = stage.agent.state().warnings.find(({ code }) => code === "provider_unavailable");
    expect(warning?.message).toContain("127.0.0.1:9");
  }, 120_000);

  it("that starts after the agent is taken when it is there", async () => {
    stage.fleet.desire([await stage.publish(stage.image(), "d1")]);
    const file = join(stage.path, "image-1", "fp32.onnx");
    const url = await serve(file, "brightness");
    child!.kill("SIGKILL");
    await stage.start(["simulator:parts?fps=30"], { provider: url });
    await stage.isActive("d1");
    expect(stage.lane("main").running).toMatchObject({ executionProvider: "cpu" });
    await serve(file, "brightness", new URL(url).port);
    const provider = `oip+${url}/v2/models/brightness`;
    await until(() => stage.lane("main").running?.executionProvider === provider, "it runs on the server");
    await stage.predicts(10, "it predicts there");
    expect(stage.agent.state().warnings).toEqual([]);
    await stage.agent.stop();
    stage.expectAllStored();
  }, 120_000);
});

describe("webgpu", () => {
  it.skipIf(!hasVulkan)(
    "runs a lane, and leaves it to the processor when its driver ends the host",
    async () => {
      const images = join(stage.path, "images");
      await mkdir(images);
      for (const value of [0, 255]) await writeFile(join(images, `${value}.png`), await pngOf(value));
      stage.fleet.desire([await stage.publish(stage.image(), "d1")]);
      const env = { ...process.env, VK_DRIVER_FILES: SOFTWARE_VULKAN, XDG_RUNTIME_DIR: stage.path };
      // More than it can do: a frame is always in its hands.
      await stage.start([`folder:${images}?fps=1000`], { provider: "webgpu", env, ownFacts: true });
      await stage.isActive("d1");
      expect(stage.agent.state().facts.executionProviders).toEqual(["webgpu", "cpu"]);
      expect(stage.lane("main").running).toMatchObject({ executionProvider: "webgpu" });
      await stage.predicts(10, "it predicts on webgpu");
      for (let ends = 0; stage.lane("main").running?.executionProvider !== "cpu"; ends++) {
        expect(ends).toBeLessThan(5);
        // As a driver that makes a mistake.
        process.kill(stage.agent.hostPid()!, "SIGSEGV");
        await until(() => stage.lane("main").running === null, "the host is gone");
        await until(() => stage.lane("main").running !== null, "the next one runs");
      }
      await stage.predicts(10, "it predicts on the processor");
      expect(stage.fleet.online).toBe(true);
      const warning = stage.agent.state().warnings.find(({ code }) => code === "provider_failed");
      expect(warning?.message).toContain("webgpu");
      expect(existsSync(join(stage.stateDir, "quarantine.json"))).toBe(false);
      await stage.agent.stop();
      stage.expectAllStored();
    },
    300_000,
  );
});

describe("a package with several variants", () => {
  it("is run in the one that is fastest here, whatever the processor says of itself", async () => {
    // By its flags no processor suits the variant of 8 bits; the other one has far more to do.
    const slow = writeTestPackage(join(stage.path, "slow"), { version: 1, withInt8: true, slowFloats: true });
    stage.fleet.desire([await stage.publish(slow, "d1")]);
    await stage.start(["simulator:parts?fps=30"], { provider: "auto" });
    await stage.isActive("d1");
    expect(stage.lane("main").running).toMatchObject({ variant: "int8", executionProvider: "cpu" });
  }, 120_000);
});

/** A server in a process of its own; its address. */
async function serve(file: string, model: string, port = "0"): Promise<string> {
  const entry = fileURLToPath(new URL("../testing/oip-server.test.entry.js", import.meta.url));
  const server = spawn(process.execPath, [entry, file, model, port], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  child = server;
  return new Promise((resolve, reject) => {
    createInterface({ input: server.stdout }).once("line", resolve);
    server.once("exit", (code) => reject(new Error(`the server ended with ${code}`)));
  });
}
