import type { FieldloopError } from "@fieldloop/protocol";
import { describe, expect, it } from "vitest";
import { systemClock } from "../clock.js";
import { LocalTask } from "./local-task.js";
import { Scheduler, type Task } from "./scheduler.js";

const MODEL = { threadCount: 1 };
const never = new AbortController().signal;

interface Asked {
  readonly outcome: Promise<string>;
}

/** What became of a run: `done`, or the code of its error. */
function ask(task: LocalTask, work: () => Promise<void>, timeoutMs = 10_000, signal = never): Asked {
  const outcome = new Promise<string>((resolve) => {
    const run = async (): Promise<void> => {
      await work();
      resolve("done");
    };
    task.add({ run, reject: (error: FieldloopError) => resolve(error.code) }, timeoutMs, signal);
  });
  return { outcome };
}

describe("inferences in their turn", () => {
  it("run one after the other, the oldest first, and tell when nothing is left", async () => {
    let idle = 0;
    const task = new LocalTask(MODEL, systemClock, () => idle++);
    const order: number[] = [];
    const asked = [1, 2, 3].map((n) => ask(task, async () => void order.push(n)));
    const failing = ask(task, () => Promise.reject(new Error("x")));
    expect([task.waiting, task.resource, task.threadCount]).toEqual([4, MODEL, 1]);
    for (let turn = 0; turn < 4; turn++) await task.run();
    expect(await Promise.all(asked.map(({ outcome }) => outcome))).toEqual(["done", "done", "done"]);
    expect(await failing.outcome).toBe("internal");
    expect(order).toEqual([1, 2, 3]);
    expect([idle, task.waitingSince, task.runningMs]).toEqual([1, undefined, 0]);
  });

  it("end unrun when their time is over, nobody wants them, or the host stops", async () => {
    let idle = 0;
    const task = new LocalTask(MODEL, systemClock, () => idle++);
    const unrun = (): Promise<void> => Promise.reject(new Error("it ran"));
    const gone = new AbortController();
    const late = ask(task, unrun, 1);
    const left = ask(task, unrun, 10_000, gone.signal);
    const aborted = ask(task, unrun, 10_000, AbortSignal.abort());
    gone.abort();
    expect(await Promise.all([late, left, aborted].map(({ outcome }) => outcome))).toEqual([
      "timed_out",
      "cancelled",
      "cancelled",
    ]);
    const { FieldloopError } = await import("@fieldloop/protocol");
    const refused = ask(task, unrun);
    task.refuseAll(new FieldloopError("unavailable", "stopping"));
    expect(await refused.outcome).toBe("unavailable");
    expect([idle, task.waiting]).toEqual([2, 0]);
  });

  it("go behind a lane of higher priority, share its model with it, and are not left out for good", async () => {
    let now = 0;
    const local = new LocalTask(MODEL, { ...systemClock, monotonic: () => now }, () => undefined);
    const turns: string[] = [];
    const lane: Task = {
      priority: 80,
      resource: MODEL,
      threadCount: 1,
      // It always has a frame, and waits from the end of the turn before.
      get waitingSince() {
        return turns.length < 400 ? now : undefined;
      },
      async run() {
        turns.push("lane");
        now += 5;
      },
    };
    const scheduler = new Scheduler({ tasks: [lane, local], threadCount: 2, now: () => now });
    const { outcome } = ask(local, async () => {
      turns.push("local");
    });
    scheduler.wake();
    expect(await outcome).toBe("done");
    const before = turns.indexOf("local");
    // 40 levels of 20 ms, at 5 ms a turn.
    expect(before).toBeGreaterThan(100);
    expect(before).toBeLessThan(200);
  });
});
