import { canTransition, gateSettingsSchema, ROLLOUT, WAVE, type DeploymentState } from "@fieldloop/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { act, step, type OperatorAction } from "./rollout-step.js";
import type { DeviceObservation, Rollout, RolloutDevice } from "./rollout.js";

const NEW = "b".repeat(64);
const OLD = { model: "parts", version: 1, packageSha256: "a".repeat(64) };
const NONE = { predictions: 0, meanLatencyMs: null, feedback: { successes: 0, count: 0 } };
const GATE = gateSettingsSchema.parse({
  silenceSeconds: 30,
  soakSeconds: 10,
  waveTimeoutSeconds: 120,
  predictionsMin: 50,
});

function makeRollout(waves: readonly (readonly string[])[], overrides: Partial<Rollout> = {}): Rollout {
  return {
    rollout: "rol_1",
    model: "parts",
    version: 2,
    packageSha256: NEW,
    gate: GATE,
    onFailure: "pause",
    offersPerMinute: 1000,
    state: "running",
    reason: null,
    started: 0,
    finished: null,
    waves: waves.map((_, at) => ({
      wave: at + 1,
      state: "pending",
      started: null,
      soakStarted: null,
      watchedSince: null,
      finished: null,
      verdict: null,
    })),
    devices: waves.flatMap((wave, at) =>
      wave.map(
        (device): RolloutDevice => ({
          device,
          wave: at + 1,
          state: "waiting",
          errorCode: null,
          errorMessage: null,
          offered: null,
          updated: null,
          previous: null,
          restore: "none",
          restoreOffered: null,
        }),
      ),
    ),
    ...overrides,
  };
}

interface World {
  rollout: Rollout;
  now: number;
  readonly seen: Map<string, DeviceObservation>;
}

function observe(world: World, device: string, change: Partial<DeviceObservation>): void {
  const before = world.seen.get(device) ?? {
    lastSeen: null,
    running: OLD,
    deployment: null,
    before: NONE,
    after: NONE,
  };
  world.seen.set(device, { ...before, lastSeen: world.now, ...change });
}

function report(
  world: World,
  device: string,
  state: DeploymentState,
  change: Partial<DeviceObservation> = {},
): void {
  const error = state === "failed" || state === "rolled_back";
  observe(world, device, {
    deployment: {
      state,
      errorCode: error ? "self_test_failed" : null,
      errorMessage: error ? "golden case 1" : null,
      updated: world.now,
    },
    ...change,
  });
}

const activate = (world: World, device: string, change: Partial<DeviceObservation> = {}): void =>
  report(world, device, "active", {
    running: { ...OLD, version: 2, packageSha256: NEW },
    after: { predictions: 500, meanLatencyMs: 2, feedback: { successes: 0, count: 0 } },
    ...change,
  });

function advance(world: World, seconds: number): void {
  world.now += seconds * 1000;
  world.rollout = step(world.rollout, world.seen, world.now).rollout;
}

function makeWorld(waves: readonly (readonly string[])[], overrides: Partial<Rollout> = {}): World {
  const world: World = { rollout: makeRollout(waves, overrides), now: 1_000_000, seen: new Map() };
  for (const device of waves.flat()) observe(world, device, {});
  return world;
}

const stateOf = (world: World, device: string): string =>
  world.rollout.devices.find((one) => one.device === device)!.state;

describe("a rollout", () => {
  it("offers a wave, soaks, passes its gate, goes on, and succeeds", () => {
    const world = makeWorld([["a"], ["b", "c"]]);
    advance(world, 1);
    expect(world.rollout.devices.map(({ state }) => state)).toEqual(["offered", "waiting", "waiting"]);
    expect(world.rollout.devices[0]!.previous).toEqual(OLD);
    report(world, "a", "downloading");
    advance(world, 1);
    activate(world, "a");
    advance(world, 1);
    expect(world.rollout.waves[0]!.state).toBe("soaking");
    for (let second = 0; second < 10; second++) {
      activate(world, "a");
      advance(world, 1);
    }
    expect(world.rollout.waves[0]).toMatchObject({ state: "passed", verdict: { verdict: "pass" } });
    for (let second = 0; second < 20 && world.rollout.state === "running"; second++) {
      for (const device of ["a", "b", "c"]) if (device === "a" || second > 1) activate(world, device);
      advance(world, 1);
    }
    expect(world.rollout).toMatchObject({
      state: "succeeded",
      waves: [{ state: "passed" }, { state: "passed" }],
    });
  });

  it("does not believe `active` from a device that runs another package", () => {
    const world = makeWorld([["a"]]);
    advance(world, 1);
    report(world, "a", "active");
    advance(world, 1);
    expect(stateOf(world, "a")).toBe("offered");
  });

  it("counts silence as failure and names it", () => {
    const world = makeWorld([["a"], ["b"]]);
    advance(world, 1);
    advance(world, 31);
    expect(stateOf(world, "a")).toBe("silent");
    expect(world.rollout.state).toBe("paused");
    expect(world.rollout.reason).toContain("silent");
    expect(world.rollout.waves[0]!.verdict!.tests.find(({ test }) => test === "silence")).toMatchObject({
      verdict: "fail",
      value: 1,
      limit: 0,
    });
    expect(stateOf(world, "b")).toBe("waiting");
  });

  it("fails a wave that is not done in time though its devices talk", () => {
    const world = makeWorld([["a"]]);
    for (let second = 0; second < 150; second += 10) {
      report(world, "a", "downloading");
      advance(world, 10);
    }
    expect(world.rollout.waves[0]).toMatchObject({ state: "failed" });
    expect(world.rollout.reason).toContain("wave_timeout");
  });

  it.each([
    ["pause", "paused"],
    ["abort", "aborted"],
    ["roll_back", "rolling_back"],
  ] as const)("on failure %s: %s", (onFailure, state) => {
    const world = makeWorld([["a"]], { onFailure });
    advance(world, 1);
    report(world, "a", "failed");
    advance(world, 1);
    expect(world.rollout.state).toBe(state);
  });

  it("rolls back devices of waves that had passed, and ends when each proves the version before", () => {
    const world = makeWorld([["a"], ["b"]], { onFailure: "roll_back" });
    advance(world, 1);
    for (let second = 0; second < 14; second++) {
      activate(world, "a");
      advance(world, 1);
    }
    expect(world.rollout.waves[0]!.state).toBe("passed");
    report(world, "b", "rolled_back", { running: OLD });
    advance(world, 1);
    activate(world, "a");
    advance(world, 1);
    expect(world.rollout.state).toBe("rolling_back");
    advance(world, 1);
    expect(world.rollout.devices.map(({ restore }) => restore)).toEqual(["offered", "done"]);
    observe(world, "a", { running: OLD });
    observe(world, "b", { running: OLD });
    advance(world, 1);
    expect(world.rollout).toMatchObject({
      state: "rolled_back",
      devices: [{ restore: "done" }, { restore: "done" }],
    });
  });

  it("stops when a device of an earlier wave leaves the version later", () => {
    const world = makeWorld([["a"], ["b"]]);
    advance(world, 1);
    for (let second = 0; second < 14; second++) {
      activate(world, "a");
      advance(world, 1);
    }
    report(world, "a", "rolled_back", { running: OLD });
    observe(world, "b", {});
    advance(world, 1);
    expect(world.rollout).toMatchObject({
      state: "paused",
      waves: [{ state: "passed" }, { state: "failed" }],
    });
    expect(world.rollout.reason).toContain("earlier_waves");
  });

  it("waits while the gate is undecided, then pauses; resume gives it the time again", () => {
    const world = makeWorld([["a"]]);
    advance(world, 1);
    const few = { after: { predictions: 3, meanLatencyMs: 2, feedback: { successes: 0, count: 0 } } };
    const run = (seconds: number): void => {
      for (let second = 0; second < seconds; second += 5) {
        activate(world, "a", few);
        advance(world, 5);
      }
    };
    run(30);
    expect(world.rollout).toMatchObject({
      state: "running",
      waves: [{ state: "inconclusive", verdict: { verdict: "inconclusive" } }],
    });
    run(140);
    expect(world.rollout.state).toBe("paused");
    world.rollout = act(world.rollout, "resume", null, world.now)!.rollout;
    run(60);
    expect(world.rollout.state).toBe("running");
    activate(world, "a");
    advance(world, 1);
    expect(world.rollout.waves[0]!.state).toBe("passed");
  });

  it("does not resume over a failed wave", () => {
    const world = makeWorld([["a"], ["b"]]);
    advance(world, 1);
    report(world, "a", "failed");
    advance(world, 1);
    expect(act(world.rollout, "resume", null, world.now)).toBeUndefined();
    expect(act(world.rollout, "roll_back", "broken", world.now)!.rollout.state).toBe("rolling_back");
  });

  it.each([
    ["better after", 60, 95, "pass"],
    ["a little worse, within chance", 96, 92, "inconclusive"],
    ["much worse", 95, 60, "fail"],
  ] as const)("accuracy %s: %s", (_, before, after, verdict) => {
    const world = makeWorld([["a"]]);
    advance(world, 1);
    const counts = (successes: number) => ({
      predictions: 100,
      meanLatencyMs: 2,
      feedback: { successes, count: 100 },
    });
    for (let second = 0; second < 13; second++) {
      activate(world, "a", { before: counts(before), after: counts(after) });
      advance(world, 1);
    }
    expect(world.rollout.waves[0]!.verdict!.tests.find(({ test }) => test === "accuracy")!.verdict).toBe(
      verdict,
    );
  });

  it("offers 20,000 devices in a time that fits a tick", () => {
    const many = Array.from({ length: 20_000 }, (_, at) => `d${at}`);
    const world = makeWorld([many], { offersPerMinute: 100_000 });
    const started = performance.now();
    advance(world, 1);
    expect(world.rollout.devices.every(({ state }) => state === "offered")).toBe(true);
    expect(performance.now() - started).toBeLessThan(2_000);
  });
});

const STATES: readonly DeploymentState[] = [
  "offered",
  "downloading",
  "verifying",
  "installed",
  "self_testing",
  "activating",
  "probation",
  "active",
  "failed",
  "rejected",
  "rolled_back",
];
const tickArbitrary = fc.record({
  seconds: fc.integer({ min: 1, max: 40 }),
  reports: fc.array(
    fc.record({
      device: fc.integer({ min: 0, max: 5 }),
      state: fc.constantFrom(...STATES),
      proven: fc.boolean(),
      right: fc.integer({ min: 0, max: 60 }),
    }),
    { maxLength: 6 },
  ),
  action: fc.option(fc.constantFrom<OperatorAction>("pause", "resume", "abort", "roll_back", "start"), {
    freq: 12,
  }),
});

describe("any observations", () => {
  const scenario = fc.record({
    rate: fc.integer({ min: 1, max: 4 }),
    onFailure: fc.constantFrom("pause" as const, "abort" as const, "roll_back" as const),
    share: fc.constantFrom(0, 0.5, 1),
    ticks: fc.array(tickArbitrary, { minLength: 1, maxLength: 60 }),
  });

  /** Plays a scenario; `between` stands for what happens between two steps (nothing, or a restart). */
  function play(
    input: (typeof scenario)["generate"] extends (...args: never[]) => { value: infer T } ? T : never,
    between: (rollout: Rollout) => Rollout,
  ): Rollout[] {
    const world = makeWorld([["d0"], ["d1", "d2"], ["d3", "d4", "d5"]], {
      onFailure: input.onFailure,
      offersPerMinute: input.rate,
      gate: { ...GATE, failedShareMax: input.share },
    });
    const history: Rollout[] = [world.rollout];
    for (const tick of input.ticks) {
      for (const { device, state, proven, right } of tick.reports) {
        const counts = {
          predictions: right * 3,
          meanLatencyMs: 2,
          feedback: { successes: right, count: 60 },
        };
        report(world, `d${device}`, state, {
          running: proven ? { ...OLD, packageSha256: NEW } : OLD,
          after: counts,
          before: { ...counts, feedback: { successes: 50, count: 60 } },
        });
      }
      if (tick.action) {
        const acted = act(world.rollout, tick.action, null, world.now);
        if (acted) history.push(acted.rollout);
        world.rollout = acted?.rollout ?? world.rollout;
      }
      world.rollout = between(world.rollout);
      advance(world, tick.seconds);
      history.push(world.rollout);
    }
    return history;
  }

  it("never leave the state machines, the rate or the order of waves", () => {
    fc.assert(
      fc.property(scenario, (input) => {
        const history = play(input, (rollout) => rollout);
        for (let at = 1; at < history.length; at++) checkPair(history[at - 1]!, history[at]!, input.rate);
      }),
      { numRuns: 400 },
    );
  });

  it("give the same rollout when the server restarts between any two steps", () => {
    fc.assert(
      fc.property(scenario, (input) => {
        const straight = play(input, (rollout) => rollout).at(-1);
        const restarted = play(input, (rollout) => JSON.parse(JSON.stringify(rollout)) as Rollout).at(-1);
        expect(restarted).toEqual(straight);
      }),
      { numRuns: 100 },
    );
  });

  it("never decide the same thing twice at one time", () => {
    fc.assert(
      fc.property(scenario, (input) => {
        const last = play(input, (rollout) => rollout).at(-1)!;
        const offers = step(last, new Map(), 5_000_000).decisions.filter(
          ({ kind }) => kind === "offer" || kind === "restore",
        );
        const again = step(step(last, new Map(), 5_000_000).rollout, new Map(), 5_000_000).decisions;
        for (const decision of offers) expect(again).not.toContainEqual(decision);
      }),
      { numRuns: 100 },
    );
  });

  function checkPair(before: Rollout, after: Rollout, rate: number): void {
    // One step may fail a wave and move the rollout; more than one move of each never happens in a step.
    if (before.state !== after.state) expect(canTransition(ROLLOUT, before.state, after.state)).toBe(true);
    after.waves.forEach((wave, at) => {
      const from = before.waves[at]!.state;
      if (from !== wave.state) expect(canTransition(WAVE, from, wave.state)).toBe(true);
      if (wave.state !== "pending" && at > 0) expect(after.waves[at - 1]!.state).toBe("passed");
    });
    const times = after.devices
      .flatMap(({ offered, restoreOffered }) => [offered ?? [], restoreOffered ?? []].flat())
      .sort((a, b) => a - b);
    times.forEach((time, at) => {
      const inWindow = times.slice(at).filter((later) => later < time + 60_000);
      expect(inWindow.length).toBeLessThanOrEqual(rate);
    });
    for (const device of after.devices) {
      const wave = after.waves[device.wave - 1]!;
      if (device.offered !== null) expect(wave.state).not.toBe("pending");
      if (device.restore !== "none") expect(["rolling_back", "rolled_back"]).toContain(after.state);
      if (
        device.state === "active" &&
        before.devices.find((one) => one.device === device.device)!.state === "rolled_back"
      )
        throw new Error("a rolled-back device became active");
    }
  }
});
