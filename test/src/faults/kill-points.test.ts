import { fork } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { PERSIST_POINTS, type PersistPoint } from "@fieldloop/device-agent";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AgentProgram, endPrograms, ServerProgram } from "../kit/fleet.js";
import { randomOf, testSeed } from "../kit/random.js";
import { drawn } from "../kit/thorough.js";
import { until } from "../kit/wait.js";
import { assignmentOf, desiredOf } from "./fault-device.js";
import type { KillPlan } from "./kill-entry.js";
import { namesIn, Stage, Table } from "./stage.js";

/**
 * The crash table, last part: processes that are really killed (SIGKILL), at the persist points that the code names.
 *
 * At every point of an update, before and after it: a process with the update part of an agent over the real disk. At some of them: whole
 * agents with their inference host, enrolled with a real server, updated by a rollout. What is simulated in the first is what
 * `power-cut.test.ts` says, but for the disk; in the second nothing is.
 */
const ENTRY = fileURLToPath(new URL("./kill-entry.js", import.meta.url));
const stage = new Stage();
const table = new Table();
const seed = testSeed();

beforeAll(async () => {
  console.log(`FIELDLOOP_TEST_SEED=${seed}`);
  await stage.open();
});
afterAll(async () => {
  await endPrograms();
  stage.close();
  console.log(`\n${table.toString()}\n`);
});

/** Points that an update which goes well has none of; each is cut by `power-cut.test.ts`. */
const ELSEWHERE: ReadonlySet<PersistPoint> = new Set([
  "state:rejected",
  "state:failed",
  "state:timed_out",
  "state:rolled_back",
  "state:cancelled",
  "state:shadowing",
  "start",
  "ready",
  "returned",
  "set_aside",
  "part_drop",
  "copy_drop",
  "package_clear",
]);

let plans = 0;

/** Starts a process by a plan; resolves with the signal that ended it. */
function ended(plan: KillPlan, onMessage: (message: unknown) => void = () => undefined): Promise<string> {
  const path = join(stage.path, `plan-${++plans}.json`);
  writeFileSync(path, JSON.stringify(plan));
  const child = fork(ENTRY, [path], { stdio: ["ignore", "ignore", "inherit", "ipc"] });
  child.on("message", onMessage);
  return new Promise((resolve) =>
    child.once("exit", (code, signal) => resolve(signal ?? `exit ${code ?? 0}`)),
  );
}

async function killUpdater(point: PersistPoint, phase: "before" | "after"): Promise<void> {
  const directory = await stage.updated();
  const packages = stage.packages.slice(0, 3).map(({ dir }) => dir);
  const context = `${phase} ${point}`;
  expect({ context, end: await ended({ kind: "updater", directory, point, phase, packages }) }).toEqual({
    context,
    end: "SIGKILL",
  });
  const device = stage.device(await stage.server(), directory);
  try {
    await device.start();
    const atStart = stage.versionOf(device.running);
    expect([1, 2], context).toContain(atStart);
    await device.predicts();
    device.receive(desiredOf(10, [assignmentOf(stage.packages[2]!, "d9")]));
    await device.settled("d9");
    const atEnd = stage.versionOf(device.running);
    expect({ context, state: device.state, atEnd }).toEqual({ context, state: "active", atEnd: 2 });
    await device.predicts();
    await device.until("it is tidy", () => namesIn(directory, "staging").length === 0);
    table.count("kill -9 of the update's process", `version ${atEnd}, at once ${atStart}`);
  } finally {
    await device.stop();
    rmSync(directory, { recursive: true, force: true });
  }
}

describe("kill -9", { timeout: 240_000 }, () => {
  it("of the update's process before and after every persist point", async () => {
    const points = PERSIST_POINTS.filter((point) => !ELSEWHERE.has(point));
    const all = points.flatMap((point) => [[point, "before"] as const, [point, "after"] as const]);
    const cases = drawn(all, 0.3, randomOf(seed, 1));
    // Two at a time: half of it is the start of a process.
    await Promise.all(
      [0, 1].map(async (half) => {
        for (const [point, phase] of cases.filter((_, index) => index % 2 === half))
          await killUpdater(point, phase);
      }),
    );
  });

  it("of whole agents, in the midst of an update by a rollout", async () => {
    const server = await ServerProgram.start({ folder: stage.path });
    const device = "killed-1";
    const agent = new AgentProgram({ folder: stage.path, device, source: "simulator:parts?fps=30" });
    const [first, ...others] = stage.packages;
    const version = await server.publish(first!);
    await agent.start({ server: server.url, token: await server.enrolmentToken() });
    const { rollout } = await server.rollOut(version, [device]);
    expect((await server.settled(rollout, 60_000)).state).toBe("succeeded");
    await agent.stop();
    const moments: [PersistPoint, "before" | "after"][] = [
      ["part_sync", "before"],
      ["package_install", "after"],
      ["state:probation", "after"],
    ];
    for (const [index, [point, phase]] of drawn(moments, 0, randomOf(seed, 2)).entries()) {
      const next = await server.publish(others[index]!);
      const going = await server.rollOut(next, [device]);
      const plan: KillPlan = { kind: "agent", directory: agent.stateDir, point, phase, packages: [] };
      expect(await ended(plan)).toBe("SIGKILL");
      await agent.start();
      await agent.predicts(3);
      expect((await server.settled(going.rollout, 60_000)).state).toBe("succeeded");
      await until("the fleet is told the running hash", async () => {
        const { state } = await server.device(device);
        return state?.running?.packageSha256 === others[index]!.packageSha256;
      });
      await agent.stop();
      table.count("kill -9 of a whole agent", `version ${next.version}`);
    }
    await server.stop();
  });
});
