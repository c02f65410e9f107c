import { rolloutRequestSchema, type DeviceState } from "@fieldloop/protocol";
import { sql } from "drizzle-orm";
import { describe, expect, it } from "vitest";
import { newRolloutWave, type RolloutRecord } from "../domain/rollout.js";
import { FACTS, QUIET_STATE } from "../kit.test.support.js";
import { AuditStore } from "./audit.js";
import { AuthStore } from "./auth.js";
import { describeDatabases } from "./databases.test.support.js";
import { DeploymentStore } from "./deployments.js";
import { DesiredStore } from "./desired.js";
import { DeviceStore } from "./devices.js";
import { EventStore } from "./events.js";
import { SqlIdempotencyStore } from "./idempotency.js";
import { LabelStore } from "./labels.js";
import type { Behind } from "./newest.js";
import { RolloutStore } from "./rollouts.js";
import { SampleIngestStore, floatsOf } from "./samples.js";
import { TelemetryStore } from "./telemetry.js";

const HASH = "ab".repeat(32);

type Running = NonNullable<DeviceState["running"]>;

/** A device that runs these, each in a lane of its own. */
function stateOf(running: readonly Running[]): DeviceState {
  const [first = null] = running;
  return {
    ...QUIET_STATE,
    running: first,
    lanes: running.map((each, at) => ({
      name: `lane-${at}`,
      source: "test",
      model: each.model,
      priority: 50,
      running: each,
      deployment: null,
      framesSeen: 0,
      framesDropped: 0,
      framesFailed: 0,
      framesSkipped: 0,
      rateMax: null,
    })),
  };
}

describe("float vectors as bytes", () => {
  it("come back from any address", () => {
    const bytes = new Uint8Array(13).subarray(1);
    new DataView(bytes.buffer, 1).setFloat32(4, 1.5, true);
    expect([...floatsOf(bytes)]).toEqual([0, 1.5, 0]);
  });
});

/** Stands for what encrypts; that has tests of its own. */
const reverse = (text: string): string => text.split("").reverse().join("");
const REVERSED = { seal: reverse, unseal: reverse };

describeDatabases("devices", (database) => {
  const insert = (store: DeviceStore, device: string): Promise<void> =>
    database().transaction((tx) =>
      store.insert(tx, { device, tags: { site: "lyon" }, facts: FACTS, enrolled: 5, credentialSha256: HASH }),
    );

  it("stores a device once and pages by id", async () => {
    const store = new DeviceStore(database());
    for (const device of ["b", "a", "c"]) await insert(store, device);
    await expect(insert(store, "a")).rejects.toMatchObject({ code: "already_exists" });
    expect((await store.list("", 2)).map((record) => record.device)).toEqual(["a", "b"]);
    expect((await store.list("b", 2)).map((record) => record.device)).toEqual(["c"]);
    expect(await store.get("a")).toMatchObject({
      tags: { site: "lyon" },
      suspended: false,
      online: false,
      state: null,
      lastSeen: null,
    });
    expect(await store.setTags("a", { site: "turin" })).toBe(true);
    expect(await store.setSuspended("nobody", true)).toBe(false);
    expect(await store.credential("a")).toEqual({ credentialSha256: HASH, suspended: false });
  });

  it("ignores presence and state of an older boot", async () => {
    const store = new DeviceStore(database());
    await insert(store, "a");
    await database().transaction(async (tx) => {
      expect(await store.setPresence(tx, "a", 5, true)).toBe(true);
      expect(await store.setPresence(tx, "a", 4, false)).toBe(false);
    });
    expect(await store.get("a")).toMatchObject({ online: true });
    await store.setAllOffline();
    expect(await store.get("a")).toMatchObject({ online: false });
  });

  it("counts a version as running in whichever lane it runs, once a device", async () => {
    const store = new DeviceStore(database());
    const running = (model: string, version: number): Running => ({
      model,
      version,
      packageSha256: HASH,
      variant: "fp32",
      executionProvider: "cpu",
      since: 1,
    });
    await insert(store, "several");
    await insert(store, "one");
    await database().transaction(async (tx) => {
      await store.setState(tx, "several", stateOf([running("parts", 1), running("bear_ing", 12)]));
      await store.setState(tx, "one", stateOf([running("parts", 1)]));
    });
    expect(await store.runningOn("parts", 1)).toBe(2);
    expect(await store.runningOn("bear_ing", 12)).toBe(1);
    for (const [model, version] of [
      ["bear_ing", 1],
      ["bear-ing", 12],
      ["ing", 12],
    ] as const) {
      expect(await store.runningOn(model, version)).toBe(0);
    }
  });

  it("keeps groups", async () => {
    const store = new DeviceStore(database());
    await store.putGroup({ group: "g", devices: ["a"], selector: null });
    await store.putGroup({ group: "g", devices: null, selector: { site: "lyon" } });
    expect(await store.groups()).toEqual([{ group: "g", devices: null, selector: { site: "lyon" } }]);
    expect(await store.deleteGroup("g")).toBe(true);
    expect(await store.deleteGroup("g")).toBe(false);
  });
});

describeDatabases("desired states and deployments", (database) => {
  it("takes only a higher revision", async () => {
    const store = new DesiredStore(database());
    const of = (revision: number) => ({
      device: "a",
      revision,
      payload: Uint8Array.of(revision),
      envelope: Uint8Array.of(1, revision),
      issued: 1,
    });
    expect(await store.put(database(), of(2))).toBe(true);
    expect(await store.put(database(), of(2))).toBe(false);
    expect(await store.put(database(), of(1))).toBe(false);
    expect(await store.put(database(), of(3))).toBe(true);
    expect((await store.get("a"))?.revision).toBe(3);
    await store.putPolicy("default", { worthMin: 0.5 });
    await store.putPolicy("default", { worthMin: 0.6 });
    expect(await store.policies()).toEqual(new Map([["default", { worthMin: 0.6 }]]));
  });

  it("follows a deployment", async () => {
    const store = new DeploymentStore(database());
    const deployment = {
      deployment: "dep_1",
      device: "a",
      rollout: "rol_1",
      model: "parts",
      version: 2,
      packageSha256: HASH,
    };
    await store.insert(database(), deployment, 10);
    await expect(store.insert(database(), deployment, 10)).rejects.toMatchObject({ code: "already_exists" });
    await store.setState(
      database(),
      "dep_1",
      { state: "failed", errorCode: "download_failed", errorMessage: "cut", measured: { bytes: 7 } },
      20,
    );
    expect(await store.ofRollout("rol_1")).toEqual([
      {
        ...deployment,
        state: "failed",
        errorCode: "download_failed",
        errorMessage: "cut",
        measured: { bytes: 7 },
        created: 10,
        updated: 20,
      },
    ]);
    expect(await store.ofDevice("b")).toEqual([]);
  });
});

describeDatabases("access", (database) => {
  it("ends sessions with their token and with time", async () => {
    const store = new AuthStore(database());
    await store.insertToken(database(), {
      sha256: HASH,
      name: "ann",
      role: "operator",
      created: 1,
      person: "ann",
      sponsor: "ann",
    });
    await expect(
      store.insertToken(database(), {
        sha256: "cd",
        name: "ann",
        role: "viewer",
        created: 1,
        person: "ann",
        sponsor: "ann",
      }),
    ).rejects.toMatchObject({ code: "already_exists" });
    await store.insertSession({ sha256: "s1", tokenSha256: HASH, created: 1, expires: 100 });
    expect(await store.session("s1", 50)).toEqual({
      name: "ann",
      role: "operator",
      person: "ann",
      sponsor: "ann",
    });
    expect(await store.session("s1", 100)).toBeUndefined();
    expect(await store.revokeToken(database(), "ann")).toBe(true);
    expect(await store.session("s1", 50)).toBeUndefined();
    expect(await store.token(HASH)).toBeUndefined();
  });

  it("gives as many enrolments as a token has uses, and none when it expired", async () => {
    const store = new AuthStore(database());
    await store.insertEnrolmentToken({ sha256: "t", created: 1, expires: 100, uses: 3, author: "ann" });
    const taken = await Promise.all(
      Array.from({ length: 10 }, () => database().transaction((tx) => store.takeEnrolmentUse(tx, "t", 50))),
    );
    expect(taken.filter(Boolean)).toHaveLength(3);
    await store.insertEnrolmentToken({ sha256: "u", created: 1, expires: 100, uses: 3, author: "ann" });
    expect(await store.takeEnrolmentUse(database(), "u", 100)).toBe(false);
  });

  it("answers a repeated idempotency key from memory and refuses it for another request", async () => {
    let now = 1_000;
    const store = new SqlIdempotencyStore(database(), { now: () => now }, REVERSED);
    expect(await store.claim("ann", "k", "r1")).toBe("claimed");
    await expect(store.claim("ann", "k", "r1")).rejects.toMatchObject({ code: "conflict" });
    const answer = { status: 201, contentType: "application/json", body: "{}", secret: false };
    await store.complete("ann", "k", answer);
    expect(await store.claim("ann", "k", "r1")).toEqual(answer);
    await expect(store.claim("ann", "k", "r2")).rejects.toMatchObject({ code: "idempotency_conflict" });
    expect(await store.claim("bob", "k", "r2")).toBe("claimed");
    await store.claim("ann", "told", "r1");
    await store.complete("ann", "told", { ...answer, body: "flt_token", secret: true });
    const rows = await database().all<{ body: string }>(sql`select body from idempotency where key = 'told'`);
    expect(rows).toEqual([{ body: "nekot_tlf" }]);
    expect(await store.claim("ann", "told", "r1")).toMatchObject({ body: "flt_token" });
    now += 61_000;
    expect(await store.claim("bob", "k", "r3")).toBe("claimed");
    now += 24 * 3_600_000;
    expect(await store.claim("ann", "k", "r9")).toBe("claimed");
  });
});

describeDatabases("telemetry", (database) => {
  it("adds rollups up and answers by time, device and version", async () => {
    const store = new TelemetryStore(database());
    const at = 1_790_000_000_000;
    const add = (
      device: string,
      bucket: number,
      version: number,
      classIndex: number,
      count: number,
    ): Promise<void> =>
      store.addRollup(database(), {
        device,
        bucket,
        model: "m",
        version,
        class: classIndex,
        count,
        confidenceSum: count * 0.5,
        latencySum: count * 2,
        confidenceSquares: 1,
        latencySquares: 1,
      });
    await add("a", at, 1, 0, 10);
    await add("a", at, 1, 0, 5);
    await add("a", at + 10_000, 2, -1, 4);
    await add("b", at, 1, 1, 7);
    expect(await store.sumsByDevice({ device: "a" })).toEqual([
      { device: "a", count: 19, confidenceSum: 9.5, latencySum: 38 },
    ]);
    expect(await store.sumsByDevice({ devices: ["a", "b"], version: 1 })).toHaveLength(2);
    expect(await store.sumsByDevice({ devices: [] })).toEqual([]);
    expect(await store.sumsByDevice({ from: at + 10_000 })).toEqual([
      { device: "a", count: 4, confidenceSum: 2, latencySum: 8 },
    ]);
    const series = await store.series({ device: "a" }, 20_000);
    expect(series.map(({ bucket, version, count }) => [bucket, version, count])).toEqual([
      [at, 1, 15],
      [at, 2, 4],
    ]);
  });

  it("settles each feedback once", async () => {
    const store = new TelemetryStore(database());
    const row = { device: "a", boot: 1, n: 3, label: "x", correct: null };
    expect(await store.insertFeedback(database(), { ...row, received: 1 })).toBe(true);
    expect(await store.insertFeedback(database(), { ...row, label: "y", received: 2 })).toBe(false);
    expect(await store.pendingFeedback(database(), "a", 1, 0, 4)).toEqual([row]);
    const into = { device: "a", bucket: 0, model: "m", version: 1 };
    await store.foldFeedback(database(), row, into, true);
    await store.foldFeedback(database(), row, into, true);
    expect(await store.accuracyByDevice({})).toEqual([{ device: "a", count: 1, correct: 1 }]);
    expect(await store.pendingFeedback(database(), "a", 1, 0, 4)).toEqual([]);
  });

  it("finds the segment of a prediction", async () => {
    const store = new TelemetryStore(database());
    const segment = (seq: number, firstN: number, count: number) => ({
      device: "a",
      boot: 1,
      seq,
      model: "m",
      version: 1,
      packagePrefix: "00",
      firstN,
      count,
      t0: firstN,
      t1: firstN + count,
      received: 1,
      payload: Uint8Array.of(seq),
    });
    await store.insertSegment(database(), segment(1, 0, 10));
    await store.insertSegment(database(), segment(2, 20, 10));
    await expect(store.insertSegment(database(), segment(2, 30, 10))).rejects.toMatchObject({
      code: "already_exists",
    });
    expect((await store.segmentAt("a", 1, 9))?.seq).toBe(1);
    expect(await store.segmentAt("a", 1, 10)).toBeUndefined();
    expect((await store.segmentAt("a", 1, 29))?.seq).toBe(2);
    expect((await store.recentSegments("a", 5)).map(({ seq }) => seq)).toEqual([2, 1]);
    await store.setCursor(database(), "a", "predictions", 1, 2);
    await store.setCursor(database(), "a", "predictions", 1, 3);
    expect(await store.cursors(database(), "a")).toEqual([{ stream: "predictions", boot: 1, seq: 3 }]);
  });
});

describeDatabases("samples, events and labels", (database) => {
  it("puts the parts of a sample together and stores it once", async () => {
    const store = new SampleIngestStore();
    const metadata = {
      predictionBoot: 1,
      n: 3,
      time: 5,
      model: "m",
      version: 1,
      packageSha256: HASH,
      variant: "int8",
      stratum: "worth" as const,
      probability: 1,
      worth: 0.9,
      class: 2,
      label: "nut",
      confidence: 0.4,
      latencyMs: 3.5,
      signals: { entropy: 0.7 },
      embedding: Float32Array.of(0.5, -1),
      mediaType: "image/jpeg" as const,
      bytes: 3,
      sha256: HASH,
      source: "test",
    };
    await store.putPart(
      database(),
      "a",
      "smp_00000001",
      { part: 0, parts: 2, metadata, payload: Uint8Array.of(1, 2) },
      1,
    );
    await store.putPart(
      database(),
      "a",
      "smp_00000001",
      { part: 1, parts: 2, metadata: undefined, payload: Uint8Array.of(3) },
      1,
    );
    const parts = await store.parts(database(), "a", "smp_00000001");
    expect(parts.map(({ part }) => part)).toEqual([0, 1]);
    expect(parts[0]!.metadata).toEqual(metadata);
    expect(
      await store.insert(database(), { sample: "smp_00000001", device: "a", received: 9, metadata }),
    ).toBe(true);
    expect(
      await store.insert(database(), { sample: "smp_00000001", device: "b", received: 9, metadata }),
    ).toBe(false);
    await store.deleteParts(database(), "a", "smp_00000001");
    expect(await store.unfinished(database(), "a")).toBe(0);
  });

  it("lists events newest first and counts crashes", async () => {
    const store = new EventStore(database());
    const event = (seq: number, data: Parameters<EventStore["insert"]>[1]["data"]) =>
      store.insert(database(), { device: "a", boot: 1, seq, time: seq, received: seq * 10, data });
    await event(1, { type: "crash", process: "host", reason: "SIGSEGV" });
    await event(2, { type: "command_result", command: "c" });
    expect((await store.list("a", { limit: 10 })).map(({ seq }) => seq)).toEqual([2, 1]);
    expect(await store.list("a", { type: "crash", limit: 10 })).toHaveLength(1);
    expect(await store.crashes("a", 11)).toBe(0);
    expect(await store.crashes("a", 10)).toBe(1);
  });

  it("keeps the beginning of a dead letter", async () => {
    const store = new EventStore(database());
    const payload = new Uint8Array(10_000).fill(7);
    await store.insertDeadLetter(database(), {
      id: "d",
      device: "a",
      kind: "event",
      code: "message_schema",
      message: "no",
      received: 1,
      bytes: 10_000,
      payload,
    });
    const [letter] = await store.deadLetters(10);
    expect(letter).toMatchObject({ code: "message_schema", bytes: 10_000 });
    expect(letter!.payload.length).toBe(4096);
    expect(await store.deadLetterCount()).toBe(1);
  });

  it("replaces the labels of a version", async () => {
    const store = new LabelStore(database());
    await store.put("m", 1, ["a"]);
    await store.put("m", 1, ["a", "b"]);
    expect(await store.get("m", 1)).toEqual(["a", "b"]);
    expect(await store.get("m", 2)).toBeUndefined();
  });
});

const TIME = 1_800_000_000_000;
/** Three of one millisecond, and one before it; not in the order of their ids. */
const WRITTEN: readonly (readonly [id: string, time: number])[] = [
  ["b", TIME],
  ["a", TIME],
  ["d", TIME - 1],
  ["c", TIME],
];

/** Ids in the order of the list, read in pages of two. */
async function paged(
  list: (options: { before?: Behind; limit: number }) => Promise<Behind[]>,
): Promise<string[]> {
  const ids: string[] = [];
  let before: Behind | undefined;
  for (;;) {
    const page = await list({ limit: 2, ...(before ? { before } : {}) });
    ids.push(...page.map(({ id }) => id));
    if (page.length < 2) return ids;
    before = page.at(-1)!;
  }
}

describeDatabases("lists that are newest first", (database) => {
  describe("what shares a millisecond across the border of two pages is left out of neither", () => {
    it("audit", async () => {
      const store = new AuditStore(database());
      for (const [entry, time] of WRITTEN)
        await store.add({ entry, time, actor: "ann", action: "x", subject: "s", detail: {} });
      const list = async (options: { before?: Behind; limit: number }): Promise<Behind[]> =>
        (await store.list({ subject: "s", ...options })).map(({ entry, time }) => ({ id: entry, time }));
      expect(await paged(list)).toEqual(["c", "b", "a", "d"]);
    });

    it("rollouts", async () => {
      const store = new RolloutStore(database());
      for (const [rollout, created] of WRITTEN)
        await store.add(recordOf(rollout, created), [newRolloutWave(1, null)], []);
      const list = async (options: { before?: Behind; limit: number }): Promise<Behind[]> =>
        (await store.list({ model: "parts", ...options })).map(({ record }) => ({
          id: record.rollout,
          time: record.created,
        }));
      expect(await paged(list)).toEqual(["c", "b", "a", "d"]);
    });
  });
});

function recordOf(rollout: string, created: number): RolloutRecord {
  const change = { kind: "package", model: "parts", version: 1 } as const;
  return {
    ...{ rollout, created, createdBy: "ann", creator: "ann", from: null },
    subject: { ...change, packageSha256: "a".repeat(64) },
    request: rolloutRequestSchema.parse({ change, target: { group: "all" } }),
    ...{ state: "draft", reason: null, started: null, finished: null, approved: null },
    ...{ current: false, supersededBy: null, revision: 1 },
  };
}
