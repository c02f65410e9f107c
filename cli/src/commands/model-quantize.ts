import { mkdir, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";
import {
  INT4_BLOCK_SIZES,
  makeVariant,
  QUANTIZATION_SCHEMES,
  refusalReasons,
  requireWorth,
  schemeSettings,
  type AcceptanceBounds,
  type CalibrationMethod,
  type MadeVariant,
  type QuantizationScheme,
  type QuantizeMethod,
  type QuantizeProgress,
  type VariantSettings,
} from "@fieldloop/runtime";
import { foldModel, hostFacts, ortNode } from "@fieldloop/runtime/node";
import { InvalidArgumentError, Option, type Command } from "commander";
import { action, note, printJson } from "../output.js";
import { parseNumber, parsePositiveInteger } from "./model-options.js";
import { printVariantReport } from "./model-quantize-report.js";
import { openBase } from "./model-quantize-base.js";
import { openSource, type QuantizeSource } from "./model-quantize-source.js";
import { writeVersion } from "./model-quantize-write.js";

export interface QuantizeFlags {
  readonly method: "static" | "dynamic" | "fp16" | "int4";
  readonly storage?: boolean;
  readonly scheme: QuantizationScheme;
  readonly perTensor?: boolean;
  readonly reduceRange?: boolean;
  readonly cpuFlags?: readonly string[];
  readonly calibration: "minmax" | "percentile" | "entropy";
  readonly percentile: number;
  readonly minRealRange?: number;
  readonly images?: string;
  readonly data?: readonly string[];
  readonly labels?: string;
  readonly random?: number;
  readonly calibrationMax: number;
  readonly evaluationMax: number;
  readonly base?: string;
  readonly keepFloat?: readonly string[];
  readonly search?: boolean;
  readonly evaluations: number;
  readonly accuracyDrop: number;
  readonly allowSlower?: boolean;
  readonly blockSize: number;
  readonly symmetric?: boolean;
  readonly accuracyLevel: 0 | 1 | 4;
  readonly threads: number;
  readonly seconds: number;
  readonly out?: string;
  readonly json?: boolean;
}

const PROGRESS_EVERY_MS = 1_000;

export function registerModelQuantize(model: Command): void {
  model
    .command("quantize")
    .description(
      "Make a smaller or faster variant, measured against the float model, or refuse with the reason",
    )
    .argument("<path>", "package folder (a new version with one variant more is written) or ONNX file")
    .addOption(new Option("--method <name>").choices(["static", "dynamic", "fp16", "int4"]).default("static"))
    .addOption(
      new Option("--scheme <name>", "types of activations and weights (static)")
        .choices(QUANTIZATION_SCHEMES)
        .default("u8s8"),
    )
    .addOption(
      new Option("--calibration <name>", "how ranges are chosen (static)")
        .choices(["minmax", "percentile", "entropy"])
        .default("minmax"),
    )
    .option("--percentile <number>", "of values that ranges hold", parseNumber, 99.999)
    .option("--min-real-range <number>", "narrowest range of a tensor", parseNumber)
    .option("--per-tensor", "one weight scale a tensor, not one an output channel")
    .option("--reduce-range", "7-bit weights; the default where a CPU has no VNNI")
    .option("--cpu-flags <list>", "flags of the devices' CPU, with commas (default: of this one)", parseList)
    .option("--images <dir>", "folder of images to calibrate and judge on (packages)")
    .option(
      "--data <file...>",
      "files of inputs: as `model run` takes them; for an ONNX file .npy, .bin, .csv, IDX, or NAME=FILE",
    )
    .option("--labels <file>", "true classes of those inputs")
    .option("--random <n>", "calibrate on so many inputs of noise", parsePositiveInteger)
    .option("--calibration-max <n>", "inputs to calibrate on", parsePositiveInteger, 200)
    .option("--evaluation-max <n>", "other inputs to judge on", parsePositiveInteger, 1_000)
    .option(
      "--base <path>",
      "package (or int8 ONNX file) that devices have: stay near its levels as far as accuracy holds, so that little travels (static)",
    )
    .option("--keep-float <list>", "nodes to leave in float, with commas", parseList)
    .option("--search", "look for nodes to leave in float until the accuracy bound holds")
    .option("--evaluations <n>", "models that a search may judge", parsePositiveInteger, 24)
    .option("--accuracy-drop <share>", "that may be lost, 0..1", parseShare, 0.01)
    .option("--allow-slower", "take a variant that is slower on this machine")
    .option("--storage", "fp16: only stored so, computed in float32")
    .addOption(
      new Option("--block-size <n>", "int4: weights that share a scale")
        .choices(INT4_BLOCK_SIZES.map(String))
        .default("32"),
    )
    .option("--symmetric", "int4: no zero point for each block; smaller by 2 %, here less exact and slower")
    .addOption(
      new Option("--accuracy-level <n>", "int4: 1 computes in float32, 4 in int8")
        .choices(["0", "1", "4"])
        .default("4"),
    )
    .option("--threads <n>", "threads of runs", parsePositiveInteger, 1)
    .option("--seconds <n>", "how long to measure speed; 0 leaves it out", parseNumber, 2)
    .option("--out <path>", "folder to write (default: beside the input)")
    .option("--json", "report as JSON")
    .action(action(quantize));
}

async function quantize(path: string, flags: QuantizeFlags): Promise<void> {
  const settings = settingsOf(flags);
  if (!(flags.seconds >= 0 && flags.seconds <= 600)) {
    throw new FieldloopError("invalid_argument", `Measure for ${flags.seconds} seconds: wanted 0 to 600`);
  }
  const source = await openSource(path, flags, settings.method === "static");
  for (const warning of source.warnings) note(`warning: ${warning}`);
  const base = flags.base === undefined ? undefined : await openBase(flags.base, path, settings);
  if (base && !source.searchEvaluation) {
    throw new FieldloopError(
      "invalid_argument",
      "Stay near a base: wanted two inputs or more beyond those to calibrate on, some to choose by and others to judge by; name them with --images or --data",
    );
  }
  if (flags.search && !source.searchEvaluation) {
    throw new FieldloopError(
      "invalid_argument",
      "Search: wanted two inputs or more beyond those to calibrate on, some to choose nodes by and others to judge by; name them with --images or --data",
    );
  }
  const bounds = { accuracyDropMax: flags.accuracyDrop, allowSlower: flags.allowSlower === true };
  const made = await makeVariant(source.modelBytes, settings, {
    backend: ortNode,
    fold: foldModel,
    calibration: source.calibration,
    examples: source.examples,
    ...(source.evaluation === undefined ? {} : { evaluation: source.evaluation }),
    ...(base === undefined || source.searchEvaluation === undefined
      ? {}
      : { base: { ...base, evaluation: source.searchEvaluation } }),
    ...(source.searchEvaluation === undefined || !flags.search
      ? {}
      : { search: { evaluationsMax: flags.evaluations, evaluation: source.searchEvaluation } }),
    bounds,
    threadCount: flags.threads,
    now: () => performance.now(),
    measureMs: flags.seconds * 1000,
    onProgress: progressNotes(source.calibrationCount),
  });
  await finish(path, flags, settings, source, made, bounds);
}

async function finish(
  path: string,
  flags: QuantizeFlags,
  settings: VariantSettings,
  source: QuantizeSource,
  made: MadeVariant,
  bounds: AcceptanceBounds,
): Promise<void> {
  const warnings = [...source.warnings, ...made.report.warnings];
  const reasons = refusalReasons(made.report, bounds);
  const report = {
    source: basename(path),
    ...made.report,
    warnings,
    accepted: reasons.length === 0,
    reasons,
  };
  if (flags.json && reasons.length > 0) printJson({ ...report, written: null });
  else if (!flags.json) printVariantReport(report);
  requireWorth(made.report, bounds);
  const written = source.package
    ? await writeVersion(source.package, made, settings, flags.out)
    : await writeFiles(path, flags, settings, made.bytes, report);
  if (flags.json) printJson({ ...report, written });
  else process.stdout.write(`written to ${written}\n`);
}

async function writeFiles(
  path: string,
  flags: QuantizeFlags,
  settings: VariantSettings,
  bytes: Uint8Array,
  report: unknown,
): Promise<string> {
  const stem = basename(path).replace(/\.onnx$/i, "");
  const dir = flags.out ?? ".";
  const kind = settings.method === "static" ? `int8-${settings.scheme}` : settings.method;
  const file = join(dir, `${stem}.${kind}.onnx`);
  await mkdir(dir, { recursive: true });
  await writeFile(file, bytes);
  await writeFile(`${file}.report.json`, `${JSON.stringify(report, null, 2)}\n`);
  return file;
}

function settingsOf(flags: QuantizeFlags): VariantSettings {
  const types = schemeSettings(flags.scheme, [flags.cpuFlags ?? hostFacts().cpuFlags]);
  const method: QuantizeMethod = flags.method === "fp16" && flags.storage ? "fp16-storage" : flags.method;
  const calibrationMethod: CalibrationMethod =
    flags.calibration === "percentile"
      ? { kind: "percentile", percentile: flags.percentile }
      : { kind: flags.calibration };
  return {
    method,
    scheme: flags.scheme,
    types: { ...types, reduceRange: flags.reduceRange ?? types.reduceRange },
    perChannel: flags.perTensor !== true,
    calibrationMethod,
    ...(flags.minRealRange === undefined ? {} : { minimumRealRange: flags.minRealRange }),
    blockSize: Number(flags.blockSize),
    symmetricBlocks: flags.symmetric === true,
    accuracyLevel: Number(flags.accuracyLevel) as 0 | 1 | 4,
    keepFloat: flags.keepFloat ?? [],
  };
}

/** A line a second at most. */
function progressNotes(calibrationCount: number): (progress: QuantizeProgress) => void {
  let noted = performance.now();
  return ({ stage, done, detail }) => {
    if (performance.now() - noted < PROGRESS_EVERY_MS) return;
    noted = performance.now();
    const of = stage === "calibrate" ? ` of ${calibrationCount}` : "";
    note(`${stage} ${done}${of}${detail === undefined ? "" : `: ${detail}`}`);
  };
}

function parseList(text: string): string[] {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
}

function parseShare(text: string): number {
  const value = parseNumber(text);
  if (value < 0 || value > 1) throw new InvalidArgumentError("wanted 0 to 1");
  return value;
}
