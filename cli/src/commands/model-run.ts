import { decidingHeadOf, FieldloopError, toFieldloopError, type Manifest } from "@fieldloop/protocol";
import type { Frame, Prediction } from "@fieldloop/runtime";
import { openModel, openPackage, type LoadedModel } from "@fieldloop/runtime/node";
import type { Command } from "commander";
import { EXIT, action, note, printJson, printTable } from "../output.js";
import { readFrames, readTruth, type NamedFrame } from "./model-inputs.js";
import { parsePositiveInteger, versionOf } from "./model-options.js";
import { nodeToJson, nodesText } from "./pipeline-result.js";

interface RunFlags {
  readonly variant?: string;
  readonly threads: number;
  readonly labels?: string;
  readonly labelColumn?: string;
  readonly limit?: number;
  readonly all?: boolean;
  readonly json?: boolean;
}

/** Predictions that are printed without `--all`. */
const SHOWN_MAX = 20;
const LABELS_SHOWN_MAX = 10;
const PROGRESS_EVERY_MS = 1_000;

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
    outcomes = await predictAll(model, readFrames(inputs, pkg.manifest), truthOf, flags.limit);
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

async function predictAll(
  model: LoadedModel,
  frames: AsyncGenerator<NamedFrame>,
  truthOf: (frame: Frame, at: number) => number | undefined,
  limit = Number.POSITIVE_INFINITY,
): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  let noted = performance.now();
  for await (const { name, frame, fresh } of frames) {
    if (outcomes.length >= limit) break;
    if (fresh === true) model.resetStream();
    const trueClass = truthOf(frame, outcomes.length);
    const known = trueClass === undefined ? {} : { truth: trueClass };
    try {
      outcomes.push({ name, ...known, prediction: await model.predict(frame) });
    } catch (error) {
      const { code, message } = toFieldloopError(error);
      outcomes.push({ name, ...known, error: { code, message } });
    }
    if (performance.now() - noted > PROGRESS_EVERY_MS) {
      noted = performance.now();
      note(`${outcomes.length} frames`);
    }
  }
  return outcomes;
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
  const { class: predictedClass, label, confidence, latencyMs, signals, boxes, nodes } = prediction;
  return {
    name,
    ...(truth === undefined ? {} : { truth }),
    class: predictedClass,
    label,
    confidence,
    latencyMs,
    signals,
    ...(boxes === undefined ? {} : { boxes }),
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
  const detecting = manifest.task === "detection";
  const last = detecting ? "boxes (x0 y0 x1 y1 in 0..1)" : "signals";
  printTable([
    ["input", "label", "confidence", "ms", manifest.nodes.length > 0 ? "nodes" : last],
    ...shown.map((outcome) => rowOf(outcome, detecting)),
  ]);
  const hidden = outcomes.length - shown.length;
  if (hidden > 0) process.stdout.write(`… and ${hidden} more (--all or --json shows them)\n`);
  const parts = [`${versionOf(manifest)} (${variant}): ${summary.frames} frames`];
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

function rowOf({ name, prediction, error }: Outcome, detecting: boolean): string[] {
  if (prediction === undefined) return [name, "-", "-", "-", `${error?.code}: ${error?.message}`];
  const single = detecting
    ? (prediction.boxes ?? [])
        .map((box) => [box.x0, box.y0, box.x1, box.y1].map((at) => at.toFixed(3)).join(" "))
        .join("; ")
    : Object.entries(prediction.signals)
        .map(([signal, value]) => `${signal} ${value.toFixed(3)}`)
        .join(", ");
  const last = prediction.nodes === undefined ? single : nodesText(prediction.nodes);
  return [
    name,
    prediction.label,
    prediction.confidence.toFixed(4),
    prediction.latencyMs.toFixed(2),
    last || "-",
  ];
}
