import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { decodeDataFile, trainingSettingsSchema } from "@fieldloop/protocol";
import { checkGolden, openModel, openPackage, type ModelPackage } from "@fieldloop/runtime/node";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { runEvaluateJob } from "./evaluate-job.js";
import type { JobItem, Reporter, TrainJob } from "./job.js";
import { mixReplay } from "./replay.js";
import { readDataFile } from "./rows.js";
import { drawItems, makeTinyPackage } from "./tiny-package.test.kit.js";
import { runTrainJob } from "./train-job.js";

/** Training and PostgreSQL are real here: seconds on an idle machine, more on a busy one. */
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const silent: Reporter = { progress: () => undefined };
const never = new AbortController().signal;
let dir: string;
let base: ModelPackage;
let items: JobItem[];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fieldloop-train-"));
  base = await makeTinyPackage(join(dir, "base"));
  items = [];
  for (const [at, item] of drawItems(120, "dark", 5).entries()) {
    const file = join(dir, `item-${at}`);
    await writeFile(file, item.payload);
    items.push({ sample: `smp_${String(at).padStart(8, "0")}`, label: item.label, media: item.media, file });
  }
});
afterAll(() => rm(dir, { recursive: true, force: true }));

function makeJob(name: string, overrides: Partial<TrainJob> = {}): TrainJob {
  return {
    kind: "train",
    run: "trn_1",
    baseDir: base.dir,
    outDir: join(dir, name),
    checkpointFile: join(dir, `${name}.checkpoint`),
    version: 2,
    created: "2026-11-20T00:00:00.000Z",
    snapshot: "c".repeat(64),
    items,
    settings: trainingSettingsSchema.parse({ steps: 250, rate: 3e-3, validationShare: 0.25 }),
    threadCount: 1,
    ...overrides,
  };
}

describe("a training run", () => {
  it("makes a candidate that sees in the dark, keeps what it knew, and passes its own checks", async () => {
    const evaluation = await runTrainJob(makeJob("first"), silent, never);
    const [field, old] = evaluation.slices;
    expect(field).toMatchObject({ slice: "field" });
    expect(field!.base.accuracy.value).toBeLessThan(0.7);
    expect(field!.candidate.accuracy.value).toBeGreaterThan(0.85);
    expect(old!.base.accuracy.value).toBeGreaterThan(0.97);
    expect(evaluation).toMatchObject({ model: "shapes", base: 1, candidate: 2, verdict: "passed" });
    const candidate = await openPackage(join(dir, "first"));
    // Its levels stayed near those of the base: most are the same.
    expect(candidate.manifest.lineage.metrics["changeCost"]).toBeGreaterThan(0);
    for (const variant of ["fp32", "int8-u8s8"]) {
      const model = await openModel(candidate, { variant, threadCount: 1 });
      expect((await checkGolden(model)).cases).toBe(1);
      await model.release();
    }
    expect(candidate.manifest.lineage).toMatchObject({
      base: { model: "shapes", version: 1, sha256: base.packageSha256 },
      snapshot: "c".repeat(64),
      metrics: { fieldAccuracy: field!.candidate.accuracy.value },
    });
    expect(candidate.manifest.holdout!.sha256).toBe(base.manifest.holdout!.sha256);
    const replay = await readDataFile(candidate, "replay");
    expect(replay.length).toBe(300 + items.length - field!.candidate.accuracy.count);
  });

  it("gives the same candidate again, byte for byte, but for what it measured of time", async () => {
    const files = (pkg: ModelPackage) => pkg.manifest.variants.map(({ name, sha256 }) => `${name} ${sha256}`);
    await runTrainJob(makeJob("again"), silent, never);
    expect(files(await openPackage(join(dir, "again")))).toEqual(
      files(await openPackage(join(dir, "first"))),
    );
  });

  it("goes on from its checkpoint after a cancel and ends where a straight run ends", async () => {
    const cancel = new AbortController();
    const job = makeJob("resumed");
    const stopAtHalf: Reporter = {
      progress: ({ phase, step }) => phase === "training" && step >= 120 && cancel.abort(),
    };
    await expect(runTrainJob(job, stopAtHalf, cancel.signal)).rejects.toMatchObject({ code: "cancelled" });
    await runTrainJob(job, silent, never);
    const hash = async (name: string) => (await openPackage(join(dir, name))).manifest.variants[0]!.sha256;
    expect(await hash("resumed")).toBe(await hash("first"));
  });

  it("leaves out what cannot be read or has a label that the model does not know", async () => {
    const broken = join(dir, "broken");
    await writeFile(broken, "no image");
    const odd: JobItem[] = [
      { sample: "smp_x0000001", label: "bar", media: "image/png", file: broken },
      { ...items[0]!, sample: "smp_x0000002", label: "unheard of" },
    ];
    const settings = trainingSettingsSchema.parse({ steps: 5 });
    const evaluation = await runTrainJob(
      makeJob("odd", { items: [...items, ...odd], settings }),
      silent,
      never,
    );
    expect(evaluation.slices[0]!.candidate.accuracy.count).toBeGreaterThan(0);
  });

  it("refuses too few labels", async () => {
    const job = makeJob("few", { items: items.slice(0, 5) });
    await expect(runTrainJob(job, silent, never)).rejects.toMatchObject({ code: "training_no_labels" });
  });
});

describe("an evaluation by hand", () => {
  it("says the same of the same versions as the run did", async () => {
    const evaluation = await runEvaluateJob(
      {
        kind: "evaluate",
        baseDir: base.dir,
        candidateDir: join(dir, "first"),
        items: items.slice(0, 40),
        threadCount: 1,
      },
      silent,
    );
    expect(evaluation).toMatchObject({ verdict: "passed", slices: [{ slice: "field" }, { slice: "old" }] });
  });
});

describe("mixReplay", () => {
  it("keeps everything while it fits, then at least a quarter new, the same each time", () => {
    const old = drawItems(30, "bright", 8);
    const fresh = drawItems(10, "dark", 9);
    expect(mixReplay(old, fresh, 40)).toHaveLength(40);
    const mixed = mixReplay(old, fresh, 20);
    expect(mixed).toHaveLength(20);
    expect(mixed).toEqual(mixReplay(old.toReversed(), fresh.toReversed(), 20));
    expect(mixed.filter((item) => fresh.some(({ payload }) => payload === item.payload))).toHaveLength(5);
    expect(() => decodeDataFile(new Uint8Array([1, 2, 3]))).toThrow();
  });
});
