import { createHash } from "node:crypto";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import { join } from "node:path";
import type { GoldenCase } from "@fieldloop/protocol";
import { type Backend, type Tensor, tensorToBytes } from "@fieldloop/runtime";
import { type ManifestDraft, writePackage } from "@fieldloop/runtime/node";

/** What every recipe is given. */
export interface RecipeOptions {
  /** Folder that receives `packages/{model}` and `results/{model}.json`. */
  readonly outDir: string;
  readonly backend: Backend;
  /** Decides data, weights and order: same seed, same package on the same kind of processor. */
  readonly seed: number;
  /** Receives progress, a line at a time. */
  readonly log: (line: string) => void;
}

/** Written into the manifest instead of the time of the run, so that the same recipe gives the same package. */
export const recipeCreated = "2026-11-20T00:00:00.000Z";

/** Threads of every session of a recipe: other counts give other last bits. */
export const recipeThreads = 1;

/** Files and manifest entries of golden cases, built up case by case. */
export interface GoldenSet {
  readonly files: Record<string, Uint8Array>;
  readonly cases: GoldenDraft[];
}
type GoldenDraft = NonNullable<ManifestDraft["golden"]>[number];

/**
 * Runs the float variant on each input and keeps inputs and outputs as golden cases. The int8 tolerance is twice the
 * largest difference that the int8 variant shows here, because other processors saturate and round otherwise; float
 * differs in the last bits only.
 */
export async function makeGolden(
  backend: Backend,
  variants: { readonly fp32: Uint8Array; readonly int8: Uint8Array },
  inputs: readonly { readonly name: string; readonly input: string; readonly tensor: Tensor }[],
): Promise<GoldenSet> {
  const options = { threadCount: recipeThreads, executionProvider: "cpu" };
  const float = await backend.openSession(variants.fp32, options);
  const integer = await backend.openSession(variants.int8, options);
  const golden: GoldenSet = { files: {}, cases: [] };
  try {
    for (const { name, input, tensor } of inputs) {
      const expected = await float.run({ [input]: tensor });
      const actual = await integer.run({ [input]: tensor });
      const tolerance: GoldenCase["tolerance"] = {
        fp32: { absolute: 1e-3, relative: 1e-3 },
        int8: { absolute: roundUp(2 * largestDifference(expected, actual)), relative: 0 },
      };
      const keep = (tensorName: string, value: Tensor) => {
        const file = `golden/${name}-${tensorName}.bin`;
        golden.files[file] = tensorToBytes(value);
        return { file, name: tensorName, elementType: value.type, dims: [...value.dims] };
      };
      golden.cases.push({
        name,
        inputs: [keep(input, tensor)],
        outputs: Object.entries(expected).map(([output, value]) => keep(output, value)),
        tolerance,
      });
    }
  } finally {
    await float.release();
    await integer.release();
  }
  return golden;
}

function largestDifference(a: Readonly<Record<string, Tensor>>, b: Readonly<Record<string, Tensor>>): number {
  let largest = 0;
  for (const [name, tensor] of Object.entries(a)) {
    const other = b[name].data as Float32Array;
    (tensor.data as Float32Array).forEach((value, at) => {
      largest = Math.max(largest, Math.abs(value - other[at]));
    });
  }
  return largest;
}

/** To two significant digits, upwards. */
function roundUp(value: number): number {
  const step = 10 ** (Math.floor(Math.log10(value)) - 1);
  return Number((Math.ceil(value / step) * step).toPrecision(2));
}

/** Milliseconds of one run at batch 1 and one thread: median and 99th percentile of `runs`. */
export async function measureLatency(
  backend: Backend,
  model: Uint8Array,
  feeds: Readonly<Record<string, Tensor>>,
  runs = 400,
): Promise<{ readonly p50Ms: number; readonly p99Ms: number }> {
  const session = await backend.openSession(model, { threadCount: 1, executionProvider: "cpu" });
  const times: number[] = [];
  try {
    for (let run = -50; run < runs; run++) {
      const started = performance.now();
      await session.run(feeds);
      if (run >= 0) times.push(performance.now() - started);
    }
  } finally {
    await session.release();
  }
  times.sort((a, b) => a - b);
  return { p50Ms: round(times[Math.floor(runs / 2)], 3), p99Ms: round(times[Math.floor(runs * 0.99)], 3) };
}

export function round(value: number, digits = 4): number {
  return Number(value.toFixed(digits));
}

/** Lower-case hexadecimal SHA-256 over all parts. */
export function sha256Of(...parts: readonly Uint8Array[]): string {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest("hex");
}

/** Puts a package in place of the one before; a reader sees one or the other, or for an instant none. */
export async function replacePackage(
  outDir: string,
  name: string,
  draft: ManifestDraft,
  files: Readonly<Record<string, Uint8Array>>,
): Promise<{ readonly dir: string; readonly sha256: string; readonly bytes: number }> {
  const dir = join(outDir, "packages", name);
  const fresh = `${dir}.new`;
  await mkdir(join(outDir, "packages"), { recursive: true });
  await rm(fresh, { recursive: true, force: true });
  const written = await writePackage(fresh, draft, files);
  await rm(dir, { recursive: true, force: true });
  await rename(fresh, dir);
  const bytes = Object.values(files).reduce((sum, file) => sum + file.length, written.manifestBytes.length);
  return { dir, sha256: written.packageSha256, bytes };
}

/** Writes `results/{name}.json`. */
export async function writeResults(outDir: string, name: string, results: object): Promise<string> {
  await mkdir(join(outDir, "results"), { recursive: true });
  const path = join(outDir, "results", `${name}.json`);
  await writeFile(`${path}.tmp`, `${JSON.stringify(results, null, 2)}\n`);
  await rename(`${path}.tmp`, path);
  return path;
}

/** Where the figures of a results file come from. */
export function measuredOn(backend: Backend): Record<string, string | number> {
  return {
    backend: `${backend.name} ${backend.version}`,
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    cpu: cpus()[0]?.model ?? "unknown",
    threads: recipeThreads,
  };
}

/** Area under the ROC curve: the chance that a positive scores above a negative, ties count half. */
export function areaUnderRoc(positives: readonly number[], negatives: readonly number[]): number {
  const all = [
    ...positives.map((score) => ({ score, positive: true })),
    ...negatives.map((score) => ({ score, positive: false })),
  ];
  all.sort((a, b) => a.score - b.score);
  let rankSum = 0;
  for (let from = 0; from < all.length; ) {
    let to = from;
    while (to < all.length && all[to].score === all[from].score) to++;
    const rank = (from + to + 1) / 2;
    for (let at = from; at < to; at++) if (all[at].positive) rankSum += rank;
    from = to;
  }
  const n = positives.length;
  return (rankSum - (n * (n + 1)) / 2) / (n * negatives.length);
}
