import { sampleQuerySchema, type SampleMetadata, type ShadowEvent } from "@fieldloop/protocol";
import { sql } from "drizzle-orm";
import fc from "fast-check";
import { expect, it } from "vitest";
import { ShadowService } from "../services/shadow.js";
import type { Database } from "./database.js";
import { describeDatabases } from "./databases.test.support.js";
import { DeploymentStore } from "./deployments.js";
import { SampleIngestStore } from "./samples.js";
import { SampleStore } from "./samples-annotations.js";
import { ShadowStore } from "./shadow.js";

const HASH = "ab".repeat(32);

const event = (change: Partial<ShadowEvent> = {}): ShadowEvent => ({
  type: "shadow",
  deployment: "dep-1",
  model: "parts",
  version: 2,
  packageSha256: HASH,
  against: { version: 1, packageSha256: "cd".repeat(32) },
  ...{ from: 1_000, to: 2_000, frames: 100, compared: 80, skipped: 20, failed: 0, disagreements: 8 },
  ...{ candidateMeanMs: 4, activeMeanMs: 2, cpuShare: 0.1 },
  classFlips: [["nut", "screw", 8]],
  ...change,
});

/** Counts as a shadow goes on. */
const grown = (step: number): ShadowEvent =>
  event({ to: 1_000 + step, frames: 10 * step, compared: 8 * step, skipped: 2 * step, disagreements: step });

async function deploy(database: Database, deployment: string, device: string): Promise<void> {
  const record = { deployment, device, rollout: "rol-1", model: "parts", version: 2, packageSha256: HASH };
  await new DeploymentStore(database).insert(database, record, 1);
}

interface Sampled {
  readonly n: number;
  readonly label: string;
  readonly candidate: string;
  readonly disagreement?: number;
  readonly device?: string;
  /** What a person says. */
  readonly annotated?: string;
  /** What the application says. */
  readonly feedback?: { readonly label?: string; readonly correct?: boolean };
}

async function sample(database: Database, given: Sampled): Promise<void> {
  const { n, label, candidate, disagreement = 0.9, device = "cam-1" } = given;
  const id = `smp_${String(n).padStart(8, "0")}`;
  const metadata: SampleMetadata = {
    ...{ predictionBoot: 1, n, time: n, model: "parts", version: 1, packageSha256: HASH, variant: "fp32" },
    ...{ stratum: "worth", probability: 1, worth: 0.5, class: 0, label, confidence: 0.8, latencyMs: 2 },
    signals: { entropy: 0.1, disagreement },
    ...{ mediaType: "image/png", bytes: 1, sha256: HASH, source: "test" },
    context: { shadow: { deployment: "dep-1", version: 2, label: candidate, confidence: 0.7 } },
  };
  await new SampleIngestStore().insert(database, { sample: id, device, received: n, metadata });
  if (given.annotated !== undefined) {
    const annotation = {
      annotation: `ann_${n}`,
      sample: id,
      label: given.annotated,
      author: "ann",
      created: 1,
    };
    await new SampleStore(database).annotate(annotation);
  }
  if (given.feedback) {
    const { label: said = null, correct } = given.feedback;
    await database.run(sql`insert into feedback (device, boot, n, label, correct, received)
      values (${device}, 1, ${n}, ${said}, ${correct === undefined ? null : Number(correct)}, 1)`);
  }
}

describeDatabases("shadows", (database) => {
  const service = (): ShadowService =>
    new ShadowService({ deployments: new DeploymentStore(database()), shadow: new ShadowStore(database()) });

  it("come to the same whatever order their events come in, and however often", async () => {
    const store = new ShadowStore(database());
    let run = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 8 }),
        async (steps) => {
          const deployment = `dep-run-${++run}`;
          for (const step of steps) await store.put(database(), { ...grown(step), deployment }, step);
          const [stretch] = (await store.stretches([deployment])).get(deployment)!;
          const last = Math.max(...steps);
          expect(stretch).toMatchObject({ frames: 10 * last, compared: 8 * last, disagreements: last });
          expect(stretch).toMatchObject({ to: 1_000 + last, against: { version: 1 } });
        },
      ),
      { numRuns: 15 },
    );
  });

  it("that began anew add up", async () => {
    await deploy(database(), "dep-1", "cam-1");
    const store = new ShadowStore(database());
    await store.put(database(), event(), 1);
    const again = { from: 5_000, to: 8_000, frames: 50, compared: 20, disagreements: 2, skipped: 30 };
    await store.put(
      database(),
      event({
        ...again,
        candidateMeanMs: 9,
        classFlips: [
          ["nut", "screw", 1],
          ["a", "b", 1],
        ],
      }),
      2,
    );
    expect(await service().shadowOf("dep-1")).toMatchObject({
      frames: 150,
      compared: 100,
      disagreements: 10,
    });
    expect(await service().view("dep-1")).toMatchObject({
      ...{
        device: "cam-1",
        rollout: "rol-1",
        model: "parts",
        version: 2,
        from: 1_000,
        to: 8_000,
        skipped: 50,
      },
      ...{ candidateMeanMs: 5, activeMeanMs: 2, against: { version: 1 } },
      classFlips: [
        { active: "nut", candidate: "screw", count: 9 },
        { active: "a", candidate: "b", count: 1 },
      ],
      samples: { disagreements: 0, unlabelled: 0 },
    });
    expect(await service().shadowOf("dep-9")).toBeNull();
    await expect(service().view("dep-9")).rejects.toMatchObject({ code: "not_found" });
  });

  it("are split by who was right, from labels and else from feedback, over the disagreements alone", async () => {
    await deploy(database(), "dep-1", "cam-1");
    await new ShadowStore(database()).put(database(), event(), 1);
    const samples: Omit<Sampled, "n">[] = [
      { label: "nut", candidate: "screw", annotated: "nut" },
      { label: "nut", candidate: "screw", annotated: "screw" },
      { label: "nut", candidate: "screw", annotated: "screw" },
      { label: "nut", candidate: "screw", annotated: "bolt" },
      // The same label, other boxes.
      { label: "nut", candidate: "nut", annotated: "nut" },
      // The application's word, and a person's against it.
      { label: "nut", candidate: "screw", feedback: { label: "nut" } },
      { label: "nut", candidate: "screw", feedback: { label: "nut" }, annotated: "screw" },
      { label: "nut", candidate: "screw", feedback: { correct: true } },
      // Wrong says nothing of another answer, but all of the same one.
      { label: "nut", candidate: "screw", feedback: { correct: false } },
      { label: "nut", candidate: "nut", feedback: { correct: false } },
      // Not known, no disagreement, another device's word.
      { label: "nut", candidate: "screw" },
      { label: "nut", candidate: "nut", annotated: "nut", disagreement: 0.1 },
      { label: "nut", candidate: "screw", annotated: "nut", device: "cam-2" },
    ];
    for (const [n, given] of samples.entries()) await sample(database(), { ...given, n });
    const labelled = { bothRight: 1, onlyActiveRight: 3, onlyCandidateRight: 3, bothWrong: 2 };
    expect(await service().shadowOf("dep-1")).toEqual({
      frames: 100,
      compared: 80,
      disagreements: 8,
      labelled,
    });
    expect((await service().view("dep-1")).samples).toEqual({ disagreements: 11, unlabelled: 5 });
    const byDevice = await service().ofRollout("rol-1");
    expect([...byDevice]).toEqual([["cam-1", { frames: 100, compared: 80, disagreements: 8, labelled }]]);
    expect((await service().ofRollout("rol-2")).size).toBe(0);
  });

  it("show both answers with each sample, and pick the disagreements", async () => {
    await sample(database(), { n: 1, label: "nut", candidate: "screw" });
    await sample(database(), { n: 2, label: "nut", candidate: "nut", disagreement: 0.2 });
    const store = new SampleStore(database());
    const listed = async (shadow: string): Promise<string[]> =>
      (await store.list(sampleQuerySchema.parse({ shadow }))).samples.map((one) => one.sample);
    expect(await listed("any")).toEqual(["smp_00000001"]);
    expect(await listed("dep-1")).toEqual(["smp_00000001"]);
    expect(await listed("dep-2")).toEqual([]);
    expect((await store.get("smp_00000002"))!.shadow).toEqual({
      deployment: "dep-1",
      version: 2,
      label: "nut",
      confidence: 0.7,
      disagreement: 0.2,
    });
  });
});
