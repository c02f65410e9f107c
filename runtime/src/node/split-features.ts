import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { GoldenCase, Variant } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import type { SplitModel } from "../onnx/extract.js";
import { encodeModel } from "../onnx/model.js";
import { DEFAULT_TOLERANCE } from "../package/golden.js";
import { tensorFromBytes } from "../package/tensor-bytes.js";
import { ortNode } from "./ort.js";
import type { ModelPackage } from "./package.js";

/** A variant of the whole, cut. */
export interface SplitVariant {
  readonly variant: Variant;
  readonly split: SplitModel;
}

/** What the backbone gives for the input of a golden case of the whole. */
export interface GoldenFeatures {
  readonly golden: GoldenCase;
  /** Of the first variant. */
  readonly tensors: Readonly<Record<string, Tensor>>;
  /** Of the backbones of all variants: twice what each is off, at least what is usual for its precision. */
  readonly tolerance: GoldenCase["tolerance"];
}

/** Runs the backbones of all variants on the golden cases of the whole. */
export async function featuresOf(
  pkg: ModelPackage,
  variants: readonly SplitVariant[],
  at: readonly string[],
): Promise<GoldenFeatures[]> {
  const { golden } = pkg.manifest;
  const feeds: Record<string, Tensor>[] = [];
  for (const { inputs } of golden) {
    const fed: Record<string, Tensor> = {};
    for (const { name, elementType, dims, file } of inputs) {
      if (!variants[0]!.split.backbone.inputs.includes(name)) continue;
      fed[name] = tensorFromBytes(elementType, dims, await readFile(join(pkg.dir, file)));
    }
    feeds.push(fed);
  }
  const tensors: Record<string, Tensor>[] = [];
  const tolerances = golden.map((): GoldenCase["tolerance"] => ({}));
  for (const { variant, split } of variants) {
    const bytes = encodeModel(split.backbone.model);
    const session = await ortNode.openSession(bytes, { threadCount: 1, executionProvider: "cpu" });
    try {
      for (const [index, fed] of feeds.entries()) {
        const given = await session.run(fed, at);
        tensors[index] ??= given;
        const usual = DEFAULT_TOLERANCE[variant.precision];
        const off = 2 * largestDifference(given, tensors[index]);
        tolerances[index]![variant.precision] = { ...usual, absolute: Math.max(usual.absolute, off) };
      }
    } finally {
      await session.release();
    }
  }
  return golden.map((one, index) => ({
    golden: one,
    tensors: tensors[index]!,
    tolerance: tolerances[index]!,
  }));
}

function largestDifference(
  some: Readonly<Record<string, Tensor>>,
  others: Readonly<Record<string, Tensor>>,
): number {
  let largest = 0;
  for (const [name, { data }] of Object.entries(some)) {
    const other = others[name]!.data;
    for (let at = 0; at < data.length; at++)
      largest = Math.max(largest, Math.abs(Number(data[at]) - Number(other[at])));
  }
  return largest;
}
