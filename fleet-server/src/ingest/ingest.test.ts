import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  decodeAck,
  encodeMessage,
  upTopic,
  type Ack,
  type EventData,
  type LiveEvent,
  type SampleMetadata,
  type UpKind,
} from "@fieldloop/protocol";
import { sql } from "drizzle-orm";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FileBlobStore } from "../blob/files.js";
import { CONFLICT_QUIET_MS } from "../domain/identity.js";
import { BASE_TIME, FACTS, encodeBatch, rows, silent } from "../kit.test.support.js";
import { LabelService } from "../services/labels.js";
import { LiveHub } from "../services/live.js";
import { RateMeter } from "../services/rates.js";
import { TelemetryService } from "../services/telemetry.js";
import type { Database } from "../store/database.js";
import { DeploymentStore } from "../store/deployments.js";
import { DeviceStore } from "../store/devices.js";
import { EventStore } from "../store/events.js";
import { LabelStore } from "../store/labels.js";
import { migrate } from "../store/migrate.js";
import { MIGRATIONS } from "../store/migrations.js";
import { SampleIngestStore } from "../store/samples.js";
import { ShadowStore } from "../store/shadow.js";
import { openSqlite } from "../store/sqlite.js";
import { TelemetryStore } from "../store/telemetry.js";
import { settleVersion } from "./feedback.js";
import { Ingest } from "./ingest.js";

/** Ingest over a database that can be closed and opened again, as after a crash. */
class Station {
  readonly acks: (Ack & { device: string })[] = [];
  readonly live: LiveEvent[] = [];
  now = BASE_TIME;
  database!: Database;
  ingest!: Ingest;
  telemetry!: TelemetryService;
  stores!: ReturnType<Station["open"]> extends Promise<infer Stores> ? Stores : never;
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  async open() {
    this.database = openSqlite(join(this.folder, "test.db"));
    await migrate(this.database, MIGRATIONS, () => 1);
    const blobs = new FileBlobStore(join(this.folder, "blobs"));
    await blobs.open();
    const telemetry = new TelemetryStore(this.database);
    const labels = new LabelService(new LabelStore(this.database));
    labels.onKnown((model, version) => settleVersion(this.database, telemetry, labels, model, version));
    const stores = {
      telemetry,
      devices: new DeviceStore(this.database),
      deployments: new DeploymentStore(this.database),
      samples: new SampleIngestStore(),
      events: new EventStore(this.database),
      shadow: new ShadowStore(this.database),
      labels,
      blobs,
    };
    this.telemetry = new TelemetryService(telemetry, labels);
    const live = new LiveHub();
    live.listen((event) => this.live.push(event));
    this.ingest = new Ingest({
      database: this.database,
      stores,
      downlink: {
        publish: async (device, _kind, payload) => {
          this.acks.push(...decodeAck(payload).map((ack) => ({ ...ack, device })));
        },
      },
      live,
      rates: new RateMeter(),
      clock: { now: () => this.now },
      logger: silent,
    });
    this.stores = stores;
    return stores;
  }

  async device(device: string): Promise<void> {
    await this.database.transaction((tx) =>
      this.stores.devices.insert(tx, { device, tags: {}, facts: FACTS, enrolled: 1, credentialSha256: "00" }),
    );
  }

  send(kind: UpKind, payload: Uint8Array, device = "cam-1"): void {
    this.ingest.offer({ topic: upTopic(device, kind), payload, retain: false });
  }

  event(seq: number, data: EventData, prev = seq - 1): void {
    this.send("event", encodeMessage("event", { boot: 1, seq, prev, time: BASE_TIME, data }));
  }

  acked(stream: Ack["stream"], device = "cam-1"): { boot: number; seq: number } | undefined {
    const last = this.acks.filter((ack) => ack.device === device && ack.stream === stream).at(-1);
    return last && { boot: last.boot, seq: last.seq };
  }

  async rowCount(table: string): Promise<number> {
    return (await this.database.get<{ count: number }>(sql.raw(`select count(*) as count from ${table}`)))!
      .count;
  }
}

let station: Station;
beforeEach(async () => {
  station = new Station(await mkdtemp(join(tmpdir(), "fieldloop-ingest-")));
  await station.open();
  await station.device("cam-1");
});
afterEach(async () => {
  await station.ingest.stop();
  await station.database.close();
  await rm(station.folder, { recursive: true, force: true });
});

describe("ingest: exactly once", () => {
  it("whatever is repeated, reordered, lost or cut off by a crash", async () => {
    const batches = 12;
    let run = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ at: fc.nat(batches - 1), crash: fc.boolean(), loseAck: fc.boolean() }), {
          minLength: 20,
          maxLength: 60,
        }),
        async (steps) => {
          const device = `cam-run-${++run}`;
          await station.device(device);
          let durable = 0;
          const send = async (index: number, crash: boolean, loseAck: boolean): Promise<void> => {
            // What a device would send: its message, and as `prev` the one before that is not acknowledged yet.
            const seq = index + 1;
            station.send(
              "predictions",
              encodeBatch({ seq, prev: index <= durable ? Math.max(0, index) : index, firstN: index * 10 }),
              device,
            );
            await station.ingest.idle();
            if (crash) {
              // The commit happened, the acknowledgement was lost with the process.
              await station.database.close();
              await station.open();
            } else if (!loseAck) durable = station.acked("predictions", device)?.seq ?? durable;
          };
          for (const step of steps) await send(step.at, step.crash && step.at % 4 === 0, step.loseAck);
          // The link recovers: everything not acknowledged is sent in order.
          for (let index = 0; index < batches; index++) await send(index, false, false);
          expect(station.acked("predictions", device)).toEqual({ boot: 1, seq: batches });
          expect(await station.telemetry.total({ device })).toBe(batches * 10);
          const counted = await station.telemetry.statistics({ device });
          expect(counted.count).toBe(batches * 10);
        },
      ),
      { numRuns: 8 },
    );
  });

  it("takes a message that stands after a lost one only when the lost one came", async () => {
    station.send("predictions", encodeBatch({ seq: 2 }));
    await station.ingest.idle();
    expect(station.acks).toEqual([]);
    for (const seq of [1, 3, 2, 3, 3]) station.send("predictions", encodeBatch({ seq }));
    await station.ingest.idle();
    expect(station.acked("predictions")).toEqual({ boot: 1, seq: 3 });
    expect(station.ingest.counters).toMatchObject({ gaps: 2, duplicates: 1, predictions: 30 });
  });

  it("tells an eviction from a loss", async () => {
    station.send("predictions", encodeBatch({ seq: 1 }));
    station.send("predictions", encodeBatch({ seq: 5, prev: 0 }));
    await station.ingest.idle();
    expect(station.acked("predictions")).toEqual({ boot: 1, seq: 5 });
  });

  it("refuses an older boot once a newer was seen, and acknowledges the newer", async () => {
    station.send("predictions", encodeBatch({ seq: 1, boot: 2 }));
    station.send("predictions", encodeBatch({ seq: 1, boot: 1 }));
    await station.ingest.idle();
    expect(station.acked("predictions")).toEqual({ boot: 2, seq: 1 });
    expect(station.ingest.counters).toMatchObject({ superseded: 1, predictions: 10 });
  });

  it("answers a commit once per device, however many messages it held", async () => {
    for (let seq = 1; seq <= 50; seq++) station.send("predictions", encodeBatch({ seq }));
    await station.ingest.idle();
    expect(station.acks).toHaveLength(1);
    expect(station.ingest.counters.commits).toBe(1);
  });

  it("acknowledges nothing where the commit failed, and takes everything the next time", async () => {
    const failing = station.database.transaction.bind(station.database);
    let fail = true;
    station.database.transaction = async (work) => {
      if (fail) throw Object.assign(new Error("disk"), { code: "other" });
      return failing(work);
    };
    station.send("predictions", encodeBatch({ seq: 1 }));
    await station.ingest.idle();
    expect(station.acks).toEqual([]);
    expect(station.ingest.counters).toMatchObject({ failedCommits: 1, predictions: 0 });
    fail = false;
    station.send("predictions", encodeBatch({ seq: 1 }));
    await station.ingest.idle();
    expect(station.acked("predictions")).toEqual({ boot: 1, seq: 1 });
  });
});

describe("ingest: poison", () => {
  it("sets an unreadable message aside and acknowledges it, so that the next ones pass", async () => {
    station.event(1, { type: "command_result", command: "a" });
    const bad = encodeMessage("event", {
      boot: 1,
      seq: 2,
      prev: 1,
      time: 1,
      data: { type: "command_result", command: "b" },
    });
    // The type becomes one that nobody knows.
    const at = Buffer.from(bad).indexOf("command_result");
    bad.set(Buffer.from("command_rezult"), at);
    station.send("event", bad);
    station.event(3, { type: "command_result", command: "c" });
    await station.ingest.idle();
    expect(station.acked("event")).toEqual({ boot: 1, seq: 3 });
    expect(await station.rowCount("device_events")).toBe(2);
    expect(await station.stores.events.deadLetters(5)).toMatchObject([
      { device: "cam-1", kind: "event", code: "message_schema" },
    ]);
  });

  it("cannot acknowledge what is no CBOR at all, and goes on", async () => {
    station.send("predictions", Uint8Array.of(0xff, 0xff));
    station.send("state", Uint8Array.of(1));
    station.send("predictions", encodeBatch({ seq: 1 }));
    await station.ingest.idle();
    expect(station.acked("predictions")).toEqual({ boot: 1, seq: 1 });
    expect(station.ingest.counters.poisoned).toBe(2);
  });

  it("loses only the message that the store refuses", async () => {
    await station.database.run(sql`insert into prediction_segments (device, boot, seq, model, version, package_prefix, first_n, count, t0, t1, received, payload)
      values ('cam-1', 1, 2, 'm', 1, '00', 0, 1, 0, 0, 0, ${new Uint8Array()})`);
    for (const seq of [1, 2, 3]) station.send("predictions", encodeBatch({ seq }));
    await station.ingest.idle();
    expect(station.acked("predictions")).toEqual({ boot: 1, seq: 3 });
    expect(await station.telemetry.total({ device: "cam-1" })).toBe(20);
    expect(station.ingest.counters).toMatchObject({ poisoned: 1, predictions: 20 });
  });
});

describe("ingest: feedback", () => {
  const feedback = (
    items: Extract<EventData, { type: "feedback" }>["items"],
    predictionBoot = 1,
  ): EventData => ({ type: "feedback", predictionBoot, items });

  it("counts each prediction once, whether feedback comes early, late or twice", async () => {
    station.event(
      1,
      feedback([
        { n: 5, correct: true },
        { n: 15, correct: false },
      ]),
    );
    await station.ingest.idle();
    expect((await station.telemetry.accuracy({})).count).toBe(0);
    station.send("predictions", encodeBatch({ seq: 1 }));
    await station.ingest.idle();
    expect(await station.telemetry.accuracy({})).toMatchObject({ successes: 1, count: 1 });
    station.send("predictions", encodeBatch({ seq: 2 }));
    station.event(
      2,
      feedback([
        { n: 5, correct: false },
        { n: 6, correct: true },
        { n: 99, correct: true },
      ]),
    );
    await station.ingest.idle();
    expect(await station.telemetry.accuracy({ model: "parts", version: 1 })).toMatchObject({
      successes: 2,
      count: 3,
    });
    expect(await station.telemetry.accuracy({ version: 2 })).toMatchObject({ value: null, count: 0 });
  });

  it("judges labels when the version's labels are known, before or after", async () => {
    station.send("predictions", encodeBatch({ seq: 1 }));
    // Classes are 0, 1, 2 in turn.
    station.event(
      1,
      feedback([
        { n: 0, label: "bolt" },
        { n: 1, label: "bolt" },
      ]),
    );
    await station.ingest.idle();
    expect((await station.telemetry.accuracy({})).count).toBe(0);
    await station.stores.labels.put("parts", 1, ["bolt", "nut", "washer"]);
    expect(await station.telemetry.accuracy({})).toMatchObject({ successes: 1, count: 2 });
    station.event(2, feedback([{ n: 2, label: "washer" }]));
    await station.ingest.idle();
    expect(await station.telemetry.accuracy({})).toMatchObject({ successes: 2, count: 3 });
    const recent = await station.telemetry.recentPredictions("cam-1", 10);
    expect(recent.find((view) => view.id === "1-1")).toMatchObject({ label: "nut", truth: "bolt" });
  });

  it("belongs to the boot that it names", async () => {
    station.send("predictions", encodeBatch({ seq: 1, boot: 3 }));
    station.event(1, feedback([{ n: 0, correct: true }], 2));
    station.event(2, feedback([{ n: 0, correct: false }], 3));
    await station.ingest.idle();
    expect(await station.telemetry.accuracy({})).toMatchObject({ successes: 0, count: 1 });
  });

  it("is shown per bucket of ten seconds", async () => {
    station.send("predictions", encodeBatch({ seq: 1, rows: rows(200), firstN: 0 }));
    station.event(
      1,
      feedback([
        { n: 0, correct: true },
        { n: 150, correct: false },
      ]),
    );
    await station.ingest.idle();
    const series = await station.telemetry.series("cam-1", BASE_TIME, BASE_TIME + 20_000, 10_000);
    expect(series.map(({ count, accuracy }) => [count, accuracy])).toEqual([
      [100, 1],
      [100, 0],
    ]);
    expect(series[0]!.meanConfidence).toBeCloseTo(0.9, 1);
    await expect(station.telemetry.series("cam-1", 0, BASE_TIME, 10_000)).rejects.toMatchObject({
      code: "limit_exceeded",
    });
  });
});

describe("ingest: samples", () => {
  const metadata = (payload: Uint8Array): SampleMetadata => ({
    predictionBoot: 1,
    n: 4,
    time: BASE_TIME,
    model: "parts",
    version: 1,
    packageSha256: "ab".repeat(32),
    variant: "int8",
    stratum: "worth",
    probability: 1,
    worth: 0.8,
    class: 1,
    label: "nut",
    confidence: 0.4,
    latencyMs: 4,
    signals: { entropy: 0.9 },
    embedding: Float32Array.of(1, 2, 3),
    mediaType: "image/jpeg",
    bytes: payload.length,
    sha256: createHash("sha256").update(payload).digest("hex"),
    source: "test",
  });
  const send = (
    seq: number,
    sample: string,
    part: number,
    parts: number,
    payload: Uint8Array<ArrayBuffer>,
    about?: SampleMetadata,
  ): void =>
    station.send(
      "sample",
      encodeMessage("sample", {
        boot: 1,
        seq,
        prev: seq - 1,
        sample,
        part,
        parts,
        payload,
        ...(about ? { metadata: about } : {}),
      }),
    );

  it("of one part and of several are stored with their payload", async () => {
    const small = new Uint8Array(100).fill(1);
    send(1, "smp_00000001", 0, 1, small, metadata(small));
    const large = new Uint8Array(3000).fill(2);
    for (const part of [0, 1, 2]) {
      send(
        2 + part,
        "smp_00000002",
        part,
        3,
        large.subarray(part * 1000, part * 1000 + 1000),
        part === 0 ? metadata(large) : undefined,
      );
      await station.ingest.idle();
    }
    expect(station.acked("sample")).toEqual({ boot: 1, seq: 4 });
    expect(await station.rowCount("samples")).toBe(2);
    expect(await station.rowCount("sample_parts")).toBe(0);
    expect(Buffer.from(await station.stores.blobs.get(metadata(large).sha256)).equals(large)).toBe(true);
    expect(station.live.filter((event) => event.type === "sample")).toHaveLength(2);
  });

  it("with another hash than announced, or without their first parts, are set aside", async () => {
    const payload = new Uint8Array(10).fill(3);
    send(1, "smp_00000003", 0, 1, payload, { ...metadata(payload), sha256: "00".repeat(32) });
    send(2, "smp_00000004", 1, 2, payload);
    send(3, "smp_00000005", 0, 1, payload, metadata(payload));
    await station.ingest.idle();
    expect(station.acked("sample")).toEqual({ boot: 1, seq: 3 });
    expect(await station.rowCount("samples")).toBe(1);
    expect(station.ingest.counters.poisoned).toBe(2);
  });
});

describe("ingest: states, deployments, warnings", () => {
  const hash = "cd".repeat(32);
  const deploymentEvent = (
    state: "downloading" | "active" | "failed" | "rolled_back",
    packageSha256 = hash,
  ): EventData => ({
    type: "deployment",
    deployment: "dep_1",
    model: "parts",
    version: 2,
    packageSha256,
    state,
    measured: state === "active" ? { swapGapMs: 12 } : { bytes: 5 },
    ...(state === "failed" ? { error: { code: "self_test_failed" as const, message: "wrong" } } : {}),
  });

  beforeEach(() =>
    station.stores.deployments.insert(
      station.database,
      {
        deployment: "dep_1",
        device: "cam-1",
        rollout: "rol_1",
        model: "parts",
        version: 2,
        packageSha256: hash,
      },
      1,
    ),
  );

  it("in shadow are counted once, and only for the device and the package that they are of", async () => {
    const shadow = (
      frames: number,
      change: Partial<Extract<EventData, { type: "shadow" }>> = {},
    ): EventData => ({
      ...{ type: "shadow", deployment: "dep_1", model: "parts", version: 2, packageSha256: hash },
      against: { version: 1, packageSha256: hash },
      ...{ from: 5, to: 5 + frames, frames, compared: frames, skipped: 0, failed: 0, disagreements: 1 },
      ...{ candidateMeanMs: 1, activeMeanMs: 1, cpuShare: 0.1, classFlips: [] },
      ...change,
    });
    const told = async () => (await station.stores.shadow.stretches(["dep_1"])).get("dep_1");
    station.event(1, shadow(10, { packageSha256: "ef".repeat(32) }));
    station.event(2, shadow(10, { deployment: "dep_9" }));
    await station.ingest.idle();
    expect(await told()).toBeUndefined();
    station.event(3, shadow(20));
    station.event(3, shadow(20));
    station.event(4, shadow(10));
    await station.ingest.idle();
    expect(await told()).toMatchObject([{ from: 5, to: 25, frames: 20, compared: 20 }]);
    expect(station.live).toContainEqual({ type: "rollout", id: "rol_1", device: "cam-1" });
    await station.device("cam-2");
    const stranger = encodeMessage("event", { boot: 1, seq: 1, prev: 0, time: BASE_TIME, data: shadow(90) });
    station.send("event", stranger, "cam-2");
    await station.ingest.idle();
    expect(await told()).toMatchObject([{ frames: 20 }]);
    expect(station.ingest.counters.poisoned).toBe(0);
  });

  it("follow what the device reports, and end when it ends", async () => {
    station.event(1, deploymentEvent("downloading"));
    station.event(2, deploymentEvent("active"));
    station.event(3, deploymentEvent("downloading"));
    await station.ingest.idle();
    expect(await station.stores.deployments.get("dep_1")).toMatchObject({
      state: "active",
      measured: { bytes: 5, swapGapMs: 12 },
    });
    expect(station.live).toContainEqual({ type: "rollout", id: "rol_1", device: "cam-1" });
    station.event(4, deploymentEvent("rolled_back"));
    await station.ingest.idle();
    expect(await station.stores.deployments.get("dep_1")).toMatchObject({ state: "rolled_back" });
  });

  it("do not believe another device, or another package", async () => {
    await station.device("cam-2");
    station.send(
      "event",
      encodeMessage("event", { boot: 1, seq: 1, prev: 0, time: 1, data: deploymentEvent("failed") }),
      "cam-2",
    );
    station.event(1, deploymentEvent("failed", "ef".repeat(32)));
    await station.ingest.idle();
    expect(await station.stores.deployments.get("dep_1")).toMatchObject({ state: "offered" });
  });

  it("add and end warnings between two states", async () => {
    const warning = (active: boolean): EventData => ({
      type: "warning",
      code: "storage_full",
      severity: "error",
      message: "full",
      active,
    });
    station.event(1, warning(true));
    await station.ingest.idle();
    expect((await station.stores.devices.get("cam-1"))?.warnings).toMatchObject([
      { code: "storage_full", severity: "error" },
    ]);
    station.event(2, warning(false));
    await station.ingest.idle();
    expect((await station.stores.devices.get("cam-1"))?.warnings).toEqual([]);
  });
});

describe("ingest: two agents with one identity", () => {
  const presence = (boot: number, instance: string, online = true): void =>
    station.send("presence", encodeMessage("presence", { online, boot, agentVersion: "0.1.0", instance }));
  const conflict = async () => (await station.stores.devices.get("cam-1"))?.conflict;
  const A = "a".repeat(16);
  const B = "b".repeat(16);

  it("are never merged: what they send as the same boot is neither stored nor acknowledged, nor lost", async () => {
    presence(1, A);
    station.send("predictions", encodeBatch({ seq: 1 }));
    await station.ingest.idle();
    presence(1, B);
    station.send("predictions", encodeBatch({ seq: 2 }));
    station.event(1, { type: "crash", process: "host", reason: "of the other one" });
    presence(1, A);
    station.send("predictions", encodeBatch({ seq: 2 }));
    await station.ingest.idle();
    expect(await conflict()).toEqual({ since: station.now, seen: station.now, sharedBoot: 1 });
    expect(station.acked("predictions")).toEqual({ boot: 1, seq: 1 });
    expect(station.acked("event")).toBeUndefined();
    expect(station.ingest.counters).toMatchObject({ conflicting: 3, predictions: 10 });
    expect(station.live).toContainEqual({ type: "device", id: "cam-1", device: "cam-1" });
    // One of them was started again: it is boot 2, and what it sends can be told apart.
    presence(2, B);
    station.send("predictions", encodeBatch({ seq: 1, boot: 2 }));
    await station.ingest.idle();
    expect(station.acked("predictions")).toEqual({ boot: 2, seq: 1 });
    expect((await conflict())?.sharedBoot).toBe(1);
  });

  it("are one again when the other was not heard for a while: what stayed on the device is taken in then", async () => {
    presence(1, A);
    presence(1, B);
    station.send("predictions", encodeBatch({ seq: 1 }));
    await station.ingest.idle();
    expect(station.acks).toEqual([]);
    station.now += CONFLICT_QUIET_MS;
    station.send("predictions", encodeBatch({ seq: 1 }));
    await station.ingest.idle();
    expect(station.acked("predictions")).toEqual({ boot: 1, seq: 1 });
  });

  it("are told of when an old copy comes online beside a newer boot; its last will tells nothing", async () => {
    presence(3, A);
    presence(2, B, false);
    await station.ingest.idle();
    expect(await conflict()).toBeNull();
    presence(2, B);
    await station.ingest.idle();
    expect(await conflict()).toMatchObject({ sharedBoot: null });
    expect((await station.stores.devices.get("cam-1"))?.online).toBe(true);
  });
});
