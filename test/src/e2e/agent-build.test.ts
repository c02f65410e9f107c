import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath, pathToFileURL } from "node:url";
import { AGENT_VERSION } from "@fieldloop/device-agent";
import { afterAll, describe, expect, it } from "vitest";
import { endPrograms, scratchFolder, ServerProgram, type LocalState } from "../kit/fleet.js";
import { commandOf } from "../kit/processes.js";
import { environment } from "../kit/server-process.js";
import { writeTinyPackage } from "../kit/tiny-package.js";
import { until } from "../kit/wait.js";

/** The agent as it is shipped: bundled into one file for each process and thread, and started from those. */
const root = fileURLToPath(new URL("../../..", import.meta.url));
/** Below the workspace: native libraries are found from there. One of its own, as other tests may start agents meanwhile. */
const build = join(root, "cli/dist", `agent-test-${process.pid}`);
const TIMEOUT_MS = 120_000;
const STEP_MS = 60_000;
const scratch = scratchFolder("agent-build");
const agents: ChildProcess[] = [];

afterAll(async () => {
  for (const agent of agents) agent.kill("SIGKILL");
  await endPrograms();
  rmSync(build, { recursive: true, force: true });
  scratch.remove();
});

/** Starts it the way `fieldloop agent` does, and says where its local interface is. */
async function start(args: readonly string[]): Promise<{ agent: ChildProcess; localUrl: string }> {
  const main = pathToFileURL(join(build, "agent.js")).href;
  const script = `(await import(${JSON.stringify(main)})).main(["node", "fieldloop", ...process.argv.slice(1)])`;
  const agent = spawn(
    process.execPath,
    ["--input-type=module", "--eval", script, "--", "agent", "--json", ...args],
    { env: environment(), stdio: ["ignore", "pipe", "inherit"] },
  );
  agents.push(agent);
  for await (const line of createInterface({ input: agent.stdout })) {
    const event = JSON.parse(line) as { event?: string; localUrl?: string };
    if (event.event === "started") return { agent, localUrl: event.localUrl! };
  }
  throw new Error("The agent ended before it started");
}

describe("the agent's own build", () => {
  it("predicts, tests packages and reports like the rest of the workspace", {
    timeout: TIMEOUT_MS,
  }, async () => {
    execFileSync(process.execPath, [join(root, "scripts/bundle.mjs"), build]);
    const folder = scratch.path;
    const server = await ServerProgram.start({ folder });
    const version = await server.publish(await writeTinyPackage(join(folder, "tiny"), { version: 1 }));
    const { agent, localUrl } = await start([
      ...["--name", "bundled", "--state", join(folder, "bundled"), "--port", "0", "--threads", "1"],
      ...["--source", "simulator:parts?fps=30&feedback=0", "--log-level", "warn"],
      ...["--server", server.url, "--enroll", await server.enrolmentToken()],
    ]);
    const { rollout } = await server.rollOut(version, ["bundled"]);
    expect(await server.settled(rollout, STEP_MS)).toMatchObject({ state: "succeeded" });
    const state = await until(
      "the agent predicts",
      async () => {
        const seen = (await (await fetch(`${localUrl}/v1/state`)).json()) as LocalState;
        return seen.counters.predictions > 0 ? seen : undefined;
      },
      { timeoutMs: STEP_MS },
    );
    expect(state.agentVersion).toBe(AGENT_VERSION);
    expect(commandOf(state.hostPid!)).toContain(join(build, "host-main.js"));
    // Routes beyond a monitor's are a file of their own, loaded with the first request for one.
    expect(await (await fetch(`${localUrl}/v2`)).json()).toMatchObject({ name: expect.any(String) });
    agent.kill("SIGTERM");
    expect(await once(agent, "exit")).toEqual([0, null]);
  });
});
