import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FieldloopError, type RolloutDeviceView } from "@fieldloop/protocol";
import type { ModelPackage } from "@fieldloop/runtime/node";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { FACTS } from "./kit.test.support.js";
import { ANN, DEVICES, LoopKit, request } from "./loop.test.support.js";
import type { Database } from "./store/database.js";
import { openSqlite } from "./store/sqlite.js";
import { makeTinyPackage } from "./training/tiny-package.test.kit.js";

let dir: string;
let pkg: ModelPackage;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fieldloop-durability-"));
  pkg = await makeTinyPackage(join(dir, "package"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

/** A database that is away for a while, as one is that starts anew behind the network. */
class AwayDatabase implements Database {
  readonly #inner: Database;
  away = false;

  constructor(inner: Database) {
    this.#inner = inner;
  }
  get dialect(): Database["dialect"] {
    return this.#inner.dialect;
  }
  async all<Row>(query: Parameters<Database["all"]>[0]): Promise<Row[]> {
    return this.#there.all<Row>(query);
  }
  async get<Row>(query: Parameters<Database["get"]>[0]): Promise<Row | undefined> {
    return this.#there.get<Row>(query);
  }
  async run(query: Parameters<Database["run"]>[0]): Promise<number> {
    return this.#there.run(query);
  }
  async transaction<Result>(work: (tx: Database) => Promise<Result>): Promise<Result> {
    return this.#there.transaction(work);
  }
  close(): Promise<void> {
    return this.#inner.close();
  }
  get #there(): Database {
    if (this.away) throw new FieldloopError("unavailable", "the database is away");
    return this.#inner;
  }
}

let kit: LoopKit;
let folder: string;
let database: AwayDatabase;
beforeEach(async () => {
  folder = await mkdtemp(join(dir, "kit-"));
  database = new AwayDatabase(openSqlite(join(folder, "fieldloop.db")));
  kit = new LoopKit(database, folder, pkg);
  await kit.open();
  await kit.publishBase();
});
afterEach(async () => {
  database.away = false;
  await kit.training.stop();
  await kit.trust.stop();
  await database.close();
});

const step = async (): Promise<void> => {
  kit.now += 1_000;
  await kit.rollouts.tick();
};
const steps = async (count: number): Promise<void> => {
  for (let at = 0; at < count; at++) await step();
};
/** A step while the database is away: it may fail as a whole. */
const stepAway = async (): Promise<void> => {
  database.away = true;
  await step().catch((error: unknown) => expect(error).toMatchObject({ code: "unavailable" }));
  database.away = false;
};
const deviceOf = async (rollout: string, device: string): Promise<RolloutDeviceView> =>
  (await kit.rollouts.devices(rollout)).items.find((one) => one.device === device)!;
const abort = { action: "abort", devices: "keep", reason: "" } as const;
const allAtOnce = { waves: [{ percent: 100 }] };

describe("a rollout while the database is away", () => {
  it("offers what it could not store as soon as it can", async () => {
    const { rollout } = await kit.rollouts.create(request(allAtOnce), ANN);
    await stepAway();
    await stepAway();
    expect(kit.published).toEqual([]);
    await steps(2);
    expect(kit.published.toSorted()).toEqual(DEVICES.map((device) => `${device} desired`));
    expect(await kit.deployments.ofRollout(rollout)).toHaveLength(3);
    expect(await deviceOf(rollout, "cam-a")).toMatchObject({ state: "offered", attempt: 1 });
  });

  it("shows nothing of an action that was not stored, which can be asked again", async () => {
    const { rollout } = await kit.rollouts.create(request(allAtOnce), ANN);
    await steps(2);
    database.away = true;
    await expect(kit.rollouts.act(rollout, abort, ANN)).rejects.toMatchObject({ code: "unavailable" });
    database.away = false;
    expect((await kit.rollouts.get(rollout)).state).toBe("running");
    expect((await kit.rollouts.act(rollout, abort, ANN)).state).toBe("aborted");
    expect((await kit.desired.current("cam-a"))!.assignments).toEqual([]);
  });

  it("leaves the place of another alone when its start was not stored", async () => {
    const target = { group: "all" };
    const first = await rolledOut(0.1, target);
    const draft = await kit.rollouts.create(configRequest(0.2, target, { start: false }), ANN);
    database.away = true;
    const start = kit.rollouts.act(draft.rollout, { action: "start", reason: "" }, ANN);
    await expect(start).rejects.toMatchObject({ code: "unavailable" });
    database.away = false;
    await step();
    expect(await kit.rollouts.get(first.rollout)).toMatchObject({ current: true, supersededBy: null });
  });

  it("hears what devices reported meanwhile", async () => {
    const { rollout } = await kit.rollouts.create(request(allAtOnce), ANN);
    await steps(2);
    for (const device of DEVICES) {
      await kit.deployment(rollout, device, "active");
      await kit.report(device, 1, pkg.packageSha256);
    }
    await stepAway();
    await step();
    const { items } = await kit.rollouts.devices(rollout);
    expect(items.map(({ state }) => state)).toEqual(["active", "active", "active"]);
  });
});

describe("a rollout that is read again", () => {
  it("hears what a device says while it is being read", async () => {
    let says: (() => Promise<void>) | undefined;
    const deployments: Pick<LoopKit["deployments"], "ofRollout"> = {
      ofRollout: async (rollout) => {
        const read = await kit.deployments.ofRollout(rollout);
        await says?.();
        return read;
      },
    };
    kit.rollouts = kit.makeRollouts(kit.desired, deployments);
    const { rollout } = await kit.rollouts.create(request(allAtOnce), ANN);
    await steps(2);
    await kit.report("cam-a", 1, pkg.packageSha256);
    says = async () => {
      says = undefined;
      await kit.deployment(rollout, "cam-a", "active");
    };
    kit.rollouts = kit.makeRollouts(kit.desired, deployments);
    await steps(2);
    expect(await deviceOf(rollout, "cam-a")).toMatchObject({ state: "active" });
  });
});

describe("one device that cannot be told what it should", () => {
  it("does not keep a roll-back from the others, nor the offer: its version before is not in the registry", async () => {
    await kit.report("cam-a", 9, "f".repeat(64));
    // The same number of another fleet's.
    await kit.report("cam-b", 1, "e".repeat(64));
    const { rollout } = await kit.rollouts.create(request(allAtOnce), ANN);
    await steps(2);
    expect((await kit.desired.current("cam-a"))!.assignments).toHaveLength(1);
    await kit.rollouts.act(rollout, { action: "roll_back", reason: "" }, ANN);
    await steps(3);
    expect((await kit.rollouts.get(rollout)).state).toBe("rolled_back");
    for (const [device, why] of [
      ["cam-a", 'there is no "shapes@9"'],
      ["cam-b", '"shapes@1" is another package here'],
    ] as const) {
      const { restore, restoreDetail } = await deviceOf(rollout, device);
      expect([restore, restoreDetail]).toEqual(["impossible", expect.stringContaining(why)]);
      expect((await kit.desired.current(device))!.assignments).toEqual([]);
    }
  });

  it("does not keep a wave from the others: all of its lanes have an assignment", async () => {
    const { packageSha256, manifestBytes } = await kit.registry.require("shapes", 1);
    const about = { model: "shapes", version: 1, packageSha256, manifestBytes };
    for (let at = 0; at < 8; at++) {
      const probation = { seconds: 1, predictions: 1 };
      await kit.desired.assign("cam-b", { deployment: `dep_${at}`, lane: `lane-${at}`, probation, ...about });
    }
    const { rollout } = await kit.rollouts.create(request(allAtOnce), ANN);
    await steps(2);
    const { items } = await kit.rollouts.devices(rollout);
    expect(Object.fromEntries(items.map((one) => [one.device, one.state]))).toEqual({
      "cam-a": "offered",
      "cam-b": "rejected",
      "cam-c": "offered",
    });
    expect(await deviceOf(rollout, "cam-b")).toMatchObject({ errorCode: "limit_exceeded" });
  });
});

function configRequest(
  randomShare: number,
  target: Record<string, unknown>,
  more: Record<string, unknown> = {},
): ReturnType<typeof request> {
  return request({ change: { kind: "config", policy: { randomShare } }, target, ...allAtOnce, ...more });
}

/** A configuration that every device has by now, its waves let pass by hand. */
async function rolledOut(
  randomShare: number,
  target: Record<string, unknown>,
): Promise<{ rollout: string; configId: string }> {
  const { rollout, subject } = await kit.rollouts.create(configRequest(randomShare, target), ANN);
  const configId = subject.kind === "config" ? subject.configId : "";
  await steps(2);
  for (const device of DEVICES) await kit.report(device, 1, pkg.packageSha256, configId);
  await step();
  await kit.rollouts.act(rollout, { action: "next_wave", reason: "a person says so" }, ANN);
  await step();
  expect((await kit.rollouts.get(rollout)).state).toBe("succeeded");
  return { rollout, configId };
}

async function enrol(device: string): Promise<void> {
  const record = { device, tags: {}, facts: FACTS, enrolled: kit.now, credentialSha256: "0" };
  await kit.devices.insert(database, record);
  await kit.report(device, 1, pkg.packageSha256);
}

describe("rollouts of one target after each other", () => {
  const target = { group: "all" };

  it("the one in the middle rolled back: the first does not come back over the newest", async () => {
    const first = await rolledOut(0.1, target);
    const second = await rolledOut(0.2, target);
    const third = await rolledOut(0.3, target);
    await kit.rollouts.act(second.rollout, { action: "roll_back", reason: "" }, ANN);
    await steps(3);
    expect((await kit.rollouts.get(second.rollout)).state).toBe("rolled_back");
    expect(await kit.rollouts.get(first.rollout)).toMatchObject({
      current: false,
      supersededBy: third.rollout,
    });
    await enrol("cam-d");
    await steps(3);
    await kit.report("cam-d", 1, pkg.packageSha256, third.configId);
    await steps(5);
    expect((await kit.desired.current("cam-d"))!.configId).toBe(third.configId);
    // The newest is taken back as well: then it is the first's turn again.
    await kit.rollouts.act(third.rollout, { action: "roll_back", reason: "" }, ANN);
    await steps(3);
    for (const device of [...DEVICES, "cam-d"])
      await kit.report(device, 1, pkg.packageSha256, second.configId);
    await steps(40);
    expect(await kit.rollouts.get(first.rollout)).toMatchObject({ current: true, supersededBy: null });
  });

  it("a device that the first is still at stays its own through a restart", async () => {
    const first = await rolledOut(0.1, target);
    await enrol("cam-d");
    await steps(2);
    expect(await deviceOf(first.rollout, "cam-d")).toMatchObject({ state: "offered" });
    const second = await kit.rollouts.create(configRequest(0.2, target), ANN);
    await step();
    expect(await kit.rollouts.get(first.rollout)).toMatchObject({ current: false });
    kit.rollouts = kit.makeRollouts();
    await steps(2);
    expect(await deviceOf(second.rollout, "cam-d")).toMatchObject({
      state: "waiting",
      hold: { reason: "priority" },
    });
    await kit.report("cam-d", 1, pkg.packageSha256, first.configId);
    await steps(2);
    expect(await deviceOf(second.rollout, "cam-d")).toMatchObject({ state: "offered" });
  });
});
