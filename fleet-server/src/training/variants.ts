import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { FieldloopError, formatModelVersion, type Manifest, type Variant } from "@fieldloop/protocol";
import { quantizeStatic, readQuantizedBase, requireQuality, type Feeds } from "@fieldloop/runtime";
import { foldModel, ortNode, type ModelPackage } from "@fieldloop/runtime/node";
import type { Rows } from "./rows.js";

/** Rows shown to the quantizer from the old and from the new data, each at most. */
const CALIBRATION_ROWS_MAX = 200;
/** Of the int8 model's outputs against the float model's; the evaluation judges what it means for accuracy. */
const QUANTIZED_COSINE_MIN = 0.98;

/** A variant with the bytes of its file. */
export interface VariantFile {
  readonly variant: Variant;
  readonly bytes: Uint8Array;
}

/** What devices run where they can: the int8 variant, else fp32. */
export function deployedVariant(manifest: Manifest): Variant {
  return manifest.variants.find(({ precision }) => precision === "int8") ?? floatVariant(manifest);
}

/** @throws FieldloopError `package_incompatible` where the package has no fp32 variant to train */
export function floatVariant(manifest: Manifest): Variant {
  const variant = manifest.variants.find(({ precision }) => precision === "fp32");
  if (variant) return variant;
  const name = formatModelVersion(manifest.model, manifest.version);
  throw new FieldloopError("package_incompatible", `Train "${name}": it has no fp32 variant to start from`);
}

export async function readVariant(pkg: ModelPackage, variant: Variant): Promise<Uint8Array> {
  return new Uint8Array(await readFile(join(pkg.dir, variant.file)));
}

export interface MadeVariants {
  readonly float: VariantFile;
  readonly int8?: VariantFile;
  readonly metrics: Readonly<Record<string, number>>;
}

/**
 * The trained float model and, where the base has one, its int8 form: calibrated on old and new data, on the base's scales and
 * levels where they still fit, so that what devices must fetch stays small.
 * @throws FieldloopError `quantization_rejected` where the int8 outputs stray from the float ones
 */
export async function makeVariants(
  base: ModelPackage,
  trained: Uint8Array,
  calibration: readonly Rows[],
  options: { readonly threadCount: number; readonly signal: AbortSignal },
): Promise<MadeVariants> {
  const { manifest } = base;
  const float = { variant: floatVariant(manifest), bytes: trained };
  const int8 = manifest.variants.find(({ precision }) => precision === "int8");
  if (!int8) return { float, metrics: {} };
  const quantizedBase = readQuantizedBase(await readVariant(base, int8));
  const { bytes, report } = await quantizeStatic(trained, {
    backend: ortNode,
    fold: foldModel,
    calibration: calibrationFeeds(manifest.inputs[0]!.name, calibration),
    activation: int8.name.includes("s8s8") ? "int8" : "uint8",
    weight: "int8",
    perChannel: true,
    reduceRange: manifest.lineage.settings["reduceRange"] === true,
    method: { kind: "minmax" },
    baseScales: quantizedBase.scales,
    baseLevels: quantizedBase.levels,
    ...options,
  });
  requireQuality(report, { cosineMin: QUANTIZED_COSINE_MIN });
  const quantizedCosine = Math.min(...report.outputs.map(({ cosine }) => cosine));
  return { float, int8: { variant: int8, bytes }, metrics: { quantizedCosine } };
}

function* calibrationFeeds(input: string, parts: readonly Rows[]): Generator<Feeds> {
  for (const { inputs, labels, rowSize, dims } of parts) {
    const count = Math.min(labels.length, CALIBRATION_ROWS_MAX);
    for (let at = 0; at < count; at++) {
      // Spread over all rows: data of one device lie together.
      const row = Math.floor((at * labels.length) / count);
      const data = inputs.subarray(row * rowSize, (row + 1) * rowSize);
      yield { [input]: { type: "float32", dims, data } };
    }
  }
}
