import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import {
  manifestFiles,
  ROOT_NODE,
  type GoldenCase,
  type Manifest,
  type Precision,
} from "@fieldloop/protocol";
import {
  decodeModel,
  opsetVersion,
  tensorFromBytes,
  variantCpuFlags,
  type MadeVariant,
  type Tensor,
  type VariantReport,
  type VariantSettings,
} from "@fieldloop/runtime";
import { ortNode, writePackage, type ModelPackage } from "@fieldloop/runtime/node";

/** A golden case must hold with this much to spare over what was measured here: kernels of other CPUs round elsewhere. */
const GOLDEN_MARGIN = 3;

/**
 * Writes the next version of a package: the same files, one variant more (or that one replaced), golden tolerances for its precision as
 * measured, and the figures in `lineage.metrics`. Returns the new folder.
 */
export async function writeVersion(
  pkg: ModelPackage,
  made: MadeVariant,
  settings: VariantSettings,
  out: string | undefined,
): Promise<string> {
  const { manifest } = pkg;
  const version = manifest.version + 1;
  const precision = precisionOf(settings);
  const name = variantName(settings);
  const file = `${name}.onnx`;
  const kept = manifest.variants.filter((variant) => variant.name !== name);
  const files: Record<string, Uint8Array> = {};
  const dropped = manifest.variants.find((variant) => variant.name === name)?.file;
  for (const entry of manifestFiles(manifest)) {
    if (entry.file !== dropped) files[entry.file] = new Uint8Array(await readFile(join(pkg.dir, entry.file)));
  }
  files[file] = made.bytes;
  const golden: GoldenCase[] = [];
  for (const entry of manifest.golden) {
    golden.push(
      (entry.node ?? ROOT_NODE) === ROOT_NODE
        ? await withTolerance(pkg, entry, made.bytes, precision)
        : entry,
    );
  }
  const graph = decodeModel(made.bytes);
  const draft: Parameters<typeof writePackage>[1] = {
    ...manifest,
    version,
    created: new Date().toISOString(),
    variants: [
      ...kept,
      {
        name,
        file,
        precision,
        opset: opsetVersion(graph),
        irVersion: Number(graph.irVersion),
        executionProviders: providersOf(settings, manifest),
        cpuFlags:
          settings.method === "static" ? variantCpuFlags(settings.scheme, settings.types.reduceRange) : [],
      },
    ],
    golden,
    lineage: lineageOf(pkg, made.report, name),
  };
  const dir = out ?? join(dirname(pkg.dir), `${manifest.model}-${version}`);
  return (await writePackage(dir, draft, files)).dir;
}

/** float16 runs wherever the float variant was said to run; 8-bit and 4-bit kernels are a CPU's, symmetric int8 also TensorRT's. */
function providersOf({ method, scheme }: VariantSettings, manifest: Manifest): string[] {
  if (method.startsWith("fp16")) {
    const float = manifest.variants.find(({ precision }) => precision === "fp32");
    return [...(float?.executionProviders ?? ["cpu"])];
  }
  return method === "static" && scheme === "s8s8" ? ["tensorrt", "cpu"] : ["cpu"];
}

function precisionOf({ method }: VariantSettings): Precision {
  if (method === "int4") return "int4";
  return method.startsWith("fp16") ? "fp16" : "int8";
}

function variantName(settings: VariantSettings): string {
  switch (settings.method) {
    case "static":
      return `int8-${settings.scheme}${settings.types.reduceRange ? "-reduced" : ""}`;
    case "dynamic":
      return "int8-dynamic";
    case "int4":
      return `int4-${settings.blockSize}`;
    case "fp16":
    case "fp16-storage":
      return settings.method;
  }
}

function lineageOf(pkg: ModelPackage, report: VariantReport, name: string): Manifest["lineage"] {
  const { lineage, model, version } = pkg.manifest;
  const prefix = `quantize.${name}`;
  const settings: Manifest["lineage"]["settings"] = {
    ...lineage.settings,
    [`${prefix}.method`]: report.method,
  };
  for (const [key, value] of Object.entries(report.settings)) settings[`${prefix}.${key}`] = value;
  const kept = report.search?.keepFloat ?? [];
  if (kept.length > 0) settings[`${prefix}.keptFloat`] = kept.join(",");
  const metrics: Record<string, number> = {
    ...lineage.metrics,
    [`${prefix}.bytesBefore`]: report.bytesBefore,
    [`${prefix}.bytesAfter`]: report.bytesAfter,
    [`${prefix}.integerKernels`]: report.kernels.integer,
    [`${prefix}.floatProducts`]: report.kernels.float,
  };
  if (report.base) {
    metrics[`${prefix}.deltaBytes`] = report.base.deltaBytes;
    metrics[`${prefix}.deltaBytesRounded`] = report.base.deltaBytesRounded;
    if (report.base.changeCost !== null) metrics[`${prefix}.changeCost`] = report.base.changeCost;
  }
  if (report.speed) {
    metrics[`${prefix}.floatMs`] = report.speed.floatMs;
    metrics[`${prefix}.variantMs`] = report.speed.variantMs;
  }
  if (report.accuracy) {
    metrics[`${prefix}.${report.accuracy.metric}Float`] = report.accuracy.float;
    metrics[`${prefix}.${report.accuracy.metric}Variant`] = report.accuracy.variant;
  }
  for (const output of report.outputs) {
    if (Number.isFinite(output.cosine)) metrics[`${prefix}.cosine.${output.name}`] = output.cosine;
  }
  return {
    ...lineage,
    base: { model, version, sha256: pkg.packageSha256 },
    settings,
    metrics,
  };
}

/** The tolerance of a golden case for the new variant's precision, from how far the variant is off here. */
async function withTolerance(
  pkg: ModelPackage,
  golden: GoldenCase,
  bytes: Uint8Array,
  precision: Precision,
): Promise<GoldenCase> {
  const read = async (entry: GoldenCase["inputs"][number]): Promise<Tensor> =>
    tensorFromBytes(entry.elementType, entry.dims, await readFile(join(pkg.dir, entry.file)));
  const feeds: Record<string, Tensor> = {};
  for (const input of golden.inputs) feeds[input.name] = await read(input);
  const session = await ortNode.openSession(bytes, { threadCount: 1, executionProvider: "cpu" });
  let worst = 0;
  try {
    const outputs = await session.run(feeds);
    for (const output of golden.outputs) {
      const expected = await read(output);
      const actual = outputs[output.name];
      for (let at = 0; at < expected.data.length; at++) {
        worst = Math.max(worst, Math.abs(Number(actual?.data[at]) - Number(expected.data[at])));
      }
    }
  } finally {
    await session.release();
  }
  const known = golden.tolerance[precision];
  const absolute = Math.max(known?.absolute ?? 0, Number((worst * GOLDEN_MARGIN).toPrecision(3)), 1e-3);
  return {
    ...golden,
    tolerance: { ...golden.tolerance, [precision]: { absolute, relative: known?.relative ?? 0.02 } },
  };
}
