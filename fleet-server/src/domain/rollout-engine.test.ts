import { describe, expect, it } from "vitest";
import type { LiveRollout } from "./rollout-live.js";
import { supersedersOf } from "./rollout-tally.js";
import { busyWith, FACTS, packageOf, statsOf, World, type Behaviour } from "./rollout-world.test.support.js";

const states = (live: LiveRollout): Record<string, string> =>
  Object.fromEntries([...live.devices.values()].map(({ device, state }) => [device, state]));
const wavesOf = (live: LiveRollout): string[] => live.waves.map(({ state }) => state);
const stateOf = (live: LiveRollout, device: string): string => live.devices.get(device)!.state;
const heldBy = (live: LiveRollout, device: string): string | undefined =>
  live.devices.get(device)!.hold?.reason;
const ended = ({ state }: LiveRollout): boolean =>
  ["succeeded", "aborted", "rolled_back", "paused"].includes(state);

function fleetOf(
  count: number,
  world = new World(),
  tags: (at: number) => Record<string, string> = () => ({}),
): World {
  for (let at = 0; at < count; at++) world.add(`d${at}`, { tags: tags(at) });
  return world;
}
const behaving = (ends: Record<string, Behaviour["ends"]>): World =>
  new World({ behaviour: (device) => ({ stepSeconds: 2, ends: ends[device] ?? "active" }) });
const act = (world: World, live: LiveRollout, action: "pause" | "resume" | "abort" | "roll_back" | "retry") =>
  world.act(live, action === "abort" ? { action, devices: "keep", reason: "" } : { action, reason: "" });

describe("a rollout", () => {
  it("offers a wave, soaks, passes its gate, goes on, and succeeds", () => {
    const world = fleetOf(3);
    const live = world.create({ waves: [{ devices: ["d1"] }, { percent: 100 }] });
    world.advance(1);
    expect(states(live)).toEqual({ d0: "waiting", d1: "offered", d2: "waiting" });
    expect(live.devices.get("d1")!.previous).toEqual({ kind: "package", ...packageOf(1) });
    expect(world.until(live, ended)).toBe("succeeded");
    expect(wavesOf(live)).toEqual(["passed", "passed"]);
    expect(states(live)).toEqual({ d0: "active", d1: "active", d2: "active" });
    const soaked = live.waves[0]!.finished! - live.waves[0]!.soakStarted!;
    expect(soaked).toBeGreaterThanOrEqual(10_000);
  });

  it("believes `active` only from a device that reports the package as running", () => {
    const world = fleetOf(1);
    const live = world.create({ waves: [{ percent: 100 }] });
    world.advance(1);
    world.devices.get("d0")!.pending.clear();
    world.engine.noteWord(live.id, "d0", 1, { state: "active", errorCode: null, errorMessage: null });
    world.advance(2);
    expect(stateOf(live, "d0")).toBe("offered");
    world.change("d0", { running: packageOf(2) });
    world.advance(1);
    expect(stateOf(live, "d0")).toBe("active");
  });

  it("looks at a part of a large wave one by one, and counts the failed among all of it", () => {
    let live: LiveRollout | undefined;
    const failing = new World({
      behaviour: (device) => ({
        stepSeconds: 2,
        ends: live!.devices.get(device)!.position >= 2_000 ? "failed" : "active",
      }),
    });
    const world = fleetOf(2_200, failing);
    live = world.create({ waves: [{ percent: 100 }], offersPerMinute: 60_000 });
    expect(world.until(live, ended)).toBe("paused");
    expect(live.record.reason).toContain("wave 1 failed: failed_share");
    expect(live.watched[0]!.size).toBe(2_000);
    expect([...live.devices.values()].filter(({ watch }) => watch).length).toBe(2_000);
  });

  it("takes a bounded number of reports, offers and holds a step, and comes to an end all the same", () => {
    const world = fleetOf(3_000);
    for (let at = 0; at < 2_900; at++) world.change(`d${at}`, { online: false });
    const live = world.create({ waves: [{ percent: 100 }], offersPerMinute: 60_000 });
    world.advance(1);
    expect(world.journals.at(-1)!.journal.devices.size).toBeLessThanOrEqual(4_100);
    expect(world.until(live, ended, 120)).toBe("succeeded");
    expect(live.tallies[0]!.active).toBe(100);
    for (let at = 0; at < 2_900; at++) world.change(`d${at}`, { online: true });
    world.advance(120);
    expect(live.tallies[0]!.active).toBe(3_000);
  });

  it("stops at a wave with a failed device, and leaves the others alone", () => {
    const world = fleetOf(3, behaving({ d1: "failed" }));
    const live = world.create({ waves: [{ devices: ["d1"] }, { percent: 100 }] });
    expect(world.until(live, ended)).toBe("paused");
    expect(live.record.reason).toContain("wave 1 failed: failed_share");
    expect(wavesOf(live)).toEqual(["failed", "pending"]);
    expect(states(live)).toEqual({ d0: "waiting", d1: "failed", d2: "waiting" });
    expect(act(world, live, "resume")).toContain("wave 1 failed");
  });

  it("counts a device that goes silent after the offer as failed, and takes its word again when it returns", () => {
    const world = fleetOf(3, behaving({ d1: "mute" }));
    const live = world.create({ waves: [{ devices: ["d1"] }, { percent: 100 }] });
    expect(world.until(live, ended)).toBe("paused");
    expect(stateOf(live, "d1")).toBe("silent");
    world.change("d1", { muted: false, running: packageOf(2) });
    world.engine.noteWord(live.id, "d1", 1, { state: "active", errorCode: null, errorMessage: null });
    world.advance(2);
    expect(stateOf(live, "d1")).toBe("active");
  });

  it("gives up a device that takes too long, and goes on where that many may fail", () => {
    const world = fleetOf(4, behaving({ d1: "stuck" }));
    const live = world.create({ waves: [{ percent: 50 }, { percent: 100 }], gate: { failedShareMax: 0.5 } });
    expect(world.until(live, ended)).toBe("succeeded");
    expect(live.devices.get("d1")).toMatchObject({ state: "timed_out", errorCode: "timed_out" });
  });

  it("asks a device again after a failure that may pass, and not after one that will not", () => {
    const codes = { d0: "download_failed", d1: "self_test_failed" } as const;
    const world = fleetOf(
      2,
      new World({
        behaviour: (device, _subject, attempt) =>
          attempt === 1
            ? { stepSeconds: 1, ends: "failed", errorCode: codes[device as "d0"] }
            : { stepSeconds: 1, ends: "active" },
      }),
    );
    const live = world.create({
      waves: [{ percent: 100 }],
      retries: { max: 2, delaySeconds: 30 },
      gate: { failedShareMax: 1 },
    });
    expect(world.until(live, ended)).toBe("succeeded");
    expect(live.devices.get("d0")).toMatchObject({ state: "active", attempt: 2 });
    expect(live.devices.get("d1")).toMatchObject({ state: "failed", attempt: 1 });
    const [first, second] = world.offers.filter(({ device }) => device === "d0");
    expect(second!.time - first!.time).toBeGreaterThan(30_000);
  });

  it("does not pass a wave without predictions; undecided for too long, it asks a person", () => {
    const world = fleetOf(2, new World({ during: () => statsOf(3) }));
    const live = world.create({ waves: [{ percent: 100 }] });
    expect(world.until(live, ended)).toBe("paused");
    expect(live.record.reason).toContain("wave 1 is inconclusive");
    expect(live.waves[0]!.looks).toBeLessThan(60);
    // Every look is kept; that the gate still waits is news once a watch.
    const looks = (): [all: number, news: number] => {
      const all = world.journals.flatMap(({ journal }) => journal.lines().map((line) => ({ line, journal })));
      const judged = all.filter(({ line }) => line.type === "verdict");
      return [judged.length, judged.filter(({ line, journal }) => !journal.repeats.has(line)).length];
    };
    expect(live.waves[0]!.looks).toBeGreaterThan(5);
    expect(looks()).toEqual([live.waves[0]!.looks, 1]);
    act(world, live, "resume");
    expect(live.state).toBe("running");
    expect(world.until(live, ended)).toBe("paused");
    expect(looks()).toEqual([live.waves[0]!.looks, 2]);
  });
});

describe("devices that cannot be asked now", () => {
  it("does not wait for devices that are offline, and asks them when they return", () => {
    const world = fleetOf(4);
    world.change("d2", { online: false });
    const live = world.create({ waves: [{ count: 1 }, { percent: 100 }] });
    expect(world.until(live, ended)).toBe("succeeded");
    expect(heldBy(live, "d2")).toBe("offline");
    expect(live.record.current).toBe(true);
    world.change("d2", { online: true });
    world.advance(30);
    expect(stateOf(live, "d2")).toBe("active");
  });

  it("takes another canary where the chosen one cannot be asked", () => {
    const world = fleetOf(4);
    const planned = world.create({ waves: [{ count: 1 }, { percent: 100 }], start: false });
    const canary = [...planned.members[0]!][0]!.device;
    world.change(canary, { online: false });
    world.act(planned, { action: "start", reason: "" });
    world.advance(1);
    expect([...planned.members[0]!][0]!.device).not.toBe(canary);
    expect(planned.tallies[0]!.updating).toBe(1);
  });

  it("waits for a first device that can be asked, for as long as it takes", () => {
    const world = fleetOf(2);
    for (const device of ["d0", "d1"]) world.change(device, { online: false });
    const live = world.create();
    world.advance(10_000, 10);
    expect([live.state, wavesOf(live)]).toEqual(["running", ["running", "pending"]]);
    world.change("d0", { online: true });
    world.change("d1", { online: true });
    expect(world.until(live, ended)).toBe("succeeded");
  });

  it("never asks devices that the version does not fit, nor suspended ones, and says so", () => {
    const world = fleetOf(3, new World({ misfits: new Set(["old"]) }));
    world.change("d0", { facts: { ...FACTS, cpuModel: "old" } });
    world.change("d1", { suspended: true });
    const live = world.create({ waves: [{ percent: 100 }] });
    expect(world.until(live, ended)).toBe("succeeded");
    expect([heldBy(live, "d0"), heldBy(live, "d1"), stateOf(live, "d2")]).toEqual([
      "incompatible",
      "suspended",
      "active",
    ]);
    world.change("d0", { facts: FACTS });
    world.advance(30);
    expect(stateOf(live, "d0")).toBe("active");
  });

  it("offers only within each device's own maintenance window", () => {
    const world = new World();
    // 2026-01-04 is a Sunday.
    world.now = Date.UTC(2026, 0, 4, 12);
    world.add("lyon", { facts: { ...FACTS, timeZone: "Europe/Paris" } });
    world.add("tokyo", { facts: { ...FACTS, timeZone: "Asia/Tokyo" } });
    const live = world.create({
      waves: [{ percent: 100 }],
      schedule: { windows: [{ days: [], start: "22:00", minutes: 120 }] },
      gate: { waveTimeoutSeconds: 1_000 },
    });
    world.advance(120, 10);
    expect([heldBy(live, "lyon"), heldBy(live, "tokyo")]).toEqual(["window", "window"]);
    world.advance(4_200, 30);
    expect(stateOf(live, "tokyo")).toBe("active");
    expect(heldBy(live, "lyon")).toBe("window");
    world.advance(9 * 3_600 + 600, 30);
    expect([stateOf(live, "lyon"), live.state]).toEqual(["active", "succeeded"]);
  });

  it("never makes more devices of a site unavailable than its budget says", () => {
    const world = fleetOf(12, new World(), (at) => ({ site: at < 6 ? "lyon" : "oslo" }));
    world.change("d0", { online: false });
    const live = world.create({
      waves: [{ percent: 100 }],
      budgets: [{ tag: "site", maxUnavailable: { count: 2 } }],
    });
    let most = 0;
    for (let second = 0; second < 300 && !ended(live); second++) {
      world.advance(1);
      for (const value of ["lyon", "oslo"])
        most = Math.max(most, world.fleet.site("site", value).unavailable);
    }
    expect(most).toBe(2);
    expect(live.state).toBe("succeeded");
    expect(Object.values(states(live)).filter((state) => state === "active")).toHaveLength(11);
  });

  it("leaves the rest of a site alone where its dead devices use up the budget, and does not wait for them", () => {
    const world = fleetOf(8, new World(), (at) => ({ site: at < 4 ? "lyon" : "oslo" }));
    world.change("d0", { online: false });
    const live = world.create({
      waves: [{ percent: 100 }],
      budgets: [{ tag: "site", maxUnavailable: { percent: 25 } }],
    });
    expect(world.until(live, ended)).toBe("succeeded");
    expect(["d1", "d2", "d3"].map((device) => heldBy(live, device))).toEqual(["budget", "budget", "budget"]);
    world.change("d0", { online: true });
    world.advance(120);
    expect(Object.values(states(live))).toEqual(Array(8).fill("active"));
  });

  it("keeps its rate of offers in every minute", () => {
    const world = fleetOf(100);
    const live = world.create({ waves: [{ percent: 100 }], offersPerMinute: 20 });
    world.until(live, ended);
    for (const { time } of world.offers) {
      const minute = world.offers.filter((one) => one.time >= time && one.time < time + 60_000);
      expect(minute.length).toBeLessThanOrEqual(20);
    }
    expect(world.offers).toHaveLength(100);
    expect(live.record.finished! - live.record.started!).toBeLessThan(400_000);
  });
});

describe("the control group", () => {
  it("is held back until everything else has passed, then gets the version too", () => {
    const world = fleetOf(20);
    const live = world.create({ waves: [{ percent: 20 }, { percent: 100 }], control: { share: 0.2 } });
    expect(wavesOf(live)).toHaveLength(3);
    expect(live.members[2]!.size).toBe(4);
    const compared = (): number => [...live.members[2]!].filter(({ watch }) => watch !== null).length;
    world.until(live, () => live.waves[1]!.state === "passed");
    expect(compared()).toBe(4);
    expect([...live.members[2]!].every(({ state }) => state === "waiting")).toBe(true);
    expect(world.until(live, ended)).toBe("succeeded");
    expect(live.tallies[2]!.active).toBe(4);
  });
});

describe("people", () => {
  it("need a second one to approve, and let a wave begin", () => {
    const world = fleetOf(3);
    const live = world.create({
      approval: { required: true },
      waves: [{ count: 1 }, { percent: 100, approvalBefore: true }],
    });
    expect(live.state).toBe("awaiting_approval");
    expect(world.act(live, { action: "approve", reason: "" }, "ann")).toContain("another person");
    for (const [actor, refusal] of [
      // Another token of the same person, a program of theirs, and somebody else's program.
      [{ name: "ann-laptop", person: "ann", sponsor: "ann" }, "another person"],
      [{ name: "ci", person: null, sponsor: "ann" }, "another person"],
      [{ name: "ci", person: null, sponsor: "ben" }, "a program's token"],
    ] as const)
      expect(world.act(live, { action: "approve", reason: "" }, actor)).toContain(refusal);
    expect(world.act(live, { action: "approve", reason: "read it" }, "ben")).toBeUndefined();
    expect([live.state, live.record.approved?.by]).toEqual(["running", "ben"]);
    world.advance(200);
    expect(wavesOf(live)).toEqual(["passed", "pending"]);
    expect(world.act(live, { action: "approve", wave: 1, reason: "" })).toContain("needs no approval");
    expect(world.act(live, { action: "approve", wave: 2, reason: "" })).toBeUndefined();
    expect(world.until(live, ended)).toBe("succeeded");
  });

  it("start it at a time, or before it", () => {
    const world = fleetOf(1);
    const startAt = world.now + 60_000;
    const [one, two] = [world.create({ schedule: { startAt } }), world.create({ schedule: { startAt } })];
    expect([one.state, two.state]).toEqual(["scheduled", "scheduled"]);
    world.act(two, { action: "start", reason: "" });
    world.advance(30);
    expect([one.state, two.state]).toEqual(["scheduled", "succeeded"]);
    world.advance(60);
    expect(one.state).not.toBe("scheduled");
  });

  it("pause: nothing is offered, what is under way goes on to its end", () => {
    const world = fleetOf(4);
    const live = world.create({ waves: [{ percent: 100 }], offersPerMinute: 60 });
    world.advance(2);
    act(world, live, "pause");
    world.advance(60);
    expect(Object.values(states(live)).sort()).toEqual(["active", "active", "waiting", "waiting"]);
    act(world, live, "resume");
    expect(world.until(live, ended)).toBe("succeeded");
  });

  it("abort and keep: done devices keep it, unfinished offers are withdrawn", () => {
    const world = fleetOf(4);
    const live = world.create({ waves: [{ devices: ["d0"] }, { percent: 100 }], gate: { soakSeconds: 0 } });
    world.until(live, () => live.tallies[1]!.updating === 3);
    act(world, live, "abort");
    expect(live.state).toBe("aborted");
    world.advance(60);
    expect(states(live)).toEqual({ d0: "active", d1: "cancelled", d2: "cancelled", d3: "cancelled" });
    // What a person stopped has not failed.
    expect(live.tallies[1]!.view(null)).toMatchObject({ total: 3, cancelled: 3, failed: 0, updating: 0 });
    expect([...world.devices.values()].map(({ running }) => running!.version)).toEqual([2, 1, 1, 1]);
    expect(live.restoring.size).toBe(0);
  });

  it.each(["abort", "roll_back"] as const)(
    "%s: a device that had nothing is not left with the offer",
    (what) => {
      const world = new World();
      for (const device of ["d0", "d1"]) world.add(device, { running: null });
      const live = world.create({ waves: [{ percent: 100 }], gate: { silenceSeconds: 5 } });
      world.until(live, () => live.tallies[0]!.updating === 2);
      // One is under way; the other was given up for silence, and would go on when it returns.
      world.change("d1", { online: false });
      world.advance(8);
      act(world, live, "pause");
      expect(states(live)["d1"]).toBe("silent");
      act(world, live, what);
      world.change("d1", { online: true });
      world.advance(60);
      expect([...world.devices.values()].map(({ running }) => running)).toEqual([null, null]);
      expect(states(live)["d0"]).toBe("cancelled");
      const left = what === "abort" ? "none" : "impossible";
      const restoreDetail = what === "abort" ? null : "it had nothing before";
      expect(live.devices.get("d0")).toMatchObject({ restore: left, restoreDetail });
    },
  );

  it("abort and keep: a device that was given up does not come back to the version", () => {
    const world = fleetOf(2);
    const live = world.create({
      waves: [{ percent: 100 }],
      gate: { silenceSeconds: 5, failedShareMax: 1, soakSeconds: 500 },
    });
    world.until(live, () => live.tallies[0]!.updating === 2);
    world.change("d1", { online: false });
    world.advance(30);
    expect(states(live)).toEqual({ d0: "active", d1: "silent" });
    act(world, live, "abort");
    world.change("d1", { online: true });
    world.advance(60);
    expect([...world.devices.values()].map(({ running }) => running!.version)).toEqual([2, 1]);
    expect(live.restoring.size).toBe(0);
  });

  it("abort and keep: a newer rollout's offer to a device that was too slow stays", () => {
    const world = behaving({ d0: "stuck" });
    world.add("d0");
    const older = world.create({ waves: [{ percent: 100 }], gate: { waveTimeoutSeconds: 20 } });
    world.until(older, () => stateOf(older, "d0") === "timed_out");
    const newer = world.create({ waves: [{ percent: 100 }] }, { kind: "package", ...packageOf(3) });
    world.until(newer, () => stateOf(newer, "d0") !== "waiting");
    act(world, older, "abort");
    expect(older.devices.get("d0")).toMatchObject({
      restore: "impossible",
      restoreDetail: `rollout ${newer.id} says what it has`,
    });
    expect(world.devices.get("d0")!.pending.get("main")).toMatchObject({
      rollout: newer.id,
      purpose: "offer",
    });
  });

  it("abort and keep: a silent device that another model's rollout has begun with goes back after that", () => {
    const world = new World();
    world.add("d0", {
      lanes: [
        { name: "belt", model: "parts", running: packageOf(1) },
        { name: "box", model: "shapes", running: null },
      ],
    });
    const older = world.create({ waves: [{ percent: 100 }], gate: { silenceSeconds: 5 } });
    world.until(older, () => older.tallies[0]!.updating === 1);
    world.change("d0", { online: false });
    world.until(older, () => stateOf(older, "d0") === "silent");
    const newer = world.create({ waves: [{ percent: 100 }] }, { kind: "package", ...packageOf(7, "shapes") });
    world.devices.get("d0")!.pending.clear();
    world.change("d0", { online: true, muted: false });
    act(world, older, "pause");
    world.until(newer, () => stateOf(newer, "d0") !== "waiting");
    act(world, older, "abort");
    expect(busyWith(world, "d0")).toEqual([newer.id]);
    expect(older.devices.get("d0")).toMatchObject({
      restore: "silent",
      restoreDetail: `rollout ${newer.id} is changing it; it goes back when it can`,
    });
    expect(world.journals.filter(({ journal }) => journal.restores.length > 0)).toHaveLength(1);
  });

  it("take a rollout back that succeeded, or was aborted", () => {
    for (const first of ["succeeded", "aborted"]) {
      const world = fleetOf(3);
      const live = world.create({
        waves: [{ percent: 100 }],
        gate: { soakSeconds: first === "aborted" ? 500 : 0 },
      });
      world.until(live, () => live.tallies[0]!.active === 3);
      if (first === "aborted") act(world, live, "abort");
      else world.until(live, ended);
      expect(live.state).toBe(first);
      expect(act(world, live, "roll_back")).toBeUndefined();
      expect(world.until(live, ({ state }) => state === "rolled_back")).toBe("rolled_back");
      expect(live.record.reason).toContain("3 devices restored");
      expect([...world.devices.values()].every(({ running }) => running!.version === 1)).toBe(true);
    }
  });

  it("say of each device that does not return why", () => {
    const world = fleetOf(3);
    const live = world.create({ waves: [{ percent: 100 }], gate: { soakSeconds: 0, silenceSeconds: 5 } });
    expect(world.until(live, ended)).toBe("succeeded");
    world.change("d1", {
      running: { ...world.devices.get("d1")!.running!, version: 9, packageSha256: "f".repeat(64) },
    });
    world.change("d2", { online: false });
    act(world, live, "roll_back");
    expect(world.until(live, ({ state }) => state === "rolled_back")).toBe("rolled_back");
    const devices = ["d0", "d1", "d2"].map((device) => live.devices.get(device)!);
    expect(devices.map(({ restore, restoreDetail }) => [restore, restoreDetail])).toEqual([
      ["done", null],
      ["impossible", "it runs parts@9 by now"],
      ["silent", "nothing heard for 5 s; it goes back when it can"],
    ]);
    expect(live.record.reason).toContain("1 had something else by then, or were gone");
  });

  it("retry what failed: the wave goes on", () => {
    const world = fleetOf(
      2,
      new World({
        behaviour: (device, _subject, attempt) => ({
          stepSeconds: 1,
          ends: device === "d0" && attempt === 1 ? "failed" : "active",
        }),
      }),
    );
    const live = world.create({ waves: [{ devices: ["d0"] }, { percent: 100 }] });
    expect(world.until(live, ended)).toBe("paused");
    expect(world.act(live, { action: "retry", devices: ["d1"], reason: "" })).toContain("no device");
    expect(act(world, live, "retry")).toBeUndefined();
    expect(live.state).toBe("running");
    expect(world.until(live, ended)).toBe("succeeded");
    expect(live.devices.get("d0")!.attempt).toBe(2);
  });

  it("let a wave pass by hand, with a reason", () => {
    const world = fleetOf(2, behaving({ d0: "failed" }));
    const live = world.create({ waves: [{ devices: ["d0"] }, { percent: 100 }] });
    world.until(live, ended);
    const reason = "the device's disk is known to be broken";
    expect(world.act(live, { action: "next_wave", reason }, "ben")).toBeUndefined();
    expect(live.waves[0]).toMatchObject({ state: "passed", forced: { by: "ben", reason } });
    // The failure still counts: half of the devices so far left the version.
    expect(world.until(live, ended)).toBe("paused");
  });
});

describe("dynamic targets", () => {
  it("put a device that joins into a wave that is still to come", () => {
    const world = fleetOf(4);
    const live = world.create();
    world.advance(3);
    world.add("late");
    world.advance(1);
    expect(live.devices.get("late")).toMatchObject({ wave: 2, joined: true, state: "waiting" });
    expect(world.until(live, ended)).toBe("succeeded");
    expect(stateOf(live, "late")).toBe("active");
  });

  it("give the version to devices that join after the end, as long as the rollout is the target's newest", () => {
    const world = fleetOf(2);
    const first = world.create();
    world.until(first, ended);
    world.add("n1");
    world.advance(30);
    expect(stateOf(first, "n1")).toBe("active");
    const second = world.create({}, { kind: "package", ...packageOf(3) });
    world.until(second, ended);
    expect([first.record.supersededBy, first.record.current]).toEqual([second.id, false]);
    // What they have now is the newer rollout's matter, and no failure of the older one.
    expect([stateOf(first, "n1"), heldBy(first, "n1")]).toEqual(["skipped", "superseded"]);
    expect(supersedersOf(first.tallies)).toEqual([[second.id, 3]]);
    expect(supersedersOf(second.tallies)).toEqual([]);
    expect([...first.tallies].map(({ failed }) => failed)).toEqual(first.tallies.map(() => 0));
    world.add("n2");
    world.advance(30);
    expect(world.devices.get("n2")!.running!.version).toBe(3);
    expect(first.devices.has("n2")).toBe(false);
  });

  it("leave out devices that leave before they were asked, and keep those that were", () => {
    const world = new World();
    for (const device of ["d0", "d1", "d2"]) world.add(device, { tags: { line: "a" } });
    const live = world.create({
      target: { selector: { tags: { line: "a" } } },
      waves: [{ devices: ["d0"] }, { percent: 100 }],
    });
    world.advance(2);
    world.change("d0", { tags: {} });
    world.change("d1", { tags: {} });
    world.advance(1);
    expect([stateOf(live, "d1"), heldBy(live, "d1")]).toEqual(["skipped", "left"]);
    world.change("d1", { tags: { line: "a" } });
    expect(world.until(live, ended)).toBe("succeeded");
    expect(states(live)).toEqual({ d0: "active", d1: "active", d2: "active" });
  });

  it("leave a frozen target as it was", () => {
    const world = fleetOf(2);
    const live = world.create({ target: { group: "all", membership: "frozen" } });
    world.add("late");
    world.until(live, ended);
    expect(live.devices.has("late")).toBe(false);
    world.advance(2);
    expect(live.record.current).toBe(false);
  });
});

describe("rollouts that share devices", () => {
  it("the higher priority goes first, the other goes on with what is left and follows when it is over", () => {
    const world = fleetOf(4);
    const high = world.create({
      target: { devices: ["d0", "d1"] },
      waves: [{ percent: 100 }],
      priority: 900,
    });
    const low = world.create({ waves: [{ percent: 100 }] }, { kind: "package", ...packageOf(3) });
    world.advance(5);
    expect([heldBy(low, "d0"), stateOf(low, "d2")]).toEqual(["priority", "verifying"]);
    expect(world.until(high, ended)).toBe("succeeded");
    expect(world.until(low, ended)).toBe("succeeded");
    world.advance(60);
    expect([...world.devices.values()].map(({ running }) => running!.version)).toEqual([3, 3, 3, 3]);
  });

  it("of equals the newer takes over what the older has; the older ends without them", () => {
    const world = fleetOf(3);
    const older = world.create({ waves: [{ count: 1 }, { percent: 100 }], gate: { soakSeconds: 1_000 } });
    world.until(older, () => older.tallies[0]!.active === 1);
    const newer = world.create({}, { kind: "package", ...packageOf(3) });
    expect(world.until(newer, ended)).toBe("succeeded");
    expect(Object.values(states(older))).toEqual(["skipped", "skipped", "skipped"]);
    expect(world.until(older, ended)).toBe("aborted");
    expect([...world.devices.values()].every(({ running }) => running!.version === 3)).toBe(true);
  });

  it("never change one device at the same time, whatever they change", () => {
    const world = fleetOf(3);
    world.create({ waves: [{ percent: 100 }] });
    world.create(
      { waves: [{ percent: 100 }] },
      { kind: "config", configId: "cfg_1", policy: { randomShare: 0.5 } },
    );
    for (let second = 0; second < 60; second++) {
      world.advance(1);
      for (const device of world.devices.keys())
        expect(busyWith(world, device).length).toBeLessThanOrEqual(1);
    }
    expect(
      [...world.devices.values()].every(
        ({ running, configId }) => running!.version === 2 && configId === "cfg_1",
      ),
    ).toBe(true);
  });

  it("a paused rollout does not keep a newer one from its devices", () => {
    const world = fleetOf(2, behaving({ d0: "active" }));
    const stuck = world.create({ waves: [{ percent: 100 }], gate: { soakSeconds: 100_000 } });
    world.until(stuck, () => stuck.tallies[0]!.active === 2);
    act(world, stuck, "pause");
    const fix = world.create({ waves: [{ percent: 100 }] }, { kind: "package", ...packageOf(3) });
    expect(world.until(fix, ended)).toBe("succeeded");
  });
});

describe("configurations", () => {
  it("are proven by the device's echo and taken back the same way", () => {
    const world = fleetOf(3);
    const live = world.create({}, { kind: "config", configId: "cfg_1", policy: { randomShare: 0.5 } });
    expect(world.until(live, ended)).toBe("succeeded");
    expect([...world.devices.values()].every(({ configId }) => configId === "cfg_1")).toBe(true);
    act(world, live, "roll_back");
    expect(world.until(live, ({ state }) => state === "rolled_back")).toBe("rolled_back");
    expect([...world.devices.values()].every(({ configId }) => configId === null)).toBe(true);
  });
});
