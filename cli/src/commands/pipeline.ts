import { readFile, rm } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import {
  modelFiles,
  FieldloopError,
  ROOT_NODE,
  pipelineSpecSchema,
  type PipelineSpec,
} from "@fieldloop/protocol";
import {
  buildPipeline,
  checkGolden,
  openModel,
  openPackage,
  replacePart,
  type GoldenReport,
  type ModelPackage,
} from "@fieldloop/runtime/node";
import type { Command } from "commander";
import { action, note, printJson, printTable } from "../output.js";
import { formatBytes, parsePositiveInteger, versionOf } from "./model-options.js";
import { registerPipelineSplit } from "./pipeline-split.js";
import { registerPipelineShow } from "./pipeline-show.js";

const SPEC_HELP = `
FILE.json says what is fed with what; folders are from where it lies:
  { "model": "door-camera", "version": 1, "root": "packages/faces",
    "nodes": [ { "name": "mood", "package": "packages/mood",
                 "from": { "kind": "crop", "head": "faces", "scoreThreshold": 0.7 } } ] }
"from" is { "kind": "frame" }, { "kind": "tensors", "node", "tensors": { input: output } } or
{ "kind": "crop", "node", "head", "labels", "scoreThreshold", "cropsMax", "margin" };
"when": { "node", "head", "labels", "confidenceMin" } runs a node only then; "node" is the root by default.`;

export function registerPipelineCommand(program: Command): void {
  const pipeline = program
    .command("pipeline")
    .description(
      "Put models together in one package: shared backbones, crops of boxes, stages; change one part alone",
    );
  pipeline
    .command("build")
    .description("Make one package of several, as a description says, and check it")
    .argument("<file>", "description, JSON")
    .requiredOption("--out <dir>", "package folder to make")
    .option("--json", "result as JSON")
    .addHelpText("after", SPEC_HELP)
    .action(action(build));
  registerPipelineSplit(pipeline);
  registerPipelineShow(pipeline);
  pipeline
    .command("replace")
    .description("Make a new version with one part replaced; the files of all others stay as they are")
    .argument("<dir>", "package folder of the pipeline")
    .requiredOption("--node <name>", "the part; root for the first")
    .requiredOption("--with <dir>", "package folder of the model that takes its place")
    .requiredOption("--out <dir>", "package folder to make")
    .option("--model-version <n>", "of the pipeline (default: one more)", parsePositiveInteger)
    .option("--json", "result as JSON")
    .action(action(replace));
}

async function build(file: string, flags: { out: string; json?: boolean }): Promise<void> {
  const spec = await readSpec(file);
  const from = dirname(resolve(file));
  const parts = new Map<string, ModelPackage>();
  parts.set(ROOT_NODE, await openPackage(resolve(from, spec.root)));
  for (const node of spec.nodes) parts.set(node.name, await openPackage(resolve(from, node.package)));
  const pkg = await buildPipeline(flags.out, spec, parts, { created: new Date() });
  const left = goldenCount([...parts.values()]) - pkg.manifest.golden.length;
  if (left > 0) note(`${left} golden cases of the parts do not fit into one manifest and were left out`);
  await report(pkg, await checkOrRemove(pkg), flags.json);
}

interface ReplaceFlags {
  readonly node: string;
  readonly with: string;
  readonly out: string;
  readonly modelVersion?: number;
  readonly json?: boolean;
}

async function replace(dir: string, flags: ReplaceFlags): Promise<void> {
  const before = await openPackage(dir);
  const part = await openPackage(flags.with);
  const pkg = await replacePart(flags.out, before, flags.node, part, {
    created: new Date(),
    ...(flags.modelVersion === undefined ? {} : { version: flags.modelVersion }),
  });
  await report(pkg, await checkOrRemove(pkg), flags.json);
}

async function readSpec(file: string): Promise<PipelineSpec> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (cause) {
    throw new FieldloopError("not_found", `Read pipeline "${file}": ${(cause as Error).message}`, { cause });
  }
  const refuse = (reason: string): FieldloopError =>
    new FieldloopError("invalid_argument", `Read pipeline "${file}": ${reason}`);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw refuse(`not JSON: ${(error as Error).message}`);
  }
  const parsed = pipelineSpecSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw refuse(`${issue.path.join(".") || "document"}: ${issue.message}`);
}

function goldenCount(parts: readonly ModelPackage[]): number {
  return parts.reduce((sum, { manifest }) => sum + manifest.golden.length, 0);
}

/** Graphs must have the tensors that the manifest speaks of, and hold their golden cases: a package that does not is not left behind. */
async function checkOrRemove(pkg: ModelPackage): Promise<GoldenReport> {
  try {
    const model = await openModel(pkg, { threadCount: 1 });
    try {
      return await checkGolden(model);
    } finally {
      await model.release();
    }
  } catch (error) {
    await rm(pkg.dir, { recursive: true, force: true });
    throw error;
  }
}

async function report(pkg: ModelPackage, golden: GoldenReport, json: boolean | undefined): Promise<void> {
  const { dir, manifest, packageSha256 } = pkg;
  const nodes = manifest.nodes.map(({ name, model, version }) => ({ name, model, version }));
  if (json) return printJson({ dir, version: versionOf(manifest), packageSha256, nodes, golden });
  const bytes = modelFiles(manifest).map((one) => one.bytes);
  printTable([
    ["version", "parts", "models", "golden cases", "package", "folder"],
    [
      versionOf(manifest),
      String(nodes.length + 1),
      formatBytes(bytes.reduce((sum, one) => sum + one, 0)),
      String(golden.cases),
      packageSha256.slice(0, 16),
      dir,
    ],
  ]);
}
