import { execFile, spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { promisify } from "node:util";
import pino from "pino";
import { describe, expect, it } from "vitest";
import { type IdleLook, inIdleScratchHost } from "./host-process.js";
import { launcherWhenIdle } from "./priority.js";

const run = promisify(execFile);
const isLinux = process.platform === "linux";
/** SCHED_IDLE of linux/sched.h. */
const SCHED_IDLE = 5;

/** Fields 19 and 41 of proc_pid_stat(5). */
async function scheduling(path: string): Promise<{ nice: number; policy: number }> {
  const fields = (await readFile(`${path}/stat`, "utf8")).replace(/^.*\) /s, "").split(" ");
  return { nice: Number(fields[16]), policy: Number(fields[38]) };
}

/** In a process of its own, with what the module exports. */
function runModule(program: string, env: NodeJS.ProcessEnv = process.env): Promise<{ stdout: string }> {
  const module = JSON.stringify(new URL("./priority.js", import.meta.url).href);
  const text = `const { launcherWhenIdle, lowerHelperThreads } = await import(${module});\n${program}`;
  return run(process.execPath, ["--input-type=module", "--eval", text], { env });
}

describe("a scratch host that has what others leave", () => {
  const options = { workingDirectory: tmpdir(), env: process.env, log: pino({ level: "silent" }) };
  const request = { kind: "facts", directory: tmpdir() } as const;
  const busy = (share: number): IdleLook => ({ others: { read: () => share }, everyMs: 1 });

  it("does nothing for somebody who was gone before it began", async () => {
    const asked = inIdleScratchHost(options, request, 30_000, AbortSignal.abort());
    await expect(asked).rejects.toMatchObject({ code: "host_crashed" });
  });

  it("starts again with its part of the machine where they leave nothing", async () => {
    const others = { shares: [0, 1], read: () => others.shares.shift() ?? 0 };
    expect(
      await inIdleScratchHost(options, request, 60_000, undefined, { others, everyMs: 1 }),
    ).toHaveProperty("arch");
    expect(others.shares).toEqual([]);
  });

  it("goes on where they leave something", async () => {
    expect(await inIdleScratchHost(options, request, 60_000, undefined, busy(0.5))).toHaveProperty("arch");
  });
});

describe.runIf(isLinux)("a process that makes way for frames", () => {
  it("and what it starts run where nobody else wants to", async () => {
    const launcher = await launcherWhenIdle();
    if (launcher.length === 0) return console.log("skipped: there is no chrt here");
    const command = [...launcher, "sh", "-c", "sleep 60 & echo $!; wait"];
    const child = spawn(command[0]!, command.slice(1), { stdio: ["ignore", "pipe", "ignore"] });
    try {
      const grandchild = Number(
        await new Promise((resolve) => child.stdout.once("data", (data: Buffer) => resolve(data.toString()))),
      );
      for (const pid of [child.pid!, grandchild]) {
        expect((await scheduling(`/proc/${pid}`)).policy).toBe(SCHED_IDLE);
      }
      process.kill(grandchild);
    } finally {
      child.kill();
    }
  });

  it("is started as any other where the system has no such thing", async () => {
    const { stdout } = await runModule("console.log(JSON.stringify(await launcherWhenIdle()))", { PATH: "" });
    expect(JSON.parse(stdout)).toEqual([]);
  });

  it("lowers the threads that help it, not itself and what it starts", async () => {
    const { stdout } = await runModule(`
      await lowerHelperThreads();
      const { readFileSync, readdirSync } = await import("node:fs");
      const { execFileSync } = await import("node:child_process");
      const nice = (text) => Number(text.replace(/^.*\\) /s, "").split(" ")[16]);
      const threads = readdirSync("/proc/self/task").filter((thread) => Number(thread) !== process.pid);
      const helpers = threads.map((thread) => nice(readFileSync("/proc/self/task/" + thread + "/stat", "utf8")));
      const child = nice(execFileSync("cat", ["/proc/self/stat"], { encoding: "utf8" }));
      console.log(JSON.stringify({ own: nice(readFileSync("/proc/self/stat", "utf8")), child, helpers }));`);
    const { own, child, helpers } = JSON.parse(stdout) as { own: number; child: number; helpers: number[] };
    const before = (await scheduling("/proc/self")).nice;
    expect([own, child]).toEqual([before, before]);
    expect(helpers.length).toBeGreaterThan(0);
    expect(new Set(helpers)).toEqual(new Set([10]));
  });
});
