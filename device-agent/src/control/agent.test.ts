import { join } from "node:path";
import { decodeMessage, DESIRED_TYPE, createSigningKey, sign, encodeMessage } from "@fieldloop/protocol";
import type { EventData } from "@fieldloop/protocol";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createAgentLog } from "../log.js";
import { TestFleet, until } from "../testing/fleet.test.kit.js";
import { scratchFolder, writeTestPackage } from "../testing/package.test.kit.js";
import { type AgentHandle, startAgent } from "./agent.js";

let folder: Awaited<ReturnType<typeof scratchFolder>>;
let fleet: TestFleet;
let agent: AgentHandle | undefined;
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
  await agent?.stop();
  agent = undefined;
  await fleet.stop();
  await folder.remove();
});

function start(source = "simulator:parts?fps=30&feedback=0.5&feedbackDelayMs=100"): Promise<AgentHandle> {
  return startAgent({
    directory: join(folder.path, "state"),
    server: fleet.serverUrl,
    token: "fle_once",
    source,
    env: {},
    log,
  });
}

/** Numbers of every stored prediction, by boot. */
function storedNumbers(boot: number): number[] {
  return fleet.predictions
    .filter((batch) => batch.boot === boot)
    .flatMap((batch) => Array.from({ length: batch.count }, (_, index) => batch.firstN + index));
}

describe("startAgent", () => {
  it("enrols, installs, predicts, samples, tells truth, updates without a dropped frame, and stops with nothing left", async () => {
    const first = await fleet.publish(await writeTestPackage(join(folder.path, "v1"), { version: 1 }), "d1");
    fleet.desire([first]);
    // So slow that a machine that stands still for half a second makes the source miss nothing: what is lost, the swap lost.
    agent = await start("simulator:parts?fps=5&feedback=0.5&feedbackDelayMs=100");
    await until(() => fleet.deploymentStates("d1").includes("active"), "version 1 is active");
    expect(fleet.deploymentStates("d1")).toEqual([
      "offered",
      "downloading",
      "verifying",
      "installed",
      "self_testing",
      "activating",
      "probation",
      "active",
    ]);
    await until(() => fleet.state?.running?.version === 1, "the state says so");
    expect(fleet.state?.running?.packageSha256).toBe(first.packageSha256);
    await until(
      () => fleet.samples.some((sample) => sample.metadata?.stratum === "random"),
      "a random sample",
    );
    await until(() => fleet.events.some((event) => event.data.type === "feedback"), "feedback");
    await until(() => fleet.profiles.length > 0, "a profile");
    const sample = fleet.samples[0]!.metadata!;
    expect(sample.mediaType).toBe("image/jpeg");
    const truth = await fetch(`${agent.localUrl}/simulator/truth?prediction=${agent.boot}-${sample.n}`);
    expect(truth.status).toBe(200);

    const second = await fleet.publish(await writeTestPackage(join(folder.path, "v2"), { version: 2 }), "d2");
    fleet.desire([second]);
    await until(() => fleet.deploymentStates("d2").includes("active"), "version 2 is active");
    const swap = fleet.events.find(
      ({ data }) => data.type === "deployment" && data.deployment === "d2" && data.state === "probation",
    );
    expect(swap?.data).toMatchObject({ measured: { framesDroppedDuringSwap: 0 } });
    await until(() => fleet.predictions.at(-1)?.versionRef.version === 2, "predictions of version 2");

    const made = agent.state().counters.predictions;
    expect(made).toBeGreaterThan(10);
    await agent.stop();
    const total = agent.state().counters.predictions;
    const numbers = storedNumbers(agent.boot);
    expect(numbers).toEqual(Array.from({ length: total }, (_, index) => index));
    await until(() => fleet.online === false, "it said that it is offline");
  }, 120_000);

  it("obeys another director once the targets keys have named it, and the one before no longer", async () => {
    agent = await start();
    const old = fleet.desire([]);
    await until(() => agent!.state().desiredRevision === old.revision, "it follows the first director");
    const successor = createSigningKey((length) => new Uint8Array(length).fill(21));
    const told = (revision: number) => ({ ...old, revision });
    fleet.sendDesired(fleet.signDesired(told(old.revision + 1), successor));
    await until(
      () => agent!.state().warnings.some(({ code }) => code === "desired_signature_invalid"),
      "nobody has named the successor",
    );
    fleet.direct(successor);
    fleet.sendDesired(fleet.signDesired(told(old.revision + 2), successor));
    await until(() => agent!.state().desiredRevision === old.revision + 2, "it follows the second director");
    expect(agent.state().warnings).toEqual([]);
    fleet.sendDesired(fleet.signDesired(told(old.revision + 3)));
    await until(
      () => agent!.state().warnings.some(({ code }) => code === "desired_signature_invalid"),
      "the first director is refused",
    );
    // What it accepted verifies at the next start, with the keys that it has on disk.
    await agent.stop();
    agent = await start();
    expect(agent.state().desiredRevision).toBe(old.revision + 2);
  }, 120_000);

  it("goes on after kill -9 of the host: numbers continue, nothing is lost or doubled", async () => {
    fleet.desire([
      await fleet.publish(await writeTestPackage(join(folder.path, "v1"), { version: 1 }), "d1"),
    ]);
    agent = await start();
    await until(() => fleet.deploymentStates("d1").includes("active"), "version 1 is active");
    for (let round = 1; round <= 2; round++) {
      const before = agent.state().counters.predictions;
      process.kill(agent.hostPid()!, "SIGKILL");
      await until(() => agent!.state().counters.predictions > before + 5, "it predicts again");
      expect(agent.state().counters.hostRestarts).toBe(round);
    }
    await until(() => fleet.events.some(({ data }) => data.type === "crash"), "the crash is told");
    await agent.stop();
    const total = agent.state().counters.predictions;
    expect(storedNumbers(agent.boot)).toEqual(Array.from({ length: total }, (_, index) => index));
  }, 120_000);

  it("keeps what it has to say while the broker is gone, and starts again with its own identity", async () => {
    fleet.desire([
      await fleet.publish(await writeTestPackage(join(folder.path, "v1"), { version: 1 }), "d1"),
    ]);
    agent = await start();
    await until(() => fleet.deploymentStates("d1").includes("active"), "version 1 is active");
    await fleet.cutBroker();
    const before = agent.state().counters.predictions;
    await until(() => agent!.state().counters.predictions > before + 20, "it predicts on");
    await agent.stop();
    const firstBoot = agent.boot;
    const firstTotal = agent.state().counters.predictions;
    await fleet.returnBroker();
    agent = await startAgent({
      directory: join(folder.path, "state"),
      source: "simulator:parts?fps=30",
      env: {},
      log,
    });
    expect(agent.boot).toBe(firstBoot + 1);
    await until(() => storedNumbers(firstBoot).length === firstTotal, "what it kept arrives");
    await until(() => storedNumbers(agent!.boot).length > 5, "and the new boot's after it");
    expect(storedNumbers(firstBoot)).toEqual(Array.from({ length: firstTotal }, (_, index) => index));
    expect(fleet.verdicts.some((verdict) => verdict.endsWith("gap") || verdict.endsWith("superseded"))).toBe(
      false,
    );
  }, 120_000);

  it("returns to the version before when the new one kills its host", async () => {
    const first = await fleet.publish(await writeTestPackage(join(folder.path, "v1"), { version: 1 }), "d1");
    fleet.desire([first]);
    agent = await start();
    await until(() => fleet.deploymentStates("d1").includes("active"), "version 1 is active");
    const deadly = await writeTestPackage(join(folder.path, "v2"), { version: 2, deadlyWithoutBlack: true });
    fleet.desire([{ ...(await fleet.publish(deadly, "d2")), probation: { seconds: 60, predictions: 100 } }]);
    const given = (): EventData | undefined =>
      fleet.events
        .map(({ data }) => data)
        .find((data) => data.type === "deployment" && data.deployment === "d2" && data.error !== undefined);
    await until(() => given() !== undefined, "version 2 is given up");
    const ending = given();
    // The first frame may kill the host before it could say that it had activated.
    expect([
      ["rolled_back", "probation_failed"],
      ["failed", "host_crashed"],
    ]).toContainEqual(ending?.type === "deployment" ? [ending.state, ending.error?.code] : []);
    await until(() => fleet.events.some(({ data }) => data.type === "crash"), "the crash is told");
    const crash = fleet.events.find(({ data }) => data.type === "crash");
    expect(crash?.data).toMatchObject({
      reason: "SIGFPE",
      frameSha256: expect.stringMatching(/^[0-9a-f]{64}$/) as string,
    });
    const before = agent.state().counters.predictions;
    await until(() => agent!.state().counters.predictions > before + 5, "version 1 predicts on");
    expect(agent.state().running).toMatchObject({ version: 1, packageSha256: first.packageSha256 });
  }, 120_000);

  it("follows the last of several desired states that arrive at once", async () => {
    agent = await start();
    await until(() => fleet.online === true, "it is connected");
    const assignment = await fleet.publish(
      await writeTestPackage(join(folder.path, "v1"), { version: 1 }),
      "d1",
    );
    for (let count = 0; count < 8; count++) fleet.desire([]);
    const { revision } = fleet.desire([assignment]);
    await until(() => fleet.deploymentStates("d1").includes("active"), "version 1 is active");
    expect(agent.state().desiredRevision).toBe(revision);
    expect(agent.state().warnings).toEqual([]);
  }, 40_000);

  it("refuses a desired state that is forged, older or another device's, and goes on", async () => {
    fleet.desire([
      await fleet.publish(await writeTestPackage(join(folder.path, "v1"), { version: 1 }), "d1"),
    ]);
    agent = await start();
    await until(() => fleet.deploymentStates("d1").includes("active"), "version 1 is active");
    const current = fleet.desire([]);
    await until(() => agent!.state().desiredRevision === current.revision, "the newer revision is followed");
    fleet.sendDesired(fleet.signDesired({ ...current, revision: 1 }));
    await until(
      () => agent!.state().warnings.some(({ code }) => code === "desired_rollback_refused"),
      "the older is refused",
    );
    const stranger = createSigningKey((length) => new Uint8Array(length).fill(7));
    fleet.sendDesired(fleet.signDesired({ ...current, revision: 99 }, stranger));
    await until(
      () => agent!.state().warnings.some(({ code }) => code === "desired_signature_invalid"),
      "the forged is refused",
    );
    fleet.sendDesired(
      sign(DESIRED_TYPE, encodeMessage("desired", { ...current, revision: 99, device: "other" }), fleet.key),
    );
    fleet.sendDesired(new Uint8Array([1, 2, 3]));
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(agent.state().desiredRevision).toBe(current.revision);
    expect(agent.state().running?.version).toBe(1);
    expect(decodeMessage("state", encodeMessage("state", agent.state())).boot).toBe(agent.boot);
  }, 120_000);
});
