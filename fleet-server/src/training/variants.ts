import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { FieldloopError, formatModelVersion, type Manifest, type Variant } from "@fieldloop/protocol";
import {
  argmax,
  openStaticQuantizer,
  readQuantizedBase,
  requireQuality,
  searchNearBase,
  type ClassificationHead,
  type Feeds,
  type Tensor,
} from "@fieldloop/runtime";
import { foldModel, ortNode, type ModelPackage } from "@fieldloop/runtime/node";
import { openBytes } from "./describe.js";
import { spread, type Rows } from "./rows.js";

/** Rows shown to the quantizer from the old and from the new data, each at most. */
const CALIBRATION_ROWS_MAX = 200;
/** Rows of each part that was held out on which the nearness to the base is judged, at most. */
const JUDGED_ROWS_MAX = 1_000;
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

export interface VariantMaterial {
  /** Old and new rows. */
  readonly calibration: readonly Rows[];
  /** Rows that nothing was trained on, old and new: on each of them staying near the base must cost nothing. */
  readonly held: readonly Rows[];
}

/**
 * The trained float model and, where the base has one, its int8 form: calibrated on old and new data, and as near the base's levels as
 * accuracy on the rows that were held out allows, so that what devices must fetch stays small.
 * @throws FieldloopError `quantization_rejected` where the int8 outputs stray from the float ones
 */
export async function makeVariants(
  base: ModelPackage,
  trained: Uint8Array,
  material: VariantMaterial,
  options: {
    readonly head: ClassificationHead;
    readonly threadCount: number;
    readonly signal: AbortSignal;
  },
): Promise<MadeVariants> {
  const { manifest } = base;
  const float = { variant: floatVariant(manifest), bytes: trained };
  const int8 = manifest.variants.find(({ precision }) => precision === "int8");
  if (!int8) return { float, metrics: {} };
  const input = manifest.inputs[0]!.name;
  const { head, threadCount, signal } = options;
  const quantizer = await openStaticQuantizer(trained, {
    backend: ortNode,
    fold: foldModel,
    calibration: calibrationFeeds(input, material.calibration),
    activation: int8.name.includes("s8s8") ? "int8" : "uint8",
    weight: "int8",
    perChannel: true,
    reduceRange: manifest.lineage.settings["reduceRange"] === true,
    method: { kind: "minmax" },
    base: readQuantizedBase(await readVariant(base, int8), await readVariant(base, floatVariant(manifest))),
    threadCount,
    signal,
  });
  const { changeCost } = await searchNearBase(quantizer, {
    evaluate: (bytes) => shareRight(bytes, input, head, material.held, threadCount),
    signal,
  });
  const { bytes, report } = await quantizer.quantize([], changeCost);
  requireQuality(report, { cosineMin: QUANTIZED_COSINE_MIN });
  const quantizedCosine = Math.min(...report.outputs.map(({ cosine }) => cosine));
  const metrics = { quantizedCosine, ...(changeCost === undefined ? {} : { changeCost }) };
  return { float, int8: { variant: int8, bytes }, metrics };
}

/** Of each part, the share of rows whose class a model says. */
async function shareRight(
  bytes: Uint8Array,
  input: string,
  head: ClassificationHead,
  parts: readonly Rows[],
  threadCount: number,
): Promise<number[]> {
  const session = await openBytes(bytes, threadCount);
  try {
    const shares: number[] = [];
    for (const part of parts.filter(({ labels }) => labels.length > 0)) {
      const rows = spreadRows(part, JUDGED_ROWS_MAX);
      let right = 0;
      for (const { tensor, label } of rows) {
        const outputs = await session.run({ [input]: tensor }, [head.output]);
        if (argmax(outputs[head.output]!.data as Float32Array) === label) right++;
      }
      shares.push(right / rows.length);
    }
    return shares;
  } finally {
    await session.release();
  }
}

function* calibrationFeeds(input: string, parts: readonly Rows[]): Generator<Feeds> {
  for (const part of parts) {
    for (const { tensor } of spreadRows(part, CALIBRATION_ROWS_MAX)) yield { [input]: tensor };
  }
}

/** At most so many rows, spread over all: data of one device lie together. */
function spreadRows(
  { inputs, labels, rowSize, dims }: Rows,
  countMax: number,
): { readonly tensor: Tensor; readonly label: number }[] {
  const rows = Array.from(labels, (label, row): { tensor: Tensor; label: number } => {
    const data = inputs.subarray(row * rowSize, (row + 1) * rowSize);
    return { tensor: { type: "float32", dims, data }, label };
  });
  return spread(rows, countMax);
}
