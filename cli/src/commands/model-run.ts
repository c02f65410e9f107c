import { decidingHeadOf, FieldloopError, toFieldloopError, type Manifest } from "@fieldloop/protocol";
import type { Frame, Prediction } from "@fieldloop/runtime";
import { encodeJpeg, openModel, openPackage, type LoadedModel } from "@fieldloop/runtime/node";
import type { Command } from "commander";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { EXIT, action, note, printJson, printTable } from "../output.js";
import { readFrames, readTruth, type NamedFrame } from "./model-inputs.js";
import { parsePositiveInteger, versionOf } from "./model-options.js";
import { headToJson, nodeToJson, nodesText, outcomeText } from "./pipeline-result.js";

interface RunFlags {
  readonly variant?: string;
  readonly threads: number;
  readonly labels?: string;
  readonly labelColumn?: string;
  readonly limit?: number;
  readonly save?: string;
  readonly all?: boolean;
  readonly json?: boolean;
}

/** Predictions that are printed without `--all`. */
const SHOWN_MAX = 20;
const LABELS_SHOWN_MAX = 10;
const PROGRESS_EVERY_MS = 1_000;
/** Of saved pictures, 1..100. */
const PICTURE_QUALITY = 92;

interface Outcome {
  readonly name: string;
  readonly truth?: number;
  readonly prediction?: Prediction;
  readonly error?: { readonly code: string; readonly message: string };
}

export function registerModelRun(model: Command): void {
  model
    .command("run")
    .description("Predict on files through the same API as the device agent")
    .argument("<dir>", "package folder")
    .argument(
      "<input...>",
      "images, folders of images, sound, video, CSV files of windows or rows, IDX files of images (the last two also .gz), float32 as .bin, 8-bit codes as tensor:PATH?scale=…&zero=…, and any source that an agent takes",
    )
    .option("--labels <file>", "true classes: IDX, or text with one label a line; adds the accuracy")
    .option("--label-column <name>", "column of the rows that holds the true label; adds the accuracy")
    .option("--variant <name>", "instead of the one that suits this machine")
    .option("--threads <n>", "threads inside one operator", parsePositiveInteger, 1)
    .option("--limit <n>", "stop after so many frames", parsePositiveInteger)
    .option("--save <folder>", "writes each picture that an image-to-image model makes, as JPEG")
    .option("--all", `print every prediction, not the first ${SHOWN_MAX}`)
    .option("--json", "every prediction as JSON")
    .action(action(run));
}

async function run(dir: string, inputs: string[], flags: RunFlags): Promise<void> {
  const pkg = await openPackage(dir);
  const head = decidingHeadOf(pkg.manifest)?.head;
  const truth = flags.labels === undefined ? undefined : await readTruth(flags.labels, head?.labels ?? []);
  const model = await openModel(pkg, {
    threadCount: flags.threads,
    ...(flags.variant === undefined ? {} : { variant: flags.variant }),
  });
  let outcomes: Outcome[];
  try {
    const truthOf = (frame: Frame, at: number): number | undefined =>
      flags.labelColumn === undefined
        ? truth?.[at]
        : classInColumn(frame, flags.labelColumn, head?.labels ?? [], at);
    const save = flags.save === undefined ? undefined : await pictureSaver(flags.save, pkg.manifest);
    outcomes = await predictAll(model, readFrames(inputs, pkg.manifest), {
      truthOf,
      limit: flags.limit ?? Number.POSITIVE_INFINITY,
      save,
    });
  } finally {
    await model.release();
  }
  const summary = summarize(outcomes);
  if (flags.json) {
    printJson({
      version: versionOf(pkg.manifest),
      variant: model.variant.name,
      ...summary,
      predictions: outcomes.map(toJson),
    });
  } else print(pkg.manifest, model.variant.name, outcomes, summary, flags);
  if (summary.failed > 0) process.exitCode = EXIT.failed;
}

interface PredictOptions {
  readonly truthOf: (frame: Frame, at: number) => number | undefined;
  readonly limit: number;
  readonly save: PictureSaver | undefined;
}

type PictureSaver = (prediction: Prediction, at: number) => Promise<void>;

/** @throws FieldloopError `invalid_argument` where the model makes no pictures */
async function pictureSaver(folder: string, manifest: Manifest): Promise<PictureSaver> {
  if (!manifest.heads.some(({ kind }) => kind === "image")) {
    const kinds = manifest.heads.map(({ kind }) => kind).join(", ");
    throw new FieldloopError("invalid_argument", `Save pictures: the model has no image head but ${kinds}`);
  }
  await mkdir(folder, { recursive: true });
  return async (prediction, at) => {
    for (const head of prediction.heads) {
      if (head.kind !== "image") continue;
      const { data, width, height, channels } = head;
      const jpeg = await encodeJpeg({ kind: "pixels", data, width, height, channels }, PICTURE_QUALITY);
      await writeFile(join(folder, `${String(at).padStart(6, "0")}.jpg`), jpeg);
    }
  };
}

async function predictAll(
  model: LoadedModel,
  frames: AsyncGenerator<NamedFrame>,
  { truthOf, limit, save }: PredictOptions,
): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  let noted = performance.now();
  for await (const { name, frame, fresh } of frames) {
    if (outcomes.length >= limit) break;
    if (fresh === true) model.resetStream();
    const trueClass = truthOf(frame, outcomes.length);
    const known = trueClass === undefined ? {} : { truth: trueClass };
    try {
      const prediction = await model.predict(frame);
      await save?.(prediction, outcomes.length);
      outcomes.push({ name, ...known, prediction: withoutPicture(prediction) });
    } catch (error) {
      const { code, message } = toFieldloopError(error);
      outcomes.push({ name, ...known, error: { code, message } });
    }
    if (performance.now() - noted > PROGRESS_EVERY_MS) {
      noted = performance.now();
      note(outcomes.length === 1 ? "1 frame" : `${outcomes.length} frames`);
    }
  }
  return outcomes;
}

/** Pictures are large and their bytes are not printed: over a long video they would fill the memory. */
function withoutPicture(prediction: Prediction): Prediction {
  if (!prediction.heads.some(({ kind }) => kind === "image")) return prediction;
  const heads = prediction.heads.map((head) =>
    head.kind === "image" ? { ...head, data: new Uint8Array(0) } : head,
  );
  return { ...prediction, heads };
}

/** @throws FieldloopError `invalid_argument` where the frames are no rows, have no such column, or it holds no label of the model */
function classInColumn(frame: Frame, column: string, labels: readonly string[], at: number): number {
  const refuse = (what: string): FieldloopError =>
    new FieldloopError("invalid_argument", `Read label of row ${at + 1}: ${what}`);
  if (frame.kind !== "row") throw refuse(`--label-column is for rows of tables, this is ${frame.kind} data`);
  if (!Object.hasOwn(frame.values, column)) {
    throw refuse(`no column "${column}", there are ${Object.keys(frame.values).join(", ").slice(0, 200)}`);
  }
  const text = String(frame.values[column]);
  const index = labels.indexOf(text);
  if (index < 0) throw refuse(`"${text.slice(0, 80)}" is no label of the model`);
  return index;
}

interface Summary {
  readonly frames: number;
  readonly failed: number;
  readonly latencyMsP50: number | null;
  /** Share of frames with a known class whose class was found; null without labels. */
  readonly accuracy: number | null;
  readonly labelled: number;
  /** How often each label was found. */
  readonly found: Readonly<Record<string, number>>;
}

function summarize(outcomes: readonly Outcome[]): Summary {
  const predictions = outcomes.flatMap(({ prediction }) => (prediction === undefined ? [] : [prediction]));
  const latencies = predictions.map(({ latencyMs }) => latencyMs).sort((a, b) => a - b);
  const labelled = outcomes.filter(({ truth }) => truth !== undefined);
  const right = labelled.filter(({ truth, prediction }) => prediction?.class === truth).length;
  return {
    frames: outcomes.length,
    failed: outcomes.length - predictions.length,
    latencyMsP50: latencies[Math.floor(latencies.length / 2)] ?? null,
    accuracy: labelled.length === 0 ? null : right / labelled.length,
    labelled: labelled.length,
    found: countLabels(predictions),
  };
}

/** Most often found first. */
function countLabels(predictions: readonly Prediction[]): Record<string, number> {
  const counts = new Map<string, number>();
  for (const { label } of predictions) counts.set(label, (counts.get(label) ?? 0) + 1);
  return Object.fromEntries([...counts].sort((a, b) => b[1] - a[1]));
}

function toJson({ name, truth, prediction, error }: Outcome): unknown {
  if (prediction === undefined) return { name, error };
  const { class: predictedClass, label, confidence, latencyMs, signals, boxes, heads, nodes } = prediction;
  return {
    name,
    ...(truth === undefined ? {} : { truth }),
    class: predictedClass,
    label,
    confidence,
    latencyMs,
    signals,
    ...(boxes === undefined ? {} : { boxes }),
    heads: heads.map(headToJson),
    ...(nodes === undefined ? {} : { nodes: nodes.map(nodeToJson) }),
  };
}

function print(
  manifest: Manifest,
  variant: string,
  outcomes: readonly Outcome[],
  summary: Summary,
  flags: RunFlags,
): void {
  const shown = flags.all ? outcomes : outcomes.slice(0, SHOWN_MAX);
  printTable([
    ["input", "label", "confidence", "ms", lastColumn(manifest)],
    ...shown.map((outcome) => rowOf(outcome, manifest)),
  ]);
  const hidden = outcomes.length - shown.length;
  if (hidden > 0) process.stdout.write(`… and ${hidden} more (--all or --json shows them)\n`);
  const parts = [
    `${versionOf(manifest)} (${variant}): ${summary.frames} ${summary.frames === 1 ? "frame" : "frames"}`,
  ];
  if (summary.failed > 0) parts.push(`${summary.failed} failed`);
  if (summary.latencyMsP50 !== null) parts.push(`p50 ${summary.latencyMsP50.toFixed(2)} ms`);
  if (summary.accuracy !== null)
    parts.push(`accuracy ${(summary.accuracy * 100).toFixed(2)} % of ${summary.labelled}`);
  process.stdout.write(`${parts.join(", ")}\n`);
  const found = Object.entries(summary.found);
  if (decidingHeadOf(manifest) === undefined || found.length === 0) return;
  const predicted = summary.frames - summary.failed;
  const shares = found
    .slice(0, LABELS_SHOWN_MAX)
    .map(([label, count]) => `${label} ${((count / predicted) * 100).toFixed(1)} %`);
  process.stdout.write(`found: ${shares.join(", ")}${found.length > LABELS_SHOWN_MAX ? ", …" : ""}\n`);
}

/** Where labels say it all, the last column has the signals. */
function lastColumn(manifest: Manifest): string {
  if (manifest.nodes.length > 0) return "nodes";
  const kinds = manifest.heads.map(({ kind }) => kind).filter((kind) => kind !== "classification");
  if (kinds.length === 0) return "signals";
  return kinds.includes("detection") ? "boxes (x0 y0 x1 y1 in 0..1)" : [...new Set(kinds)].join(", ");
}

function rowOf({ name, prediction, error }: Outcome, manifest: Manifest): string[] {
  if (prediction === undefined) return [name, "-", "-", "-", `${error?.code}: ${error?.message}`];
  const decides = decidingHeadOf(manifest) !== undefined;
  return [
    name,
    decides ? prediction.label : "-",
    decides ? prediction.confidence.toFixed(4) : "-",
    prediction.latencyMs.toFixed(2),
    lastOf(prediction, manifest) || "-",
  ];
}

function lastOf({ nodes, heads, signals }: Prediction, manifest: Manifest): string {
  if (nodes !== undefined) return nodesText(nodes);
  const found = heads.map((head) => outcomeText(head, namesOf(manifest, head.name))).filter(Boolean);
  if (found.length > 0 || manifest.heads.some(({ kind }) => kind === "detection")) return found.join("; ");
  return Object.entries(signals)
    .map(([signal, value]) => `${signal} ${value.toFixed(3)}`)
    .join(", ");
}

/** Names of a head's numbers: a regression's targets, the labels of others. */
function namesOf(manifest: Manifest, name: string): readonly string[] {
  const head = manifest.heads.find((each) => each.name === name);
  if (head?.kind === "regression") return head.targets.map((target) => target.name);
  return head !== undefined && "labels" in head ? head.labels : [];
}
