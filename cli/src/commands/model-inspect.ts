import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { toFieldloopError } from "@fieldloop/protocol";
import {
  checkModel,
  decodeModel,
  describeModel,
  inspectModel,
  suggestPreset,
  zeroFeeds,
  type ModelInspection,
} from "@fieldloop/runtime";
import { feedsFor, openPackage, readModelFile } from "@fieldloop/runtime/node";
import type { Command } from "commander";
import { action, printJson, printTable } from "../output.js";
import { measureCost, printCost } from "./model-inspect-cost.js";
import { collectDims, formatBytes, formatTensor, versionOf } from "./model-options.js";

interface InspectFlags {
  readonly run: boolean;
  readonly providers?: boolean;
  readonly dim: Record<string, number>;
  readonly json?: boolean;
}

export function registerModelInspect(model: Command): void {
  model
    .command("inspect")
    .description("Show what an ONNX file or a package folder holds, and what a run of it costs")
    .argument("<path>", "ONNX file or package folder")
    .option("--no-run", "do not run it once (in a process of its own) to learn shapes and cost")
    .option("--providers", "also try every execution provider of this machine")
    .option("--dim <name=size>", "size of a symbolic dimension in that run", collectDims, {})
    .option("--json", "result as JSON")
    .action(action(inspect));
}

async function inspect(path: string, flags: InspectFlags): Promise<void> {
  const info = await stat(path).catch(() => undefined);
  await (info?.isDirectory() ? inspectPackage(path, flags) : inspectFile(path, flags));
}

async function inspectFile(path: string, flags: InspectFlags): Promise<void> {
  const bytes = await readModelFile(path);
  const inspection = inspectModel(bytes);
  const refusal = refusalOf(bytes);
  const presets = refusal === undefined ? suggestPreset(describeModel(decodeModel(bytes))) : [];
  const cost =
    flags.run && refusal === undefined && inspection.unfedInputs.length === 0
      ? await measureCost(bytes, feedsFor(inspection.inputs, flags.dim), flags.providers === true)
      : undefined;
  if (flags.json) {
    printJson({
      ...inspection,
      acceptable: refusal === undefined,
      refusal: refusal ?? null,
      presets,
      cost: cost ?? null,
    });
  } else {
    printInspection(inspection);
    if (cost !== undefined) printCost(cost);
    process.stdout.write(`presets: ${presets.join(", ") || "none fits"}\n`);
    process.stdout.write(
      refusal === undefined ? "acceptable: yes\n" : `acceptable: no, ${refusal.code}: ${refusal.message}\n`,
    );
  }
}

async function inspectPackage(dir: string, flags: InspectFlags): Promise<void> {
  const pkg = await openPackage(dir, { verifyFiles: false });
  const { manifest } = pkg;
  const feeds = flags.run ? zeroFeeds(manifest.inputs) : undefined;
  const firstFile = join(dir, manifest.variants[0]!.file);
  const cost = feeds && (await measureCost(await readFile(firstFile), feeds, flags.providers === true));
  const variants = await Promise.all(
    manifest.variants.map(async (variant) => ({
      variant,
      inspection: inspectModel(await readFile(join(dir, variant.file))),
    })),
  );
  if (flags.json) {
    const inspections = Object.fromEntries(
      variants.map(({ variant, inspection }) => [variant.name, inspection]),
    );
    printJson({ packageSha256: pkg.packageSha256, manifest, inspections, cost: cost ?? null });
    return;
  }
  printTable([
    ["version", "task", "created", "licence", "package"],
    [versionOf(manifest), manifest.task, manifest.created, manifest.licence, pkg.packageSha256.slice(0, 16)],
  ]);
  printTable([
    ["input", "kind", "shape"],
    ...manifest.inputs.map((input) => [input.name, input.kind, shapeOf(input)]),
  ]);
  printTable([
    ["head", "kind", "labels"],
    ...manifest.heads.map((head) => [head.name, head.kind, "labels" in head ? shortList(head.labels) : "-"]),
  ]);
  printTable([
    ["variant", "precision", "size", "nodes", "parameters", "CPU flags"],
    ...variants.map(({ variant, inspection }) => [
      variant.name,
      variant.precision,
      formatBytes(variant.bytes),
      String(inspection.nodeCount),
      inspection.parameterCount.toLocaleString("en"),
      variant.cpuFlags.join(" ") || "-",
    ]),
  ]);
  if (cost !== undefined) printCost(cost);
  const baseline = manifest.baseline === undefined ? "no" : "yes";
  process.stdout.write(`signals: ${manifest.signals.join(", ") || "none"}\n`);
  process.stdout.write(`golden cases: ${manifest.golden.length}, baseline: ${baseline}\n`);
}

function printInspection(inspection: ModelInspection): void {
  printTable([
    ["size", "producer", "IR", "operator sets", "nodes", "parameters"],
    [
      formatBytes(inspection.bytes),
      inspection.producer || "-",
      String(inspection.irVersion),
      Object.entries(inspection.opsets)
        .map(([domain, version]) => `${domain || "onnx"} ${version}`)
        .join(", "),
      String(inspection.nodeCount),
      inspection.parameterCount.toLocaleString("en"),
    ],
  ]);
  printTable([
    ["tensor", "way", "shape"],
    ...inspection.inputs.map((info) => [info.name, "in", formatTensor(info)]),
    ...inspection.outputs.map((info) => [info.name, "out", formatTensor(info)]),
    ...inspection.unfedInputs.map(({ name, kind }) => [name, "in, cannot be fed", kind]),
    ...inspection.omittedOutputs.map(({ name, kind }) => [name, "out, left out", kind]),
  ]);
  const operators = Object.entries(inspection.operators).map(([name, count]) => `${name} ${count}`);
  process.stdout.write(`operators: ${operators.join(", ")}\n`);
}

/** Why the gate would refuse the file, `undefined` where it would not. */
function refusalOf(bytes: Uint8Array): { code: string; message: string } | undefined {
  try {
    checkModel(bytes);
    return undefined;
  } catch (error) {
    const { code, message } = toFieldloopError(error);
    return { code, message };
  }
}

type Input = Awaited<ReturnType<typeof openPackage>>["manifest"]["inputs"][number];

function shapeOf(input: Input): string {
  switch (input.kind) {
    case "image":
      return `${input.width}×${input.height} ${input.colour}, ${input.resize}, ${input.layout}, ${input.elementType}`;
    case "window":
      return `${input.length}×${input.channels} at ${input.sampleRateHz} Hz, hop ${input.hop}, ${input.normalization}`;
    case "table":
      return `row of ${input.columns.map((column) => column.name).join(", ")}`;
    case "tensor":
    case "state":
    case "constant":
      return formatTensor({
        type: input.elementType,
        dims: input.dims.map((size) => (size === 0 ? "?" : size)),
      });
  }
}

function shortList(labels: readonly string[]): string {
  const shown = labels.slice(0, 10).join(", ");
  return labels.length > 10 ? `${shown}, … (${labels.length})` : shown;
}
