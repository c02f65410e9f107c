import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { AGENT_LIMITS } from "../limits.js";
import { until } from "../testing/fleet.test.kit.js";
import { pngOf } from "../testing/images.test.kit.js";
import { CAMERA, LaneStage, SPINDLE } from "../testing/lanes.test.kit.js";
import { writeTestPackage } from "../testing/package.test.kit.js";
import { routeAssignment } from "./lane-updaters.js";

let stage: LaneStage;
beforeEach(async () => {
  stage = new LaneStage();
  await stage.open();
});
afterEach(() => stage.close());

describe("several lanes", () => {
  it("run a model each, are updated apart, keep their batches large, and are there again after a start", async () => {
    const first = await stage.publish(stage.image(), "d1");
    const slow = { predictionsIntervalSeconds: 0.4 };
    stage.fleet.desire([first, await stage.publish(stage.sound(), "s1", "spindle")], slow);
    await stage.start([CAMERA, SPINDLE]);
    await stage.isActive("d1", "s1");
    expect(stage.lane("main").running).toMatchObject({
      model: "brightness",
      version: 1,
      executionProvider: "cpu",
    });
    expect(stage.lane("spindle")).toMatchObject({
      running: { model: "loudness", version: 1 },
      deployment: { deployment: "s1", state: "active" },
      model: "loudness",
      priority: 20,
      source: "simulator:bearing",
      rateMax: null,
    });
    expect(stage.agent.state()).toMatchObject({
      running: { model: "brightness" },
      source: "simulator:parts",
    });

    stage.fleet.desire([first, await stage.publish(stage.sound(2), "s2", "spindle")], slow);
    await stage.isActive("s2");
    expect(stage.lane("main").running).toMatchObject({ version: 1 });
    expect(stage.fleet.deploymentStates("d1").filter((state) => state === "offered")).toEqual(["offered"]);
    const settled = stage.fleet.predictions.length;
    await until(() => stage.fleet.predictions.length >= settled + 8, "batches of both come");
    const rows =
      stage.fleet.predictions.slice(settled, settled + 8).reduce((sum, { count }) => sum + count, 0) / 8;
    expect(rows).toBeGreaterThan(4);
    for (const model of ["brightness", "loudness"]) {
      const numbers = stage.stored(stage.agent.boot, model);
      expect(numbers).toEqual(numbers.map((_, index) => numbers[0]! + index));
    }
    const feedback = {
      prediction: `${stage.agent.boot}-${stage.stored(stage.agent.boot, "loudness")[0]!}`,
      correct: true,
    };
    expect((await post("/feedback", feedback)).status).toBe(202);
    const unused = { prediction: `${stage.agent.boot}-${AGENT_LIMITS.predictionBlock - 1}`, correct: true };
    expect((await post("/feedback", unused)).status).toBe(404);

    await stage.agent.stop();
    stage.expectAllStored();
    expect(existsSync(join(stage.path, "state", "deployment-spindle.json"))).toBe(true);
    // A lane that is not there in one start keeps its package for the next.
    await stage.start([CAMERA]);
    await until(() => stage.lane("main").running !== null, "the first lane runs alone");
    await stage.agent.stop();
    await stage.start([CAMERA, SPINDLE]);
    const { boot } = stage.agent;
    await until(
      () => stage.stored(boot, "loudness").length > 5 && stage.stored(boot, "brightness").length > 5,
      "both predict",
    );
    expect([stage.lane("main").running?.version, stage.lane("spindle").running?.version]).toEqual([1, 2]);
    expect(stage.fleet.deploymentStates("s2").filter((state) => state === "offered")).toEqual(["offered"]);
    const brought = stage.fleet.deploymentStates("s2").filter((state) => state === "downloading");
    expect(brought).toEqual(["downloading"]);
  }, 120_000);

  it("go on after kill -9 of the host, and lose and double nothing", async () => {
    stage.fleet.desire([
      await stage.publish(stage.image(), "d1"),
      await stage.publish(stage.sound(), "s1", "spindle"),
    ]);
    await stage.start([CAMERA, SPINDLE]);
    await stage.isActive("d1", "s1");
    for (let round = 1; round <= 2; round++) {
      const before = [
        stage.stored(stage.agent.boot, "brightness").length,
        stage.stored(stage.agent.boot, "loudness").length,
      ];
      process.kill(stage.agent.hostPid()!, "SIGKILL");
      await until(
        () =>
          stage.stored(stage.agent.boot, "brightness").length > before[0]! + 10 &&
          stage.stored(stage.agent.boot, "loudness").length > before[1]! + 10,
        "both lanes predict again",
      );
      expect(stage.agent.state().counters.hostRestarts).toBe(round);
    }
    await stage.agent.stop();
    stage.expectAllStored();
  }, 120_000);

  it("share one model, and neither loses its own stream of numbers", async () => {
    const first = await stage.publish(stage.image(), "d1");
    stage.fleet.desire([first, { ...first, deployment: "d2", lane: "second" }]);
    await stage.start([
      "simulator:parts?fps=50&model=brightness",
      "second=simulator:parts?seed=2&fps=50&model=brightness",
    ]);
    await stage.isActive("d1", "d2");
    await until(
      () => stage.lane("main").framesSeen > 20 && stage.lane("second").framesSeen > 20,
      "frames of both",
    );
    expect(stage.lane("second").running?.packageSha256).toBe(first.packageSha256);
    // A roll-back of one lane leaves the model to the other.
    stage.fleet.desire([first, await stage.publish(stage.image(2), "d3", "second")]);
    await stage.isActive("d3");
    const { predictions } = stage.agent.state().counters;
    await until(() => stage.predictions > predictions + 20, "both go on");
    expect([stage.lane("main").running?.version, stage.lane("second").running?.version]).toEqual([1, 2]);
    await stage.agent.stop();
    stage.expectAllStored();
  }, 120_000);

  it("take as many frames as their rate allows, and count the others apart", async () => {
    stage.fleet.desire([await stage.publish(stage.image(), "d1")]);
    const begin = performance.now();
    await stage.start(["simulator:parts?fps=100&rate=5"]);
    await stage.isActive("d1");
    await until(() => stage.lane("main").framesSeen > 100, "a hundred frames");
    const { framesSeen, framesSkipped, framesDropped } = stage.lane("main");
    const allowed = 5 * ((performance.now() - begin) / 1_000) + 1;
    expect(framesSeen - framesSkipped - framesDropped).toBeLessThanOrEqual(allowed);
    expect(framesSkipped).toBeGreaterThan(0);
    expect(framesSkipped + framesDropped).toBeLessThan(framesSeen);
    expect(stage.agent.state().counters.framesDropped).toBe(framesDropped);
  }, 60_000);

  it("run several frames at once where several wait, each with its own result", async () => {
    const images = join(stage.path, "images");
    await mkdir(images);
    for (const value of [0, 80, 170, 255]) await writeFile(join(images, `${value}.png`), await pngOf(value));
    const batched = writeTestPackage(join(stage.path, "batched"), { version: 1, dynamicBatch: true });
    stage.fleet.desire([await stage.publish(batched, "d1")]);
    await stage.start([`folder:${images}?fps=500&batch=4`]);
    await stage.isActive("d1");
    await until(() => stage.predictions > 400, "hundreds of predictions");
    await stage.agent.stop();
    stage.expectAllStored();
    // The same four images over and over, in their order: two of them dark, two light.
    const classes = stage.fleet.predictions.flatMap((batch) => [...batch.class]);
    const start0 = classes.findIndex((value, index) => value === 0 && classes[index + 1] === 0);
    for (const [index, value] of classes.slice(start0).entries()) expect(value).toBe(index % 4 < 2 ? 0 : 1);
    expect(stage.agent.state().counters.framesFailed).toBe(0);
  }, 60_000);

  it("tell the fleet when there is none for an assignment, once", async () => {
    await stage.start([CAMERA]);
    await until(() => stage.fleet.online === true, "it is connected");
    const assignment = await stage.publish(stage.sound(), "s1", "spindle");
    stage.fleet.desire([assignment]);
    await until(() => stage.fleet.deploymentStates("s1").length > 0, "it is refused");
    const { revision } = stage.fleet.desire([assignment]);
    await until(() => stage.agent.state().desiredRevision === revision, "it follows");
    expect(stage.fleet.deploymentStates("s1")).toEqual(["rejected"]);
    const [event] = stage.fleet.events.filter(({ data }) => data.type === "deployment");
    expect(event?.data).toMatchObject({ error: { code: "lane_unknown" } });
  }, 60_000);
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
  return fetch(`${stage.agent.localUrl}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}
