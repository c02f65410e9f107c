import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openPackage, splitPackage } from "@fieldloop/runtime/node";
import type { Command } from "commander";
import { action, note, printJson, printTable } from "../output.js";
import { formatBytes, parsePositiveInteger, versionOf } from "./model-options.js";

const SPEC_FILE = "pipeline.json";

interface SplitFlags {
  readonly at?: string[];
  readonly out: string;
  readonly modelVersion?: number;
  readonly json?: boolean;
}

export function registerPipelineSplit(pipeline: Command): void {
  pipeline
    .command("split")
    .description("Cut a model's package into one for its backbone and one for each head, ready for build")
    .argument("<dir>", "package folder of a plain model")
    .requiredOption("--out <dir>", `folder to make, for the packages and ${SPEC_FILE}`)
    .option(
      "--at <tensor>",
      "tensor at which to cut; repeatable (default: the last that all passes through before a weighted layer)",
      (value: string, before: string[] | undefined) => [...(before ?? []), value],
    )
    .option("--model-version <n>", "of the pipeline (default: one more)", parsePositiveInteger)
    .option("--json", "result as JSON")
    .action(action(split));
}

async function split(dir: string, flags: SplitFlags): Promise<void> {
  const pkg = await openPackage(dir);
  const { spec, parts, variantsLeftOut } = await splitPackage(flags.out, pkg, {
    created: new Date(),
    ...(flags.at === undefined ? {} : { at: flags.at }),
    ...(flags.modelVersion === undefined ? {} : { version: flags.modelVersion }),
  });
  const specFile = join(flags.out, SPEC_FILE);
  await writeFile(specFile, `${JSON.stringify(spec, null, 2)}\n`);
  const rows = [...parts].map(([node, { dir: folder, manifest }]) => ({
    node,
    version: versionOf(manifest),
    variants: manifest.variants.map(({ name }) => name),
    bytes: manifest.variants[0]!.bytes,
    dir: folder,
  }));
  if (flags.json) return printJson({ spec: specFile, parts: rows, variantsLeftOut });
  for (const { variant, reason } of variantsLeftOut) note(`variant "${variant}" was left out: ${reason}`);
  printTable([
    ["node", "model", "variants", "size", "folder"],
    ...rows.map((row) => [row.node, row.version, row.variants.join(", "), formatBytes(row.bytes), row.dir]),
  ]);
  process.stdout.write(`${specFile} puts them together: fieldloop pipeline build ${specFile} --out DIR\n`);
}
