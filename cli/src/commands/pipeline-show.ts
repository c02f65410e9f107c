import { ROOT_NODE, type Manifest, type NodeSource, type PipelineNode } from "@fieldloop/protocol";
import { pipelineParts, wantedOutputs, zeroFeeds, type PipelinePart } from "@fieldloop/runtime";
import { openModel, openPackage, type LoadedPart, type ModelPackage } from "@fieldloop/runtime/node";
import type { Command } from "commander";
import { action, note, printJson, printTable } from "../output.js";
import { formatBytes, parsePositiveInteger, versionOf } from "./model-options.js";

/** Rounds of measuring, each part in turn, so that all meet the same state of the machine. */
const ROUNDS = 20;
/** A part that takes longer than this is measured in fewer rounds. */
const MEASURE_MS_MAX = 4_000;

interface ShowFlags {
  readonly threads: number;
  readonly time: boolean;
  readonly json?: boolean;
}

interface ShownPart {
  readonly name: string;
  readonly model: string;
  readonly version: number;
  readonly from?: NodeSource;
  readonly when?: PipelineNode["when"];
  readonly heads: readonly { readonly name: string; readonly kind: string }[];
  readonly variants: readonly { readonly name: string; readonly file: string; readonly bytes: number }[];
  readonly variant?: string;
  /** Median of one run on zeros. */
  readonly runMs?: number;
  /** Of one run of every part, 0..1. */
  readonly share?: number;
}

export function registerPipelineShow(pipeline: Command): void {
  pipeline
    .command("show")
    .description("Print what feeds what, with versions, sizes and what each part costs")
    .argument("<dir>", "package folder")
    .option("--no-time", "do not open and measure the parts")
    .option("--threads <n>", "threads inside one operator", parsePositiveInteger, 1)
    .option("--json", "result as JSON")
    .action(action(show));
}

async function show(dir: string, flags: ShowFlags): Promise<void> {
  const pkg = await openPackage(dir);
  const { manifest, packageSha256 } = pkg;
  const times = flags.time ? await measure(pkg, flags.threads) : new Map<string, Measured>();
  const total = [...times.values()].reduce((sum, { runMs }) => sum + (runMs ?? 0), 0);
  const parts = pipelineParts(manifest).map((part) => shownPart(part, manifest, times.get(part.name), total));
  if (flags.json) return printJson({ version: versionOf(manifest), packageSha256, parts });
  process.stdout.write(`${versionOf(manifest)}, package ${packageSha256}\n`);
  const rows = treeRows(parts, ROOT_NODE, "");
  printTable([["part", "model", "takes", "heads", "variant", "size", "one run", "share"], ...rows]);
}

interface Measured {
  readonly variant: string;
  readonly runMs: number | undefined;
}

async function measure(pkg: ModelPackage, threadCount: number): Promise<Map<string, Measured>> {
  const model = await openModel(pkg, { threadCount });
  try {
    note(`measuring ${model.parts.length} parts`);
    const times = new Map<string, number[]>();
    const parts = new Map(pipelineParts(pkg.manifest).map((part) => [part.name, part]));
    const end = performance.now() + MEASURE_MS_MAX;
    for (let round = 0; round < ROUNDS && (round === 0 || performance.now() < end); round++) {
      for (const loaded of model.parts) {
        const took = await runOnce(pkg.manifest, parts.get(loaded.name)!, loaded);
        if (took !== undefined) times.set(loaded.name, [...(times.get(loaded.name) ?? []), took]);
      }
    }
    return new Map(
      model.parts.map(({ name, variant }) => [
        name,
        { variant: variant.name, runMs: median(times.get(name)) },
      ]),
    );
  } finally {
    await model.release();
  }
}

async function runOnce(
  manifest: Manifest,
  part: PipelinePart,
  { session }: LoadedPart,
): Promise<number | undefined> {
  const feeds = zeroFeeds(part.inputs);
  if (feeds === undefined) return undefined;
  const fetches = wantedOutputs(manifest, part.name);
  const start = performance.now();
  await session.run(feeds, fetches);
  return performance.now() - start;
}

function median(values: readonly number[] | undefined): number | undefined {
  return values?.toSorted((a, b) => a - b)[values.length >> 1];
}

function shownPart(
  part: PipelinePart,
  manifest: Manifest,
  measured: Measured | undefined,
  totalMs: number,
): ShownPart {
  const { name, model, version } = part;
  const node = manifest.nodes.find((one) => one.name === name);
  const { variant, runMs } = measured ?? {};
  return {
    name,
    model,
    version,
    ...(node === undefined ? {} : { from: node.from }),
    ...(node?.when === undefined ? {} : { when: node.when }),
    heads: part.heads.map((head) => ({ name: head.name, kind: head.kind })),
    variants: part.variants.map(({ name: of, file, bytes }) => ({ name: of, file, bytes })),
    ...(variant === undefined ? {} : { variant }),
    ...(runMs === undefined ? {} : { runMs, share: runMs / totalMs }),
  };
}

/** The part and everything that takes something of it, depth first. */
function treeRows(parts: readonly ShownPart[], name: string, indent: string): string[][] {
  const part = parts.find((one) => one.name === name)!;
  const children = parts.filter((one) => one.from !== undefined && parentOf(one.from) === name);
  const size = (part.variants.find((one) => one.name === part.variant) ?? part.variants[0]!).bytes;
  const row = [
    `${indent}${name}`,
    `${part.model}@${part.version}`,
    takes(part),
    part.heads.map((head) => `${head.name} (${head.kind})`).join(", ") || "-",
    part.variant ?? part.variants.map((one) => one.name).join(", "),
    formatBytes(size),
    part.runMs === undefined ? "-" : `${part.runMs.toFixed(2)} ms`,
    part.share === undefined ? "-" : `${Math.round(part.share * 100)} %`,
  ];
  const inner = indent.replace("├─ ", "│  ").replace("└─ ", "   ");
  const rest = children.flatMap((child, at) =>
    treeRows(parts, child.name, `${inner}${at === children.length - 1 ? "└─ " : "├─ "}`),
  );
  return [row, ...rest];
}

function parentOf(from: NodeSource): string {
  return from.kind === "frame" ? ROOT_NODE : from.node;
}

function takes({ from, when }: ShownPart): string {
  if (from === undefined) return "frame";
  const condition = when === undefined ? "" : `, when ${conditionOf(when)}`;
  switch (from.kind) {
    case "frame":
      return `frame${condition}`;
    case "tensors":
      return `${Object.values(from.tensors).join(", ")}${condition}`;
    case "crop":
      return `crops of ${from.head}${from.labels ? ` (${from.labels.join(", ")})` : ""}${condition}`;
  }
}

function conditionOf({ node, head, labels, confidenceMin }: NonNullable<PipelineNode["when"]>): string {
  const is = labels === undefined ? "" : ` is ${labels.join(" or ")}`;
  const sure = confidenceMin > 0 ? ` ≥ ${confidenceMin}` : "";
  return `${node}.${head}${is}${sure}`;
}
