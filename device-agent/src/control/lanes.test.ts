import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Assignment, LaneState } from "@fieldloop/protocol";
import type { ModelPackage } from "@fieldloop/runtime/node";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { AGENT_LIMITS } from "../limits.js";
import { createAgentLog } from "../log.js";
import { TestFleet, until } from "../testing/fleet.test.kit.js";
import { scratchFolder, writeTestPackage, writeWindowPackage } from "../testing/package.test.kit.js";
import { type AgentHandle, type AgentOptions, startAgent } from "./agent.js";
import { routeAssignment } from "./lane-updaters.js";

let folder: Awaited<ReturnType<typeof scratchFolder>>;
let fleet: TestFleet;
let agent: AgentHandle | undefined;
let child: ChildProcess | undefined;
const log = createAgentLog({
  level: process.env["FIELDLOOP_TEST_LOG"] === "1" ? "debug" : "error",
  write: (line) => void process.stderr.write(line),
});

beforeEach(async () => {
  folder = await scratchFolder();
  fleet = new TestFleet();
  await fleet.start();
});
afterEach(async () => {
  child?.kill("SIGKILL");
  child = undefined;
  await agent?.stop();
  agent = undefined;
  await fleet.stop();
  await folder.remove();
});

const CAMERA = "simulator:parts?fps=20&model=brightness&priority=80";
const SPINDLE = "spindle=simulator:bearing?fps=20&model=loudness&priority=20";

function start(source: readonly string[], options: Partial<AgentOptions> = {}): Promise<AgentHandle> {
  return startAgent({
    directory: join(folder.path, "state"),
    server: fleet.serverUrl,
    token: "fle_once",
    source,
    env: process.env,
    log,
    ...options,
  });
}

async function publish(pkg: Promise<ModelPackage>, deployment: string, lane?: string): Promise<Assignment> {
  const assignment = await fleet.publish(await pkg, deployment);
  return lane === undefined ? assignment : { ...assignment, lane };
}

function image(version = 1): Promise<ModelPackage> {
  return writeTestPackage(join(folder.path, `image-${version}`), { version });
}
function sound(version = 1): Promise<ModelPackage> {
  return writeWindowPackage(join(folder.path, `sound-${version}`), { version });
}

async function isActive(...deployments: string[]): Promise<void> {
  for (const deployment of deployments) {
    await until(() => fleet.deploymentStates(deployment).includes("active"), `${deployment} is active`);
  }
}

function lane(name: string): LaneState {
  return agent!.state().lanes.find((candidate) => candidate.name === name)!;
}

/** Numbers of what the server stored of a boot, in the order of its messages. */
function stored(boot: number, model?: string): number[] {
  return fleet.predictions
    .filter((batch) => batch.boot === boot && (model === undefined || batch.versionRef.model === model))
    .flatMap(({ firstN, count }) => Array.from({ length: count }, (_, index) => firstN + index));
}

/** Each number once, and as many as the agent says that it made. */
function expectAllStored(boot: number, count: number): void {
  const numbers = stored(boot);
  expect(new Set(numbers).size).toBe(numbers.length);
  expect(numbers.length).toBe(count);
}

describe("several lanes", () => {
  it("run a model each, are updated apart, keep their batches large, and are there again after a start", async () => {
    const first = await publish(image(), "d1");
    const slow = { predictionsIntervalSeconds: 1 };
    fleet.desire([first, await publish(sound(), "s1", "spindle")], slow);
    agent = await start([CAMERA, SPINDLE]);
    await isActive("d1", "s1");
    expect(lane("main").running).toMatchObject({ model: "brightness", version: 1, executionProvider: "cpu" });
    expect(lane("spindle")).toMatchObject({
      running: { model: "loudness", version: 1 },
      deployment: { deployment: "s1", state: "active" },
      model: "loudness",
      priority: 20,
      source: "simulator:bearing",
      rateMax: null,
    });
    expect(agent.state()).toMatchObject({ running: { model: "brightness" }, source: "simulator:parts" });

    fleet.desire([first, await publish(sound(2), "s2", "spindle")], slow);
    await isActive("s2");
    expect(lane("main").running).toMatchObject({ version: 1 });
    expect(fleet.deploymentStates("d1").filter((state) => state === "offered")).toEqual(["offered"]);
    const settled = fleet.predictions.length;
    await until(() => fleet.predictions.length >= settled + 8, "batches of both come");
    const rows = fleet.predictions.slice(settled, settled + 8).reduce((sum, { count }) => sum + count, 0) / 8;
    expect(rows).toBeGreaterThan(8);
    for (const model of ["brightness", "loudness"]) {
      const numbers = stored(agent.boot, model);
      expect(numbers).toEqual(numbers.map((_, index) => numbers[0]! + index));
    }
    const feedback = { prediction: `${agent.boot}-${stored(agent.boot, "loudness")[0]!}`, correct: true };
    expect((await post("/feedback", feedback)).status).toBe(202);
    const unused = { prediction: `${agent.boot}-${AGENT_LIMITS.predictionBlock - 1}`, correct: true };
    expect((await post("/feedback", unused)).status).toBe(404);

    await agent.stop();
    expectAllStored(agent.boot, agent.state().counters.predictions);
    expect(existsSync(join(folder.path, "state", "deployment-spindle.json"))).toBe(true);
    agent = await start([CAMERA, SPINDLE]);
    const { boot } = agent;
    await until(
      () => stored(boot, "loudness").length > 5 && stored(boot, "brightness").length > 5,
      "both predict",
    );
    expect([lane("main").running?.version, lane("spindle").running?.version]).toEqual([1, 2]);
    expect(fleet.deploymentStates("s2").filter((state) => state === "offered")).toEqual(["offered"]);
  }, 120_000);

  it("go on after kill -9 of the host, and lose and double nothing", async () => {
    fleet.desire([await publish(image(), "d1"), await publish(sound(), "s1", "spindle")]);
    agent = await start([CAMERA, SPINDLE]);
    await isActive("d1", "s1");
    for (let round = 1; round <= 3; round++) {
      const before = [stored(agent.boot, "brightness").length, stored(agent.boot, "loudness").length];
      process.kill(agent.hostPid()!, "SIGKILL");
      await until(
        () =>
          stored(agent!.boot, "brightness").length > before[0]! + 10 &&
          stored(agent!.boot, "loudness").length > before[1]! + 10,
        "both lanes predict again",
      );
      expect(agent.state().counters.hostRestarts).toBe(round);
    }
    await agent.stop();
    expectAllStored(agent.boot, agent.state().counters.predictions);
  }, 120_000);

  it("share one model, and neither loses its own stream of numbers", async () => {
    const first = await publish(image(), "d1");
    fleet.desire([first, { ...first, deployment: "d2", lane: "second" }]);
    agent = await start([
      "simulator:parts?fps=20&model=brightness",
      "second=simulator:parts?seed=2&fps=20&model=brightness",
    ]);
    await isActive("d1", "d2");
    await until(() => lane("main").framesSeen > 20 && lane("second").framesSeen > 20, "frames of both");
    expect(lane("second").running?.packageSha256).toBe(first.packageSha256);
    // A roll-back of one lane leaves the model to the other.
    fleet.desire([first, await publish(image(2), "d3", "second")]);
    await isActive("d3");
    const { predictions } = agent.state().counters;
    await until(() => agent!.state().counters.predictions > predictions + 20, "both go on");
    expect([lane("main").running?.version, lane("second").running?.version]).toEqual([1, 2]);
    await agent.stop();
    expectAllStored(agent.boot, agent.state().counters.predictions);
  }, 120_000);

  it("take as many frames as their rate allows, and count the others apart", async () => {
    fleet.desire([await publish(image(), "d1")]);
    agent = await start(["simulator:parts?fps=50&rate=5"]);
    await isActive("d1");
    await until(() => lane("main").framesSeen > 100, "a hundred frames");
    const { framesSeen, framesSkipped, framesDropped } = lane("main");
    expect(framesSkipped).toBeGreaterThan(framesSeen * 0.7);
    expect(framesSkipped + framesDropped).toBeLessThan(framesSeen);
    expect(agent.state().counters.framesDropped).toBe(framesDropped);
  }, 60_000);

  it("run several frames at once where several wait, each with its own result", async () => {
    const images = join(folder.path, "images");
    await mkdir(images);
    for (const value of [0, 80, 170, 255]) await writeFile(join(images, `${value}.png`), await pngOf(value));
    const batched = writeTestPackage(join(folder.path, "batched"), { version: 1, dynamicBatch: true });
    fleet.desire([await publish(batched, "d1")]);
    agent = await start([`folder:${images}?fps=500&batch=4`]);
    await isActive("d1");
    await until(() => agent!.state().counters.predictions > 400, "hundreds of predictions");
    await agent.stop();
    expectAllStored(agent.boot, agent.state().counters.predictions);
    // The same four images over and over, in their order: two of them dark, two light.
    const classes = fleet.predictions.flatMap((batch) => [...batch.class]);
    const start0 = classes.findIndex((value, index) => value === 0 && classes[index + 1] === 0);
    for (const [index, value] of classes.slice(start0).entries()) expect(value).toBe(index % 4 < 2 ? 0 : 1);
    expect(agent.state().counters.framesFailed).toBe(0);
  }, 60_000);

  it("tell the fleet when there is none for an assignment, once", async () => {
    agent = await start([CAMERA]);
    await until(() => fleet.online === true, "it is connected");
    const assignment = await publish(sound(), "s1", "spindle");
    fleet.desire([assignment]);
    await until(() => fleet.deploymentStates("s1").length > 0, "it is refused");
    const { revision } = fleet.desire([assignment]);
    await until(() => agent!.state().desiredRevision === revision, "it follows");
    expect(fleet.deploymentStates("s1")).toEqual(["rejected"]);
    const [event] = fleet.events.filter(({ data }) => data.type === "deployment");
    expect(event?.data).toMatchObject({ error: { code: "lane_unknown" } });
  }, 60_000);

  it("keep the packages of a lane that is not there in one start", async () => {
    fleet.desire([await publish(image(), "d1"), await publish(sound(), "s1", "spindle")]);
    agent = await start([CAMERA, SPINDLE]);
    await isActive("d1", "s1");
    await agent.stop();
    agent = await start([CAMERA]);
    await until(() => lane("main").running !== null, "the first lane runs");
    await agent.stop();
    agent = await start([CAMERA, SPINDLE]);
    await until(() => lane("spindle").running !== null, "the second lane runs again");
    expect(fleet.deploymentStates("s1").filter((state) => state === "downloading")).toEqual(["downloading"]);
  }, 120_000);
});

describe("a host that must go", () => {
  it("is started anew in order when it holds too much memory, without a loss", async () => {
    fleet.desire([await publish(image(), "d1"), await publish(sound(), "s1", "spindle")]);
    agent = await start([CAMERA, SPINDLE]);
    await isActive("d1", "s1");
    await agent.stop();
    agent = await start([CAMERA, SPINDLE], { hostBytesMax: 1024 * 1024 });
    await until(() => agent!.state().counters.hostRestarts === 1, "it is started anew");
    const { predictions } = agent.state().counters;
    await until(() => agent!.state().counters.predictions > predictions + 20, "both lanes go on");
    expect(fleet.online).toBe(true);
    // A ceiling that even a new host is above is said, not followed for ever.
    expect(agent.state().counters.hostRestarts).toBe(1);
    const warning = agent.state().warnings.find(({ code }) => code === "host_memory_exceeded");
    expect(warning?.message).toContain("give it more");
    expect(fleet.events.some(({ data }) => data.type === "crash")).toBe(false);
    await agent.stop();
    expectAllStored(agent.boot, agent.state().counters.predictions);
  }, 120_000);

  it("is killed when a run never ends, and the frame is not run again", async () => {
    const images = join(folder.path, "images");
    await mkdir(images);
    // Gray without black: what this graph loops over for ever. The other one has black pixels.
    await writeFile(join(images, "a.png"), await pngOf(128));
    await writeFile(join(images, "b.png"), await pngOf(0));
    const endless = writeTestPackage(join(folder.path, "endless"), { version: 1, endlessWithoutBlack: true });
    const assignment = await publish(endless, "d1");
    fleet.desire([
      { ...assignment, probation: { seconds: 0, predictions: 0 } },
      await publish(sound(), "s1", "spindle"),
    ]);
    agent = await start([`folder:${images}?fps=10`, SPINDLE]);
    const quarantine = join(folder.path, "state", "quarantine.json");
    await until(() => existsSync(quarantine), "the frame is put away");
    expect(fleet.online).toBe(true);
    const { frames } = JSON.parse(await readFile(quarantine, "utf8")) as { frames: string[] };
    expect(frames.length).toBe(1);
    await until(() => fleet.events.some(({ data }) => data.type === "crash"), "the crash is told");
    const crash = fleet.events.find(({ data }) => data.type === "crash");
    expect(crash?.data).toMatchObject({
      frameSha256: frames[0],
      reason: expect.stringContaining("unresponsive"),
    });
    const { hostRestarts } = agent.state().counters;
    const before = stored(agent.boot, "brightness").length;
    await until(
      () => stored(agent!.boot, "brightness").length > before + 10,
      "the other frame is predicted on",
    );
    await until(() => stored(agent!.boot, "loudness").length > 10, "and the other lane too");
    expect(agent.state().counters.hostRestarts).toBe(hostRestarts);
  }, 120_000);
});

describe("an execution provider", () => {
  it("that is killed is left for the next one, and the agent predicts on", async () => {
    fleet.desire([await publish(image(), "d1")]);
    const url = await serve(join(folder.path, "image-1", "fp32.onnx"), "brightness");
    agent = await start(["simulator:parts?fps=20"], { provider: url });
    await isActive("d1");
    const provider = `oip+${url}/v2/models/brightness`;
    expect(lane("main").running).toMatchObject({ executionProvider: provider });
    await until(() => agent!.state().counters.predictions > 10, "it predicts on the server");
    child!.kill("SIGKILL");
    await until(() => lane("main").running?.executionProvider === "cpu", "the processor takes over");
    const { predictions } = agent.state().counters;
    await until(() => agent!.state().counters.predictions > predictions + 20, "it predicts on");
    const { warnings, counters } = agent.state();
    expect(counters.hostRestarts).toBe(0);
    expect(warnings.find(({ code }) => code === "provider_failed")?.message).toContain(provider);
    expect(fleet.online).toBe(true);
    await agent.stop();
    expectAllStored(agent.boot, agent.state().counters.predictions);
  }, 120_000);

  it("that was asked for and is not there is told, and the processor runs the model", async () => {
    fleet.desire([await publish(image(), "d1")]);
    agent = await start(["simulator:parts?fps=20"], { provider: "http://127.0.0.1:9" });
    await isActive("d1");
    expect(lane("main").running).toMatchObject({ executionProvider: "cpu" });
    const warning = agent.state().warnings.find(({ code }) => code === "provider_unavailable");
    expect(warning?.message).toContain("127.0.0.1:9");
  }, 120_000);
});

describe("heat", () => {
  it("slows lanes down and takes the cheaper variant, until it is over", async () => {
    const thermalPath = join(folder.path, "thermal");
    await mkdir(join(thermalPath, "thermal_zone0"), { recursive: true });
    const temperature = join(thermalPath, "thermal_zone0", "temp");
    await writeFile(temperature, "50000");
    const both = writeTestPackage(join(folder.path, "both"), { version: 1, withInt8: true });
    fleet.desire([await publish(both, "d1")]);
    const governorTimes = { holdMs: 1_000, restoreMs: 1_000 };
    agent = await start(["simulator:parts?fps=20"], { thermalPath, governorTimes });
    await isActive("d1");
    expect(lane("main").running?.variant).toBe("fp32");
    await until(() => lane("main").framesSeen > 60, "its rate is known");
    await writeFile(temperature, "95000");
    await until(() => lane("main").rateMax !== null, "it is slowed down");
    expect(lane("main").rateMax).toBeLessThanOrEqual(11);
    await until(() => lane("main").running?.variant === "int8", "it takes the cheaper variant");
    const warning = agent.state().warnings.find(({ code }) => code === "device_hot");
    expect(warning).toMatchObject({ severity: "warning", message: expect.stringContaining("95 °C") });
    const { predictions } = agent.state().counters;
    await until(() => agent!.state().counters.predictions > predictions + 3, "it predicts on");
    await writeFile(temperature, "50000");
    await until(() => lane("main").rateMax === null, "it gets its rate back");
    await until(() => lane("main").running?.variant === "fp32", "and its variant");
    expect(agent.state().warnings.some(({ code }) => code === "device_hot")).toBe(false);
  }, 120_000);
});

describe("routeAssignment", () => {
  const lanes = [
    { name: "cam", model: "parts" },
    { name: "other", model: null },
  ];
  it.each([
    ["the lane that it names", { lane: "cam", model: "parts" }, "cam"],
    ["one for any model", { lane: "other", model: "bearing" }, "other"],
    ["the lane for its model where it names none", { lane: "main", model: "parts" }, "cam"],
    ["any lane where none is for its model", { lane: "main", model: "bearing" }, "other"],
    ["none where its lane is for another model", { lane: "cam", model: "bearing" }, undefined],
    ["none where there is no such lane", { lane: "gone", model: "parts" }, undefined],
  ])("gives %s", (_, assignment, wanted) => {
    expect(routeAssignment(assignment, lanes)).toBe(wanted);
  });
});

function post(path: string, body: object): Promise<Response> {
  return fetch(`${agent!.localUrl}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}

/** A server in a process of its own; its address. */
async function serve(file: string, model: string): Promise<string> {
  const entry = fileURLToPath(new URL("../testing/oip-server.test.entry.js", import.meta.url));
  const server = spawn(process.execPath, [entry, file, model, "0"], { stdio: ["ignore", "pipe", "inherit"] });
  child = server;
  return new Promise((resolve, reject) => {
    createInterface({ input: server.stdout }).once("line", resolve);
    server.once("exit", (code) => reject(new Error(`the server ended with ${code}`)));
  });
}

/** An 8×8 gray image of one value. */
async function pngOf(value: number): Promise<Uint8Array> {
  const { default: sharp } = await import("sharp");
  const raw = { width: 8, height: 8, channels: 1 } as const;
  return new Uint8Array(await sharp(new Uint8Array(64).fill(value), { raw }).png().toBuffer());
}
