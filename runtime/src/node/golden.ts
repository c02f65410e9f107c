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
}

/**
 * Runs every golden case of a model's package on the open session of its part.
 * @throws FieldloopError `golden_case_failed` naming the first case, output, index and both values; `model_run_failed`
 */
export async function checkGolden(model: LoadedModel): Promise<GoldenReport> {
  const { golden } = model.manifest;
  let worstAbsoluteError = 0;
  for (const entry of golden) {
    worstAbsoluteError = Math.max(worstAbsoluteError, await checkCase(model, entry));
  }
  return { cases: golden.length, worstAbsoluteError };
}

async function checkCase(model: LoadedModel, golden: GoldenCase): Promise<number> {
  const { dir } = model.package;
  const feeds: Record<string, Tensor> = {};
  for (const input of golden.inputs) feeds[input.name] = await readTensor(dir, input);
  const fetches = golden.outputs.map((output) => output.name);
  const node = golden.node ?? ROOT_NODE;
  const outputs = await model.runTensors(feeds, fetches, node);
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

async function readTensor(dir: string, entry: GoldenCase["inputs"][number]): Promise<Tensor> {
  return tensorFromBytes(entry.elementType, entry.dims, await readFile(join(dir, entry.file)));
}
