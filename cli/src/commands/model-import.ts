import { basename } from "node:path";
import { FieldloopError, modelNameSchema } from "@fieldloop/protocol";
import { PRESETS, suggestPreset, type PresetName, type PresetOptions } from "@fieldloop/runtime";
import {
  checkGolden,
  describeFile,
  importModel,
  openModel,
  tryModel,
  type GoldenReport,
  type ModelPackage,
} from "@fieldloop/runtime/node";
import { InvalidArgumentError, type Command } from "commander";
import { action, note, printJson, printTable } from "../output.js";
import {
  addPresetOptions,
  presetHelp,
  readDeclared,
  readPresetOptions,
  type PresetFlags,
} from "./model-import-options.js";
import { formatBytes, modelNameFrom, parsePositiveInteger, versionOf } from "./model-options.js";

/** In place of a preset's name, where a file says what the model takes and gives. */
const DECLARED = "declared";

interface ImportFlags {
  readonly preset?: string;
  readonly manifest?: string;
  readonly name?: string;
  readonly modelVersion: number;
  readonly out?: string;
  readonly licence: string;
  readonly description?: string;
  readonly golden: boolean;
  readonly fold: boolean;
  readonly dim?: Readonly<Record<string, number>>;
  readonly json?: boolean;
}

export function registerModelImport(model: Command): void {
  const command = model
    .command("import")
    .description("Make a package of an ONNX file: checked, described by a preset, with a golden case")
    .argument("<file>", "ONNX file")
    .option("--preset <name>", "what the file is; see below")
    .option(
      "--manifest <file>",
      "instead of a preset: JSON with task, inputs, heads and signals as in a manifest",
    )
    .option("--name <name>", "model name (default: from the file name)")
    .option("--model-version <n>", "version number", parsePositiveInteger, 1)
    .option("--out <dir>", "package folder to make (default: NAME-VERSION here)")
    .option("--licence <id>", "licence of the weights", "unspecified")
    .option("--description <text>", "a sentence about it");
  addPresetOptions(command)
    .option("--dim <name=size>", "size of a symbolic dimension, may be given again", parseDim)
    .option("--no-fold", "keep the graph as its exporter wrote it")
    .option("--no-golden", "do not record a golden case")
    .option("--json", "result as JSON")
    .addHelpText("after", presetHelp())
    .action(action(importFile));
}

async function importFile(file: string, flags: ImportFlags & PresetFlags): Promise<void> {
  const {
    preset: presetGiven,
    manifest: declaredFile,
    name: nameGiven,
    modelVersion,
    out,
    licence,
    description,
    golden: withGolden,
    fold,
    dim,
    json,
    ...presetFlags
  } = flags;
  const name = nameGiven ?? modelNameFrom(basename(file));
  if (!modelNameSchema.safeParse(name).success) {
    throw new FieldloopError(
      "invalid_argument",
      `Name the model: "${name}", wanted a-z, 0-9 and inner hyphens`,
    );
  }
  const presetOptions = await readPresetOptions(presetFlags);
  if (declaredFile !== undefined && (presetGiven !== undefined || Object.keys(presetOptions).length > 0)) {
    throw new FieldloopError(
      "invalid_argument",
      "Describe the model: wanted either --manifest, or a preset with its options",
    );
  }
  const declared = declaredFile === undefined ? undefined : await readDeclared(declaredFile);
  const preset = declared ? DECLARED : (presetGiven ?? (await choosePreset(file, presetOptions, dim)));
  const pkg = await importModel(file, out ?? `${name}-${modelVersion}`, {
    preset,
    presetOptions,
    ...(declared === undefined ? {} : { declared }),
    model: name,
    version: modelVersion,
    licence,
    golden: withGolden,
    fold,
    created: new Date(),
    onWarning: (text) => note(`warning: ${text}`),
    ...(dim === undefined ? {} : { dims: dim }),
    ...(description === undefined ? {} : { description }),
  });
  // The package must open and hold its own golden case before it is called good.
  const golden = await openAndCheck(pkg);
  const { manifest, packageSha256 } = pkg;
  const bytes = manifest.variants[0]!.bytes;
  if (json) {
    printJson({
      dir: pkg.dir,
      version: versionOf(manifest),
      preset,
      packageSha256,
      task: manifest.task,
      bytes,
      golden,
      warnings: pkg.warnings,
    });
    return;
  }
  printTable([
    ["version", "preset", "task", "model", "golden cases", "package", "folder"],
    [
      versionOf(manifest),
      preset,
      manifest.task,
      formatBytes(bytes),
      String(golden.cases),
      packageSha256.slice(0, 16),
      pkg.dir,
    ],
  ]);
}

/** The only preset that fits; which one it is is said, and of several all are. */
async function choosePreset(
  file: string,
  options: PresetOptions,
  dims: Readonly<Record<string, number>> | undefined,
): Promise<PresetName> {
  const { signature, bytes } = await describeFile(file, dims);
  const names = suggestPreset(signature, options);
  const [only] = names;
  if (only !== undefined && names.length === 1) {
    note(`preset ${only}: ${PRESETS[only].title}`);
    return only;
  }
  // A file that no preset could help is said to be so first.
  await tryModel(bytes);
  throw new FieldloopError(
    "invalid_argument",
    names.length === 0
      ? `Choose a preset: none fits "${file}", see its inputs and outputs with "fieldloop model inspect"`
      : `Choose a preset: "${file}" fits ${names.join(", ")}; name one with --preset`,
  );
}

async function openAndCheck(pkg: ModelPackage): Promise<GoldenReport> {
  const model = await openModel(pkg, { threadCount: 1 });
  try {
    return await checkGolden(model);
  } finally {
    await model.release();
  }
}

/** `batch=1`, added to those before. */
function parseDim(text: string, before: Readonly<Record<string, number>> = {}): Record<string, number> {
  const at = text.lastIndexOf("=");
  const size = Number(text.slice(at + 1));
  if (at < 1 || !Number.isInteger(size) || size < 1) {
    throw new InvalidArgumentError("wanted name=size with a size of at least 1");
  }
  return { ...before, [text.slice(0, at)]: size };
}
