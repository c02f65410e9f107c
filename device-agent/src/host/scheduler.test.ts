import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AGENT_LIMITS } from "../limits.js";
import { pickNext, Scheduler, type Task } from "./scheduler.js";

/** A lane whose turns end when the test says so, over a clock of the test's. */
class TestTask implements Task {
  readonly resource: object;
  readonly runs: number[] = [];
  waitingSince: number | undefined;
  #end: (() => void) | undefined;

  constructor(
    readonly name: string,
    readonly priority: number,
    readonly threadCount = 1,
    resource?: object,
  ) {
    this.resource = resource ?? this;
  }
  get running(): boolean {
    return this.#end !== undefined;
  }
  run(): Promise<void> {
    this.runs.push(this.waitingSince!);
    return new Promise((resolve) => (this.#end = resolve));
  }
  /** The turn in hand ends; undefined means that nothing waits then. */
  async end(waitingSince: number | undefined): Promise<void> {
    this.waitingSince = waitingSince;
    const end = this.#end;
    this.#end = undefined;
    end?.();
    await Promise.resolve();
    await Promise.resolve();
  }
}

function schedule(tasks: TestTask[], threadCount: number): { scheduler: Scheduler; time: { now: number } } {
  const time = { now: 0 };
  return { scheduler: new Scheduler({ tasks, threadCount, now: () => time.now }), time };
}

describe("pickNext", () => {
  it("takes the highest priority, of equals the one that waited longest", () => {
    const waiting = [
      { name: "low", priority: 10, since: 0 },
      { name: "late", priority: 50, since: 5 },
      { name: "early", priority: 50, since: 1 },
    ];
    expect(pickNext(waiting, 10)?.name).toBe("early");
    expect(pickNext([], 10)).toBeUndefined();
  });

  it("starves nobody, however high the others are", () => {
    const lane = fc.record({ priority: fc.integer({ min: 0, max: 100 }) });
    const property = fc.property(
      fc.array(lane, { minLength: 2, maxLength: 8 }),
      fc.integer({ min: 1, max: 40 }),
      (lanes, runMs) => {
        // Every lane always has a frame: the worst that an overload can be.
        const waiting = lanes.map(({ priority }, index) => ({ index, priority, since: 0 }));
        const longest = new Map<number, number>();
        for (let now = 0; now < 20_000; now += runMs) {
          const next = pickNext(waiting, now)!;
          longest.set(next.index, Math.max(longest.get(next.index) ?? 0, now - next.since));
          next.since = now + runMs;
        }
        const boundMs = 100 * AGENT_LIMITS.laneAgeingMs + lanes.length * runMs;
        expect(longest.size).toBe(lanes.length);
        for (const waitedMs of longest.values()) expect(waitedMs).toBeLessThanOrEqual(boundMs);
      },
    );
    fc.assert(property, { numRuns: 100 });
  });
});

describe("Scheduler", () => {
  it("runs one at a time with one thread, and the higher priority right after a heavy run of a lower", async () => {
    const heavy = new TestTask("heavy", 10);
    const light = new TestTask("light", 90);
    const { scheduler } = schedule([heavy, light], 1);
    heavy.waitingSince = 0;
    scheduler.wake();
    expect(heavy.running).toBe(true);
    light.waitingSince = 5;
    scheduler.wake();
    expect(light.running).toBe(false);
    await heavy.end(6);
    expect(light.running).toBe(true);
    expect(heavy.runs.length).toBe(1);
  });

  it("runs models side by side within the thread budget, one turn at a time on each", async () => {
    const shared = {};
    const tasks = [
      new TestTask("a", 50, 1, shared),
      new TestTask("b", 50, 1, shared),
      new TestTask("c", 50),
      new TestTask("d", 50),
    ];
    const { scheduler } = schedule(tasks, 2);
    for (const task of tasks) task.waitingSince = 0;
    scheduler.wake();
    expect(tasks.map(({ running }) => running)).toEqual([true, false, true, false]);
    await tasks[2]!.end(undefined);
    expect(tasks.map(({ running }) => running)).toEqual([true, false, false, true]);
    await tasks[0]!.end(undefined);
    expect(tasks.map(({ running }) => running)).toEqual([false, true, false, true]);
  });

  it("lets a run that needs every thread go first once it is its turn", async () => {
    const wide = new TestTask("wide", 90, 2);
    const small = new TestTask("small", 10, 1);
    const other = new TestTask("other", 10, 1);
    const { scheduler } = schedule([wide, small, other], 2);
    small.waitingSince = 0;
    scheduler.wake();
    wide.waitingSince = 1;
    other.waitingSince = 1;
    scheduler.wake();
    expect(other.running).toBe(false);
    await small.end(undefined);
    expect([wide.running, other.running]).toEqual([true, false]);
  });

  it("stops when the turns in hand have ended, and starts no other", async () => {
    const task = new TestTask("a", 50);
    const { scheduler } = schedule([task], 1);
    task.waitingSince = 0;
    scheduler.wake();
    let stopped = false;
    const stopping = scheduler.stop().then(() => (stopped = true));
    await Promise.resolve();
    expect(stopped).toBe(false);
    await task.end(1);
    await stopping;
    expect(task.runs.length).toBe(1);
  });
});
