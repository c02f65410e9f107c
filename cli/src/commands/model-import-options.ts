import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { FieldloopError, headSchema, inputSchema, manifestSchema } from "@fieldloop/protocol";
import {
  NAMED_LABELS,
  PRESETS,
  PRESET_NAMES,
  type PresetOptions,
  type PresetResult,
} from "@fieldloop/runtime";
import { InvalidArgumentError, Option, type Command } from "commander";
import { parseLabels, parseNumber, parseNumbers, parsePositiveInteger } from "./model-options.js";

/** What files and lists become part of the options of a preset. */
export interface ListFlags {
  readonly labels?: string;
  readonly keypointLabels?: string;
  readonly columns?: string;
  readonly targets?: string;
  readonly anchors?: string;
}

export type PresetFlags = ListFlags & {
  readonly state?: Readonly<Record<string, string>>;
  readonly constant?: Readonly<Record<string, number>>;
} & Omit<
    PresetOptions,
    "labels" | "keypointLabels" | "columns" | "targets" | "anchors" | "states" | "constants"
  >;

/** The options of `fieldloop model import` that describe the file to its preset. */
export function addPresetOptions(command: Command): Command {
  const named = Object.keys(NAMED_LABELS).join(", ");
  addImageOptions(command)
    .option("--labels <file|name>", `text file with one label a line, a list with commas, or ${named}`)
    .addOption(new Option("--activation <kind>", "of logits").choices(["softmax", "sigmoid"]))
    .addOption(new Option("--values <kind>", "what the output holds").choices(["logits", "probabilities"]))
    .option("--temperature <number>", "divides logits", parseNumber)
    .option(
      "--threshold <number>",
      "above it a window is anomalous, or a label of several is set",
      parseNumber,
    )
    .option("--background <label>", "of a segmentation: no finding")
    .option("--embedding-output <name>", "an output that is an embedding")
    .option("--input-quantization <scale,zero>", "what the integers of the input stand for", parseAffine)
    .option("--output-quantization <scale,zero>", "what the integers of the output stand for", parseAffine);
  addDetectionOptions(command);
  return command
    .option("--sample-rate-hz <number>", "of windows", parseNumber)
    .option("--hop <samples>", "between two windows", parsePositiveInteger)
    .option("--channels <n>", "values of one sample of a window", parsePositiveInteger)
    .addOption(
      new Option("--window-layout <order>", "what lies together in the tensor of a window").choices([
        "time-channel",
        "channel-time",
      ]),
    )
    .addOption(new Option("--normalization <kind>", "of windows").choices(["none", "zscore", "fixed"]))
    .option(
      "--columns <file>",
      "of a table: a list with commas, or a file: one name a line, or name,mean,std; or JSON as in the manifest",
    )
    .option(
      "--targets <file>",
      "of a regression: a list with commas, or a file: one name a line, or JSON as in the manifest",
    )
    .option(
      "--state <input=output>",
      "an input that carries state, and the output with its next value; may be given again",
      parseState,
    )
    .option(
      "--constant <input=number>",
      "an input that is the same in every run; may be given again",
      parseConstant,
    );
}

function addImageOptions(command: Command): Command {
  return command
    .option("--width <pixels>", "where the file leaves it open", parsePositiveInteger)
    .option("--height <pixels>", "where the file leaves it open", parsePositiveInteger)
    .addOption(new Option("--colour <order>", "of three channels").choices(["rgb", "bgr"]))
    .addOption(
      new Option("--resize <mode>", "how images meet the size").choices(["stretch", "letterbox", "crop"]),
    )
    .addOption(new Option("--range <range>", "pixel values before mean and std").choices(["unit", "byte"]))
    .option("--mean <numbers>", "one, or one a channel, with commas", parseNumbers)
    .option("--std <numbers>", "one, or one a channel, with commas", parseNumbers);
}

function addDetectionOptions(command: Command): void {
  command
    .option("--score-threshold <number>", "of detections and points, 0..1", parseNumber)
    .option("--iou-threshold <number>", "overlap that makes two boxes one, 0..1", parseNumber)
    .addOption(new Option("--suppression <kind>", "which boxes compete").choices(["class", "all", "none"]))
    .option("--detections-max <n>", "boxes of a frame", parsePositiveInteger)
    .addOption(new Option("--units <unit>", "of boxes and points").choices(["pixel", "unit"]))
    .option("--strides <numbers>", "of the grids of a detector, with commas", parseNumbers)
    .option(
      "--anchors <file>",
      "JSON: { levels: [{ stride, sizes: [[w, h]] }], variances, centres, clip, decoded }",
    )
    .addOption(
      new Option("--corners <order>", "of boxes that the model lists itself").choices(["xyxy", "yxyx"]),
    )
    .option("--first-class <n>", "number of the first label in such a list", parseNumber)
    .option("--keypoint-labels <file|name>", "names of the points of a pose")
    .addOption(new Option("--order <order>", "of the coordinates of a point").choices(["xy", "yx"]));
}

/** Reads what the flags name, for the preset. */
export async function readPresetOptions(flags: PresetFlags): Promise<PresetOptions> {
  const { labels, keypointLabels, columns, targets, anchors, state, constant, ...rest } = flags;
  return {
    ...rest,
    ...(state === undefined ? {} : { states: state }),
    ...(constant === undefined ? {} : { constants: constant }),
    ...(labels === undefined ? {} : { labels: await readLabels(labels) }),
    ...(keypointLabels === undefined ? {} : { keypointLabels: await readLabels(keypointLabels) }),
    ...(columns === undefined ? {} : { columns: await readColumns(columns) }),
    ...(targets === undefined ? {} : { targets: await readTargets(targets) }),
    ...(anchors === undefined ? {} : { anchors: await readAnchors(anchors) }),
  };
}

const declaredSchema = manifestSchema.pick({ task: true, inputs: true, heads: true, signals: true });

/** Reads the part of a manifest that a preset would have decided. */
export async function readDeclared(file: string): Promise<PresetResult> {
  return checked(
    file,
    declaredSchema.safeParse(parseJson(file, await readText(file, false))),
    (data) => data,
  );
}

/** The presets and their titles, for the help. */
export function presetHelp(): string {
  const lines = PRESET_NAMES.map((name) => `  ${name.padEnd(20)} ${PRESETS[name].title}`);
  return `\nPresets (left out: the one that fits, where it is the only one):\n${lines.join("\n")}`;
}

function parseAffine(text: string): { scale: number; zeroPoint: number } {
  const [scale, zeroPoint = 0, ...more] = parseNumbers(text);
  if (scale === undefined || !(scale > 0) || !Number.isInteger(zeroPoint) || more.length > 0) {
    throw new InvalidArgumentError("wanted a positive scale and a whole zero point, e.g. 0.0039,-128");
  }
  return { scale, zeroPoint };
}

/** `h0=hn`, added to those before. Names of tensors may hold an equals sign: the last one counts. */
function parseState(text: string, before: Readonly<Record<string, string>> = {}): Record<string, string> {
  const [name, value] = splitPair(text);
  return { ...before, [name]: value };
}

function parseConstant(text: string, before: Readonly<Record<string, number>> = {}): Record<string, number> {
  const [name, value] = splitPair(text);
  return { ...before, [name]: parseNumber(value) };
}

function splitPair(text: string): [string, string] {
  const at = text.lastIndexOf("=");
  if (at < 1 || at === text.length - 1) throw new InvalidArgumentError("wanted name=value");
  return [text.slice(0, at), text.slice(at + 1)];
}

async function readLabels(list: string): Promise<readonly string[]> {
  if (Object.hasOwn(NAMED_LABELS, list)) return NAMED_LABELS[list]!;
  return isList(list) ? splitList(list) : parseLabels(await readText(list));
}

type Columns = NonNullable<PresetOptions["columns"]>;

/** `a,b,c` that names no file. */
function isList(text: string): boolean {
  return text.includes(",") && !existsSync(text);
}

function splitList(text: string): string[] {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
}

async function readColumns(file: string): Promise<Columns> {
  if (isList(file)) return splitList(file).map((name) => columnOf(file, name));
  const text = await readText(file);
  if (!isJson(text)) return parseLabels(text).map((line) => columnOf(file, line));
  const probe = { kind: "table", name: "table", columns: parseJson(file, text), dims: [] };
  return checked(file, inputSchema.safeParse(probe), (input) =>
    input.kind === "table" ? input.columns : [],
  );
}

/** `name`, or `name,mean,std` */
function columnOf(file: string, line: string): Columns[number] {
  const [name = "", mean, std] = line.split(",").map((part) => part.trim());
  const encoding = {
    kind: "number" as const,
    ...(mean === undefined ? {} : { mean: Number(mean) }),
    ...(std === undefined ? {} : { std: Number(std) }),
  };
  if (name !== "" && Object.values(encoding).every((value) => value === "number" || Number.isFinite(value))) {
    return { name, encoding };
  }
  throw new FieldloopError(
    "invalid_argument",
    `Read columns "${file}": "${line}", wanted name or name,mean,std`,
  );
}

async function readTargets(file: string): Promise<NonNullable<PresetOptions["targets"]>> {
  if (isList(file)) return splitList(file).map((name) => ({ name }));
  const text = await readText(file);
  if (!isJson(text)) return parseLabels(text).map((name) => ({ name }));
  const probe = { kind: "regression", name: "values", output: "output", targets: parseJson(file, text) };
  return checked(file, headSchema.safeParse(probe), (head) =>
    head.kind === "regression" ? head.targets : [],
  );
}

async function readAnchors(file: string): Promise<NonNullable<PresetOptions["anchors"]>> {
  const anchors = parseJson(file, await readText(file, false));
  const probe = {
    kind: "detection",
    name: "objects",
    format: "ssd",
    boxes: "boxes",
    scores: "scores",
    labels: ["any"],
    anchors,
    scoreThreshold: 0.5,
    iouThreshold: 0.5,
  };
  return checked(file, headSchema.safeParse(probe), (head) =>
    head.kind === "detection" && head.anchors !== undefined ? head.anchors : { levels: [] },
  );
}

type Parsed<T> =
  | { readonly success: true; readonly data: T }
  | {
      readonly success: false;
      readonly error: { readonly issues: readonly { path: readonly PropertyKey[]; message: string }[] };
    };

function checked<T, R>(file: string, parsed: Parsed<T>, take: (data: T) => R): R {
  if (parsed.success) return take(parsed.data);
  const issue = parsed.error.issues[0]!;
  throw new FieldloopError(
    "invalid_argument",
    `Read "${file}": ${issue.path.map(String).join(".")}: ${issue.message}`,
  );
}

function isJson(text: string): boolean {
  return /^\s*[[{]/.test(text);
}

function parseJson(file: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new FieldloopError("invalid_argument", `Read "${file}": ${(cause as Error).message}`, { cause });
  }
}

async function readText(file: string, mayBeList = true): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === "ENOENT";
    const list = mayBeList ? `, and no list with commas (a single one: "${file},")` : "";
    const reason = missing ? `no such file${list}` : (cause as Error).message;
    throw new FieldloopError("not_found", `Read "${file}": ${reason}`, { cause });
  }
}
