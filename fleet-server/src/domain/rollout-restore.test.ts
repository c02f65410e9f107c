import type { RolloutAction } from "@fieldloop/protocol";
import { describe, expect, it } from "vitest";
import type { LiveRollout } from "./rollout-live.js";
import { packageOf, World, type Behaviour } from "./rollout-world.test.support.js";
import type { RolloutDevice } from "./rollout.js";

/** One device that takes each version as told; `good` where nothing is. */
function worldOf(ends: Record<number, Behaviour["ends"]> = {}): World {
  const world = new World({
    behaviour: (_device, subject) => ({
      stepSeconds: 2,
      ends: (subject.kind === "package" ? ends[subject.version] : undefined) ?? "active",
    }),
  });
  world.add("d0");
  return world;
}

const roll = (world: World, version: number, request: Record<string, unknown> = {}, model = "parts") =>
  world.create({ waves: [{ percent: 100 }], ...request }, { kind: "package", ...packageOf(version, model) });
const entryOf = (live: LiveRollout): RolloutDevice => live.devices.get("d0")!;
const act = (world: World, live: LiveRollout, what: "abort" | "roll_back"): void => {
  const action: RolloutAction =
    what === "abort" ? { action: what, devices: "keep", reason: "" } : { action: what, reason: "" };
  expect(world.act(live, action)).toBeUndefined();
};
const untilOver = (world: World, live: LiveRollout): string =>
  world.until(live, ({ state }) => state === "succeeded" || state === "rolled_back");
const toldTo = (world: World): unknown => world.devices.get("d0")!.desired.get("main");
const LONG = { gate: { soakSeconds: 100_000 } };
const SHORT = { gate: { waveTimeoutSeconds: 20, failedShareMax: 1 } };

describe("two rollouts of one place on a device", () => {
  it("both rolled back, the newer first: it returns to what it had before both", () => {
    const world = worldOf();
    const older = roll(world, 2, LONG);
    world.until(older, () => entryOf(older).state === "active");
    expect(world.act(older, { action: "pause", reason: "" })).toBeUndefined();
    const newer = roll(world, 3, LONG);
    world.until(newer, () => entryOf(newer).state === "active");
    expect(entryOf(older)).toMatchObject({ state: "skipped", hold: { reason: "superseded", by: newer.id } });
    act(world, newer, "roll_back");
    untilOver(world, newer);
    world.advance(2);
    expect(world.devices.get("d0")!.running).toEqual(packageOf(2));
    // It has the older one's version again, and counts there.
    expect(entryOf(older)).toMatchObject({ state: "active", hold: null });
    act(world, older, "roll_back");
    expect(untilOver(world, older)).toBe("rolled_back");
    expect([entryOf(older).restore, world.devices.get("d0")!.running]).toEqual(["done", packageOf(1)]);
  });

  it("both rolled back at once: the older waits for what the newer leads back to", () => {
    const world = worldOf();
    const older = roll(world, 2, LONG);
    world.until(older, () => entryOf(older).state === "active");
    const newer = roll(world, 3, LONG);
    world.until(newer, () => entryOf(newer).state === "active");
    act(world, older, "roll_back");
    act(world, newer, "roll_back");
    expect([untilOver(world, newer), untilOver(world, older)]).toEqual(["rolled_back", "rolled_back"]);
    expect(world.devices.get("d0")!.running).toEqual(packageOf(1));
  });

  it("the older rolled back after the newer failed there: it does not keep the older one's version", () => {
    const world = worldOf({ 3: "failed" });
    const older = roll(world, 2, LONG);
    world.until(older, () => entryOf(older).state === "active");
    const newer = roll(world, 3, LONG);
    world.until(newer, () => entryOf(newer).state === "failed");
    act(world, older, "roll_back");
    expect(untilOver(world, older)).toBe("rolled_back");
    expect(world.devices.get("d0")!.running).toEqual(packageOf(1));
  });

  it.each(["mute", "stuck"] as const)(
    "the older rolled back: the newer's offer to a device that is %s stays",
    (ends) => {
      const world = worldOf({ 3: ends });
      const older = roll(world, 2);
      expect(untilOver(world, older)).toBe("succeeded");
      const newer = roll(world, 3, SHORT);
      world.until(newer, () => ["silent", "timed_out"].includes(entryOf(newer).state));
      act(world, older, "roll_back");
      expect(untilOver(world, older)).toBe("rolled_back");
      expect(entryOf(older)).toMatchObject({
        restore: "impossible",
        restoreDetail: `rollout ${newer.id} says what it has`,
      });
      expect(toldTo(world)).toMatchObject({ rollout: newer.id, purpose: "offer" });
    },
  );

  it("the older aborted after the newer is long over: what the newer brought stays", () => {
    const world = worldOf({ 2: "stuck" });
    const older = roll(world, 2, { gate: { waveTimeoutSeconds: 20 } });
    world.until(older, () => entryOf(older).state === "timed_out");
    const newer = roll(world, 3, { target: { devices: ["d0"] } });
    expect(untilOver(world, newer)).toBe("succeeded");
    world.engine.unload(newer.id);
    act(world, older, "abort");
    world.advance(60);
    expect(entryOf(older)).toMatchObject({ restore: "impossible", restoreDetail: "it runs parts@3 by now" });
    expect(world.devices.get("d0")!.running).toEqual(packageOf(3));
  });

  it("the newer aborted while the older is taken back: it does not return to the older one's version", () => {
    const world = worldOf({ 3: "failed" });
    const older = roll(world, 2);
    expect(untilOver(world, older)).toBe("succeeded");
    const newer = roll(world, 3, { ...LONG, retries: { max: 3, delaySeconds: 500 } });
    world.until(newer, () => entryOf(newer).state === "failed");
    expect(world.act(newer, { action: "retry", reason: "" })).toBeUndefined();
    act(world, older, "roll_back");
    world.advance(1);
    expect(entryOf(older).restore).toBe("offered");
    act(world, newer, "abort");
    expect(untilOver(world, older)).toBe("rolled_back");
    world.advance(60);
    expect(world.devices.get("d0")!.running).toEqual(packageOf(1));
  });

  it("a retry of all that failed in the older leaves what the newer has", () => {
    const world = worldOf({ 2: "failed" });
    world.add("d1");
    const older = roll(world, 2);
    world.until(older, ({ tallies }) => tallies[0]!.failed === 2);
    const newer = roll(world, 3, { target: { devices: ["d0"] } });
    expect(untilOver(world, newer)).toBe("succeeded");
    expect(world.act(older, { action: "retry", reason: "" })).toBeUndefined();
    world.advance(60);
    expect(entryOf(older)).toMatchObject({ state: "skipped", attempt: 1, hold: { by: newer.id } });
    expect(older.devices.get("d1")!.attempt).toBe(2);
    expect(world.devices.get("d0")!.running).toEqual(packageOf(3));
  });

  it("of another model in the same lane: an abort leaves the other's offer alone", () => {
    const world = worldOf({ 2: "mute" });
    const older = roll(world, 2, { gate: { silenceSeconds: 5 } });
    world.until(older, () => entryOf(older).state === "silent");
    const newer = roll(world, 7, {}, "shapes");
    world.until(newer, () => entryOf(newer).state === "offered");
    act(world, older, "abort");
    expect(toldTo(world)).toMatchObject({ rollout: newer.id, purpose: "offer" });
    expect(untilOver(world, newer)).toBe("succeeded");
  });

  it("a device that was silent in the older when the newer took it is no failure of the older", () => {
    const world = worldOf({ 2: "mute" });
    const older = roll(world, 2, {
      waves: [{ percent: 100 }],
      gate: { silenceSeconds: 5, failedShareMax: 1 },
    });
    world.until(older, () => entryOf(older).state === "silent");
    expect(world.act(older, { action: "next_wave", reason: "a person says so" })).toBeUndefined();
    expect(untilOver(world, older)).toBe("succeeded");
    const newer = roll(world, 3);
    world.until(newer, () => entryOf(newer).state === "offered");
    world.change("d0", { muted: false });
    expect(untilOver(world, newer)).toBe("succeeded");
    world.advance(200);
    expect(entryOf(older)).toMatchObject({ state: "skipped", hold: { reason: "superseded", by: newer.id } });
  });
});
