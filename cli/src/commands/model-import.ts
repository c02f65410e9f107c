import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { FieldloopError, modelNameSchema } from "@fieldloop/protocol";
import { PRESETS, PRESET_NAMES, type PresetOptions } from "@fieldloop/runtime";
import {
  checkGolden,
  importModel,
  openModel,
  type GoldenReport,
  type ModelPackage,
} from "@fieldloop/runtime/node";
import { Option, type Command } from "commander";
import { action, printJson, printTable } from "../output.js";
import {
  formatBytes,
  modelNameFrom,
  parseLabels,
  parseNumber,
  parseNumbers,
  parsePositiveInteger,
  versionOf,
} from "./model-options.js";

interface ImportFlags extends Omit<PresetOptions, "labels"> {
  readonly preset: string;
  readonly name?: string;
  readonly modelVersion: number;
  readonly labels?: string;
  readonly out?: string;
  readonly licence: string;
  readonly description?: string;
  readonly golden: boolean;
  readonly json?: boolean;
}

export function registerModelImport(model: Command): void {
  const presets = PRESET_NAMES.map((name) => `  ${name.padEnd(20)} ${PRESETS[name].title}`);
  model
    .command("import")
    .description("Make a package of an ONNX file: checked, described by a preset, with a golden case")
    .argument("<file>", "ONNX file")
    .requiredOption("--preset <name>", "what the file is; see below")
    .option("--name <name>", "model name (default: from the file name)")
    .option("--model-version <n>", "version number", parsePositiveInteger, 1)
    .option("--labels <file>", "text file with one label a line")
    .option("--out <dir>", "package folder to make (default: NAME-VERSION here)")
    .option("--licence <id>", "licence of the weights", "unspecified")
    .option("--description <text>", "a sentence about it")
    .option("--width <pixels>", "where the file leaves it open", parsePositiveInteger)
    .option("--height <pixels>", "where the file leaves it open", parsePositiveInteger)
    .addOption(new Option("--colour <order>", "of three channels").choices(["rgb", "bgr"]))
    .addOption(
      new Option("--resize <mode>", "how images meet the size").choices(["stretch", "letterbox", "crop"]),
    )
    .addOption(new Option("--range <range>", "pixel values before mean and std").choices(["unit", "byte"]))
    .option("--mean <numbers>", "one, or one a channel, with commas", parseNumbers)
    .option("--std <numbers>", "one, or one a channel, with commas", parseNumbers)
    .addOption(new Option("--activation <kind>", "of logits").choices(["softmax", "sigmoid"]))
    .option("--temperature <number>", "divides logits", parseNumber)
    .option("--score-threshold <number>", "of detections, 0..1", parseNumber)
    .option("--iou-threshold <number>", "overlap that makes two boxes one, 0..1", parseNumber)
    .option("--threshold <number>", "reconstruction error above which a window is anomalous", parseNumber)
    .option("--sample-rate-hz <number>", "of windows", parseNumber)
    .option("--hop <samples>", "between two windows", parsePositiveInteger)
    .addOption(new Option("--normalization <kind>", "of windows").choices(["none", "zscore", "fixed"]))
    .option("--embedding-output <name>", "an output that is an embedding")
    .option("--no-golden", "do not record a golden case")
    .option("--json", "result as JSON")
    .addHelpText("after", `\nPresets:\n${presets.join("\n")}`)
    .action(action(importFile));
}

async function importFile(file: string, flags: ImportFlags): Promise<void> {
  const name = flags.name ?? modelNameFrom(basename(file));
  if (!modelNameSchema.safeParse(name).success) {
    throw new FieldloopError(
      "invalid_argument",
      `Name the model: "${name}", wanted a-z, 0-9 and inner hyphens`,
    );
  }
  const dir = flags.out ?? `${name}-${flags.modelVersion}`;
  const { labels, ...presetOptions } = flags;
  const pkg = await importModel(file, dir, {
    preset: flags.preset,
    presetOptions: {
      ...presetOptions,
      ...(labels === undefined ? {} : { labels: parseLabels(await readLabels(labels)) }),
    },
    model: name,
    version: flags.modelVersion,
    licence: flags.licence,
    golden: flags.golden,
    created: new Date(),
    ...(flags.description === undefined ? {} : { description: flags.description }),
  });
  // The package must open and hold its own golden case before it is called good.
  const golden = await openAndCheck(pkg);
  const { manifest, packageSha256 } = pkg;
  const bytes = manifest.variants[0]!.bytes;
  if (flags.json) {
    printJson({
      dir: pkg.dir,
      version: versionOf(manifest),
      packageSha256,
      task: manifest.task,
      bytes,
      golden,
    });
    return;
  }
  printTable([
    ["version", "task", "model", "golden cases", "package", "folder"],
    [
      versionOf(manifest),
      manifest.task,
      formatBytes(bytes),
      String(golden.cases),
      packageSha256.slice(0, 16),
      pkg.dir,
    ],
  ]);
}

async function openAndCheck(pkg: ModelPackage): Promise<GoldenReport> {
  const model = await openModel(pkg, { threadCount: 1 });
  try {
    return await checkGolden(model);
  } finally {
    await model.release();
  }
}

async function readLabels(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    throw new FieldloopError("not_found", `Read labels "${file}": ${(cause as Error).message}`, { cause });
  }
}
