import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { formatModelVersion, sampleQuerySchema, trainingSettingsSchema } from "@fieldloop/protocol";
import type { ModelPackage } from "@fieldloop/runtime/node";
import { sql } from "drizzle-orm";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { until } from "./kit.test.support.js";
import type { DesiredService } from "./services/desired.js";
import { AuditStore } from "./store/audit.js";
import type { Database } from "./store/database.js";
import { renew, sharedPglite } from "./store/databases.test.support.js";
import { RolloutStore } from "./store/rollouts.js";
import { openSqlite } from "./store/sqlite.js";
import { WebhookStore } from "./store/webhooks.js";
import { drawItems, makeTinyPackage } from "./training/tiny-package.test.kit.js";
import { ANN, DEVICES, LoopKit, request, WAIT_MS } from "./loop.test.support.js";

vi.setConfig({ testTimeout: 3 * WAIT_MS, hookTimeout: WAIT_MS });

let dir: string;
let pkg: ModelPackage;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fieldloop-loop-"));
  pkg = await makeTinyPackage(join(dir, "package"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

async function emptyPostgres(): Promise<Database> {
  const database = await sharedPglite();
  await renew(database);
  return database;
}

describe.each([
  ["SQLite", async (folder: string) => openSqlite(join(folder, "fieldloop.db"))],
  ["PostgreSQL", emptyPostgres],
])("the loop on %s", (_, openDatabase) => {
  let kit: LoopKit;
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "fieldloop-loop-"));
    kit = new LoopKit(await openDatabase(folder), folder, pkg);
    await kit.open();
  });
  afterEach(async () => {
    await kit.training.stop();
    await kit.trust.stop();
    await kit.database.close();
    await rm(folder, { recursive: true, force: true });
  });

  describe("registry", () => {
    it("publishes a package once, signed, with the labels of its classes", async () => {
      await kit.publishBase();
      const again = await kit.registry.publish("shapes", pkg.packageSha256, "ann");
      expect(again).toMatchObject({
        model: "shapes",
        version: 1,
        packageSha256: pkg.packageSha256,
        evidence: "none",
        runningOn: 0,
      });
      expect(await kit.trust.isSigned("shapes", 1, pkg.packageSha256)).toBe(true);
      expect(again.state).toBe("published");
      await kit.report("cam-a", 1, pkg.packageSha256);
      expect((await kit.registry.listModels())[0]!.versions[0]!.runningOn).toBe(1);
    });

    it.each<[string, (manifest: Record<string, unknown>) => unknown, string]>([
      ["another model", (manifest) => ({ ...manifest, model: "other" }), "invalid_argument"],
      [
        "a taken number with other content",
        (manifest) => ({ ...manifest, description: "changed" }),
        "already_exists",
      ],
      ["a number with a gap before it", (manifest) => ({ ...manifest, version: 3 }), "conflict"],
      [
        "a file that was not uploaded",
        (manifest) => ({
          ...manifest,
          version: 2,
          baseline: { file: "b.cbor", sha256: "0".repeat(64), bytes: 3 },
        }),
        "package_file_missing",
      ],
      [
        "a wrong size",
        (manifest) => ({ ...manifest, version: 2, baseline: { ...(manifest.baseline as object), bytes: 3 } }),
        "package_size_mismatch",
      ],
      [
        "no model",
        (manifest) => ({
          ...manifest,
          version: 2,
          variants: [{ ...(manifest.variants as object[])[0], ...(manifest.baseline as object) }],
        }),
        "onnx_malformed",
      ],
      ["no manifest", () => ({ hello: 1 }), "manifest_invalid"],
    ])("refuses %s", async (__, change, code) => {
      await kit.publishBase();
      const manifest = change(
        JSON.parse(new TextDecoder().decode(pkg.manifestBytes)) as Record<string, unknown>,
      );
      const { sha256 } = await kit.blobs.put(new TextEncoder().encode(JSON.stringify(manifest)));
      await expect(kit.registry.publish("shapes", sha256, "ann")).rejects.toMatchObject({ code });
    });
  });

  describe("samples", () => {
    const list = (query: Record<string, unknown> = {}) => kit.samples.list(sampleQuerySchema.parse(query));

    it("orders by worth, pages without gaps, and filters by what is known", async () => {
      await kit.publishBase();
      const items = drawItems(25, "dark", 1);
      for (const [at, item] of items.entries())
        await kit.sample(at, item, "bar", at % 5 === 0 ? "random" : "worth", (at % 7) / 10);
      const seen: string[] = [];
      let cursor: string | undefined;
      do {
        const page = await list({ limit: 10, cursor });
        seen.push(...page.items.map(({ sample }) => sample));
        cursor = page.next ?? undefined;
      } while (cursor);
      expect(new Set(seen).size).toBe(25);
      const worths = (await list()).items.map(({ worth }) => worth);
      expect(worths).toEqual(worths.toSorted((a, b) => b - a));
      expect((await list({ order: "newest" })).items[0]!.sample).toBe("smp_00000024");
      await kit.samples.annotate("smp_00000001", "ring", "ann");
      await kit.samples.annotate("smp_00000003", "bar", "ann");
      await kit.telemetry.insertFeedback(kit.database, {
        device: "cam-a",
        boot: 1,
        n: 2,
        label: "cross",
        correct: null,
        received: kit.now,
      });
      await kit.telemetry.insertFeedback(kit.database, {
        device: "cam-a",
        boot: 1,
        n: 4,
        label: null,
        correct: 1,
        received: kit.now,
      });
      const known = async (wrong: string) =>
        (await list({ wrong, order: "newest" })).items.map(({ sample }) => sample);
      expect(await known("yes")).toEqual(["smp_00000002", "smp_00000001"]);
      expect(await known("no")).toEqual(["smp_00000004", "smp_00000003"]);
      expect(await known("unknown")).toHaveLength(21);
      expect(await kit.samples.count()).toEqual({ total: 25, unlabelled: 23 });
      const worth = (await kit.samples.statistics({ model: "shapes" })).find(
        ({ stratum }) => stratum === "worth",
      );
      expect(worth).toMatchObject({ samples: 20, wrong: 2, right: 2, errorShare: { value: 0.5, count: 4 } });
    });

    it("never overwrites a label, and keeps who gave it", async () => {
      await kit.publishBase();
      const sample = await kit.sample(1, drawItems(1, "dark", 1)[0]!, "bar", "worth", 0.5);
      expect(await kit.samples.annotate(sample, "ring", "ann")).toMatchObject({
        wrong: "yes",
        status: "confirmed",
        annotation: { author: "ann" },
      });
      expect(await kit.samples.annotate(sample, "bar", "bob")).toMatchObject({
        wrong: "no",
        status: "ignored",
        annotation: { label: "bar", author: "bob" },
      });
      const { annotations } = await kit.samples.history(sample);
      expect(annotations.map(({ label, author, current }) => [label, author, current])).toEqual([
        ["bar", "bob", true],
        ["ring", "ann", false],
      ]);
      await expect(kit.samples.annotate(sample, "spoon", "ann")).rejects.toMatchObject({
        code: "invalid_argument",
      });
      const { mediaType, bytes } = await kit.samples.payload(sample);
      expect([mediaType, bytes[1]]).toEqual(["image/png", 0x50]);
    });
  });

  describe("datasets", () => {
    it("freezes the same content as the same snapshot, which nothing changes", async () => {
      await kit.publishBase();
      for (const [at, item] of drawItems(6, "dark", 1).entries()) {
        await kit.sample(at, item, "bar", "worth", 0.5);
        if (at < 4) await kit.samples.annotate(`smp_0000000${at}`, item.label, "ann");
      }
      const query = { labelled: true, devices: ["cam-a", "cam-b"] };
      const { dataset, sampleCount } = await kit.datasets.create(
        { name: "dark", model: "shapes", query },
        "ann",
      );
      expect(sampleCount).toBe(4);
      const first = await kit.datasets.freeze(dataset, "ann");
      expect(first).toMatchObject({ sampleCount: 4, labels: { bar: 2, cross: 1, ring: 1 } });
      expect(await kit.datasets.freeze(dataset, "ann")).toEqual(first);
      await kit.samples.annotate("smp_00000000", "ring", "bob");
      const second = await kit.datasets.freeze(dataset, "ann");
      expect(second.snapshot).not.toBe(first.snapshot);
      const hash = createHash("sha256");
      for await (const { sample, sha256, label } of kit.datasets.items(first.snapshot)) {
        hash.update(`${JSON.stringify({ sample, sha256, label })}\n`);
      }
      expect(hash.digest("hex")).toBe(first.snapshot);
      expect((await kit.samples.history("smp_00000000")).snapshots.toSorted()).toEqual(
        [first.snapshot, second.snapshot].toSorted(),
      );
    });
  });

  describe("rollouts", () => {
    const step = async (seconds = 1): Promise<void> => {
      kit.now += seconds * 1000;
      await kit.rollouts.tick();
    };
    const reach = async (
      rollout: string,
      devices: readonly string[],
      version: number,
      packageSha256: string,
    ) => {
      for (const device of devices) {
        await kit.deployment(rollout, device, "active");
        await kit.report(device, version, packageSha256);
      }
    };

    it("needs evidence or a written reason", async () => {
      await kit.publishBase();
      const unforced = request();
      delete (unforced as { forceReason?: string }).forceReason;
      await expect(kit.rollouts.create(unforced, ANN)).rejects.toMatchObject({
        code: "rollout_needs_evidence",
      });
    });

    it("tells webhooks of a gate what is new, and keeps every look", async () => {
      const type = "io.fieldloop.rollout.verdict";
      const webhooks = new WebhookStore(kit.database);
      const about = { webhook: "whk_1", url: "https://a.example/", description: "", events: [type] as const };
      const made = { enabled: true, created: kit.now, createdBy: "ann", previousSecretUntil: null };
      await webhooks.add({ ...about, events: [...about.events], ...made }, "whsec_x");
      await kit.publishBase();
      const { rollout } = await kit.rollouts.create(request(), ANN);
      await step();
      await reach(rollout, ["cam-a"], 1, pkg.packageSha256);
      const watch = async (seconds: number): Promise<void> => {
        for (let second = 0; second < seconds; second++) {
          await kit.report("cam-a", 1, pkg.packageSha256);
          await step();
        }
      };
      // Without predictions it waits, look after look; then it has them and passes.
      await watch(30);
      await kit.predictions("cam-a", 1, 40, 40);
      await watch(5);
      const verdicts = (await kit.rollouts.verdicts(rollout)).items.map(({ verdict }) => verdict.verdict);
      expect(verdicts.length).toBeGreaterThan(5);
      const told = (await webhooks.deliveries("whk_1", { limit: 99 })).map((one) => one.delivery);
      const streamed = (await kit.rollouts.events(rollout, 0)).filter((one) => one.type === "verdict");
      expect([new Set(verdicts), streamed.length, told.length]).toEqual([
        new Set(["inconclusive", "pass"]),
        verdicts.length,
        2,
      ]);
    });

    it("goes wave by wave to the end, and writes down who and why", async () => {
      await kit.publishBase();
      const { rollout } = await kit.rollouts.create(request(), ANN);
      await step();
      expect(kit.published).toEqual(["cam-a desired"]);
      expect((await kit.desired.current("cam-a"))!.assignments).toMatchObject([
        { version: 1, packageSha256: pkg.packageSha256 },
      ]);
      expect(await kit.desired.current("cam-b")).toBeUndefined();
      await reach(rollout, ["cam-a"], 1, pkg.packageSha256);
      await kit.predictions("cam-a", 1, 40, 39);
      await step();
      for (let second = 0; second < 12; second++) {
        await kit.report("cam-a", 1, pkg.packageSha256);
        await step();
      }
      expect((await kit.rollouts.get(rollout)).waves.map(({ state }) => state)).toEqual([
        "passed",
        "running",
      ]);
      await reach(rollout, ["cam-b", "cam-c"], 1, pkg.packageSha256);
      for (const device of ["cam-b", "cam-c"]) await kit.predictions(device, 1, 40, 40);
      for (let second = 0; second < 14; second++) {
        for (const device of DEVICES) await kit.report(device, 1, pkg.packageSha256);
        await step();
      }
      const done = await kit.rollouts.get(rollout);
      expect(done).toMatchObject({ state: "succeeded", accuracy: { after: { successes: 119, count: 120 } } });
      expect(done.waves[0]!.gate!.tests.map(({ test }) => test)).toContain("predictions");
      const actions = (
        await new AuditStore(kit.database).list({ subject: `rollout:${rollout}`, limit: 50 })
      ).map(({ actor, action }) => `${actor} ${action}`);
      expect(actions).toEqual(
        expect.arrayContaining([
          "ann rollout.created",
          "ann rollout.running",
          "gate wave.passed",
          "engine rollout.succeeded",
        ]),
      );
    });

    it("offers exactly once when the server dies after any part of an offer", async () => {
      await kit.publishBase();
      let fail = true;
      const dying: Pick<DesiredService, "issueMany" | "publish"> = {
        issueMany: async (tx, changes) => {
          const issued = await kit.desired.issueMany(tx, changes);
          if (fail) throw new Error("the process died here");
          return issued;
        },
        publish: (stored) => kit.desired.publish(stored),
      };
      kit.rollouts = kit.makeRollouts(dying);
      const { rollout } = await kit.rollouts.create(request({ waves: [{ percent: 100 }] }), ANN);
      await step();
      // Nothing of a step that did not commit happened.
      expect(kit.published).toEqual([]);
      expect(await kit.deployments.ofRollout(rollout)).toEqual([]);
      fail = false;
      kit.rollouts = kit.makeRollouts();
      await step();
      await step();
      expect(kit.published.toSorted()).toEqual(DEVICES.map((device) => `${device} desired`));
      expect(await kit.deployments.ofRollout(rollout)).toHaveLength(3);
    });

    it("counts again after a death between the end of its successor and its own return", async () => {
      await kit.publishBase();
      const older = await kit.rollouts.create(request({ start: false }), ANN);
      const newer = await kit.rollouts.create(request({ start: false }), ANN);
      await kit.rollouts.act(newer.rollout, { action: "abort", devices: "keep", reason: "" }, ANN);
      await kit.database.run(sql`update rollouts set state = 'succeeded', current = 0,
        superseded_by = ${newer.rollout} where rollout = ${older.rollout}`);
      kit.rollouts = kit.makeRollouts();
      await step();
      const stored = await new RolloutStore(kit.database).get(older.rollout);
      expect(stored!.record.supersededBy).toBeNull();
    });

    it("takes a silent canary for a failed one and offers nobody else", async () => {
      await kit.publishBase();
      const { rollout } = await kit.rollouts.create(request(), ANN);
      await step();
      await step(31);
      expect(await kit.rollouts.get(rollout)).toMatchObject({
        state: "paused",
        waves: [{ state: "failed", counts: { silent: 1 } }, { state: "pending" }],
      });
      await expect(kit.rollouts.act(rollout, { action: "resume", reason: "" }, ANN)).rejects.toMatchObject({
        code: "conflict",
      });
      expect(
        await kit.rollouts.act(rollout, { action: "abort", devices: "keep", reason: "unplugged" }, ANN),
      ).toMatchObject({
        state: "aborted",
        reason: "unplugged",
      });
      // It had nothing before: plugged in again, it finds no offer.
      expect((await kit.desired.current("cam-a"))!.assignments).toEqual([]);
      await expect(kit.rollouts.create(request(), ANN)).resolves.toMatchObject({ state: "running" });
    });
  });
});

describe("from samples to a rollout of the mended version", () => {
  let kit: LoopKit;
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "fieldloop-loop-"));
    kit = new LoopKit(openSqlite(join(folder, "fieldloop.db")), folder, pkg);
    await kit.open();
    await kit.publishBase();
  });
  afterAll(async () => {
    await kit.training.stop();
    await kit.database.close();
    await rm(folder, { recursive: true, force: true });
  });

  const settings = trainingSettingsSchema.parse({ steps: 250, rate: 3e-3, validationShare: 0.25 });
  let snapshot: string;

  it("labels, freezes, trains through a restart, evaluates and publishes", async () => {
    for (const [at, item] of drawItems(120, "dark", 5).entries()) {
      const sample = await kit.sample(at, item, "cross", at % 4 === 0 ? "random" : "worth", 0.5);
      await kit.samples.annotate(sample, item.label, "ann");
    }
    const { dataset } = await kit.datasets.create(
      { name: "dark", model: "shapes", query: { labelled: true } },
      "ann",
    );
    ({ snapshot } = await kit.datasets.freeze(dataset, "ann"));
    await kit.training.start();
    const { run } = await kit.training.create({ model: "shapes", baseVersion: 1, snapshot, settings }, "ann");
    await until("training has begun", async () => (await kit.training.get(run)).progress.step > 0, WAIT_MS);
    // The server goes away in the middle and comes back.
    await kit.training.stop();
    expect((await kit.training.get(run)).state).toBe("running");
    kit.training = kit.makeTraining();
    await kit.training.start();
    const done = await until(
      "the run ends",
      async () => {
        const current = await kit.training.get(run);
        return current.finished !== null && current;
      },
      WAIT_MS,
    );
    expect(done).toMatchObject({ state: "succeeded", candidate: 2, errorCode: null });
    expect(done.progress.losses.length).toBeGreaterThan(5);
    expect(await kit.registry.evidence("shapes", 2)).toBe("passed");
    const [evaluation] = await kit.evaluations.list({ model: "shapes" });
    expect(evaluation).toMatchObject({ run, base: 1, candidate: 2, verdict: "passed" });
    expect((await kit.samples.get("smp_00000001")).status).toBe("in_training");
  });

  it("evaluates two versions by hand on what neither was trained on", async () => {
    const evaluation = await kit.evaluations.run({ model: "shapes", base: 1, candidate: 2, snapshot }, "ann");
    const [field] = evaluation.slices;
    expect(field!.candidate.accuracy.count).toBe(
      (await kit.evaluations.list({ model: "shapes" }))[1]!.slices[0]!.candidate.accuracy.count,
    );
    expect(evaluation.run).toBeNull();
  }, 60_000);

  it("rolls it out on its evidence, and rolls everything back when accuracy falls", async () => {
    const v2 = await kit.registry.getVersion("shapes", 2);
    for (const device of DEVICES) {
      await kit.report(device, 1, pkg.packageSha256);
      await kit.predictions(device, 1, 100, 95);
    }
    kit.now += 60_000;
    for (const device of DEVICES) await kit.report(device, 1, pkg.packageSha256);
    const body = request({
      change: { kind: "package", model: "shapes", version: 2 },
      onFailure: "roll_back",
    });
    delete (body as { forceReason?: string }).forceReason;
    const { rollout, from } = await kit.rollouts.create(body, ANN);
    expect(from).toEqual({ version: 1, configId: null });
    await kit.rollouts.tick();
    await kit.deployment(rollout, "cam-a", "active");
    await kit.report("cam-a", 2, v2.packageSha256);
    await kit.predictions("cam-a", 2, 100, 60);
    for (let second = 0; second < 13; second++) {
      kit.now += 1000;
      await kit.report("cam-a", 2, v2.packageSha256);
      await kit.rollouts.tick();
    }
    const failed = await kit.rollouts.get(rollout);
    expect(failed).toMatchObject({
      state: "rolling_back",
      waves: [{ state: "failed" }, { state: "pending" }],
    });
    expect(failed.waves[0]!.gate!.tests.find(({ test }) => test === "accuracy")).toMatchObject({
      verdict: "fail",
      limit: 0.02,
    });
    kit.now += 1000;
    // A device that is kept out finds the version before when it is let in again.
    await kit.devices.setSuspended("cam-a", true);
    await kit.rollouts.tick();
    expect((await kit.desired.current("cam-a"))!.assignments).toMatchObject([
      { version: 1, packageSha256: pkg.packageSha256 },
    ]);
    await kit.devices.setSuspended("cam-a", false);
    await kit.report("cam-a", 1, pkg.packageSha256);
    await kit.rollouts.tick();
    expect(await kit.rollouts.get(rollout)).toMatchObject({
      state: "rolled_back",
      accuracy: { before: { count: 100 }, after: { successes: 60, count: 100 } },
    });
    const subject = `version:${formatModelVersion("shapes", 2)}`;
    expect(
      (await new AuditStore(kit.database).list({ subject, limit: 9 })).map(({ action }) => action),
    ).toContain("version.published");
  });

  it("cancels a run at once and gives its samples back", async () => {
    const { run } = await kit.training.create(
      { model: "shapes", baseVersion: 1, snapshot, settings: { ...settings, steps: 20_000 } },
      "ann",
    );
    await until("training has begun", async () => (await kit.training.get(run)).progress.step > 0, WAIT_MS);
    expect(await kit.training.cancel(run, "ann")).toMatchObject({
      state: "cancelled",
      errorCode: "cancelled",
    });
    expect((await kit.samples.get("smp_00000001")).status).toBe("confirmed");
    await expect(kit.training.cancel(run, "ann")).rejects.toMatchObject({ code: "conflict" });
  });
});
