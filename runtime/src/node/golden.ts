import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { ROOT_NODE, type GoldenCase } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import { compareGolden, toleranceOf } from "../package/golden.js";
import { tensorFromBytes } from "../package/tensor-bytes.js";
import type { LoadedModel } from "./model.js";

export interface GoldenReport {
  readonly cases: number;
  /** Largest |actual − expected| over all outputs of all cases. */
  readonly worstAbsoluteError: number;
  /** Median of one run, over the cases of a part, the parts of a pipeline together; milliseconds, undefined where a part has no case. */
  readonly runMs: number | undefined;
}

/** A case is run until both are reached: a quick graph is measured several times, a slow one is not run for it. */
const TIMED_RUNS = 5;
const TIMED_MS = 100;

/**
 * Runs every golden case of a model's package on the open session of its part.
 * @throws FieldloopError `golden_case_failed` naming the first case, output, index and both values; `model_run_failed`
 */
export async function checkGolden(model: LoadedModel): Promise<GoldenReport> {
  const { golden } = model.manifest;
  let worstAbsoluteError = 0;
  const times = new Map<string, number[]>();
  for (const entry of golden) {
    const node = entry.node ?? ROOT_NODE;
    const ofNode = times.get(node) ?? [];
    times.set(node, ofNode);
    worstAbsoluteError = Math.max(worstAbsoluteError, await checkCase(model, entry, ofNode));
  }
  const medians = model.parts.map(({ name }) => median(times.get(name) ?? []));
  const runMs = medians.includes(undefined) ? undefined : medians.reduce<number>((sum, ms) => sum + ms!, 0);
  return { cases: golden.length, worstAbsoluteError, runMs };
}

async function checkCase(model: LoadedModel, golden: GoldenCase, times: number[]): Promise<number> {
  const { dir } = model.package;
  const feeds: Record<string, Tensor> = {};
  for (const input of golden.inputs) feeds[input.name] = await readTensor(dir, input);
  const fetches = golden.outputs.map((output) => output.name);
  const node = golden.node ?? ROOT_NODE;
  const outputs = await timed(times, () => model.runTensors(feeds, fetches, node));
  const begin = performance.now();
  for (let run = 1; run < TIMED_RUNS && performance.now() - begin < TIMED_MS; run++) {
    await timed(times, () => model.runTensors(feeds, fetches, node));
  }
  const { variant } = model.parts.find(({ name }) => name === node) ?? model;
  const tolerance = toleranceOf(golden, variant.precision);
  let worst = 0;
  for (const output of golden.outputs) {
    const expected = await readTensor(dir, output);
    worst = Math.max(
      worst,
      compareGolden(golden.name, output.name, outputs[output.name], expected, tolerance),
    );
  }
  return worst;
}

async function timed<Result>(times: number[], work: () => Promise<Result>): Promise<Result> {
  const begin = performance.now();
  const result = await work();
  times.push(performance.now() - begin);
  return result;
}

function median(values: readonly number[]): number | undefined {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

async function readTensor(dir: string, entry: GoldenCase["inputs"][number]): Promise<Tensor> {
  return tensorFromBytes(entry.elementType, entry.dims, await readFile(join(dir, entry.file)));
}
