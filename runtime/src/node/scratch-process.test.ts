import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ScratchFailure, ScratchProcess } from "./scratch-process.js";
import { scratchFolder } from "./small-packages.test.kit.js";

const MIB = 2 ** 20;
const CHILD = new URL("./scratch-child.js", import.meta.url).href;
const PROCESS = new URL("./scratch-process.js", import.meta.url).href;

/** Does what it is told: answers, crashes, hangs with its thread blocked, eats memory. */
const ENTRY = `
import { writeSync } from "node:fs";
import { serveScratch } from ${JSON.stringify(CHILD)};
serveScratch(async (request, phase) => {
  phase(request.kind);
  switch (request.kind) {
    case "crash": writeSync(2, "out of luck\\n"); process.kill(process.pid, "SIGSEGV"); for (;;);
    case "exit": process.exit(7);
    case "hang": for (;;);
    case "eat": { const heap = []; for (;;) heap.push(new Uint8Array(${4 * MIB}).fill(1)); }
    default: return { pid: process.pid, data: request.data };
  }
});
`;

let folder: Awaited<ReturnType<typeof scratchFolder>>;
let scratch: ScratchProcess;
let entry: URL;
beforeEach(async () => {
  folder = await scratchFolder();
  const file = join(folder.path, "entry.mjs");
  await writeFile(file, ENTRY);
  entry = pathToFileURL(file);
  scratch = new ScratchProcess(entry, { timeoutMs: 20_000, rssBytesMax: 300 * MIB });
});
afterEach(async () => {
  await scratch.stop();
  await folder.remove();
});

const failure = (request: unknown, timeoutMs?: number) =>
  scratch.ask(request, timeoutMs).then(
    () => expect.unreachable("it answered"),
    (error: unknown) => error as ScratchFailure,
  );

describe("ScratchProcess", () => {
  it("answers from one process, and goes on with another after any end", { timeout: 60_000 }, async () => {
    const data = Float32Array.of(1, 2);
    const first = (await scratch.ask({ kind: "echo", data })) as { pid: number; data: unknown };
    expect(first.data).toEqual(data);
    expect(await scratch.ask({ kind: "echo" })).toMatchObject({ pid: first.pid });

    const crashed = await failure({ kind: "crash" });
    expect(crashed).toBeInstanceOf(ScratchFailure);
    expect(crashed).toMatchObject({ end: "crashed", phase: "crash" });
    expect(crashed.message).toMatch(/signal SIGSEGV \(out of luck\)/);
    expect((await failure({ kind: "exit" })).message).toMatch(/exit code 7/);
    expect(await failure({ kind: "hang" }, 500)).toMatchObject({ end: "timed_out", phase: "hang" });
    expect(await failure({ kind: "eat" })).toMatchObject({
      end: "memory",
      message: "it took more than 300 MiB of memory",
    });
    const last = (await scratch.ask({ kind: "echo" })) as { pid: number };
    expect(last.pid).not.toBe(first.pid);
    await scratch.stop();
    expect(isAlive(last.pid)).toBe(false);
  });

  it("does not outlive its parent, even while its thread is blocked", { timeout: 60_000 }, async () => {
    const parent = spawn(
      process.execPath,
      [
        "--input-type=module",
        "--eval",
        `import { ScratchProcess } from ${JSON.stringify(PROCESS)};
         const scratch = new ScratchProcess(new URL(${JSON.stringify(entry.href)}), { timeoutMs: 60000, rssBytesMax: 1e9 });
         process.stdout.write(String((await scratch.ask({ kind: "echo" })).pid));
         await scratch.ask({ kind: "hang" });`,
      ],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    const [text] = (await once(parent.stdout, "data")) as [Buffer];
    const pid = Number(text.toString());
    expect(isAlive(pid)).toBe(true);
    parent.kill("SIGKILL");
    const deadline = Date.now() + 30_000;
    while (isAlive(pid) && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20));
    expect(isAlive(pid)).toBe(false);
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
