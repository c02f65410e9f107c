import { formatModelVersion, isFinal, TRAINING, type TrainingRun } from "@fieldloop/protocol";
import type { Command } from "commander";
import { action, EXIT, note, printJson, printTable } from "../output.js";
import {
  fleetClient,
  queryOf,
  readCount,
  readModelVersion,
  readNumber,
  takeItems,
  timeText,
  watchUntil,
  withFleetOptions,
  type FleetOptions,
} from "./fleet-options.js";

interface StartOptions extends FleetOptions {
  snapshot: string;
  steps?: number;
  batch?: number;
  rate?: number;
  trainable?: string;
  replayShare?: number;
  validationShare?: number;
  seed?: number;
  watch?: boolean;
}

export function registerTrainCommand(program: Command): void {
  const train = program
    .command("train")
    .description("Train a candidate version from a base version and a snapshot");
  withFleetOptions(
    train
      .command("start <base>")
      .description("Train from MODEL@VERSION")
      .requiredOption("--snapshot <sha256>", "labelled samples to learn from")
      .option("--steps <count>", "optimizer steps", readCount)
      .option("--batch <count>", "inputs in one step", readCount)
      .option("--rate <number>", "step size", readNumber)
      .option("--trainable <what>", "head, last or all")
      .option("--replay-share <share>", "of each batch drawn from old data, 0..0.9", readNumber)
      .option("--validation-share <share>", "of the snapshot kept out for the evaluation", readNumber)
      .option("--seed <number>", "same seed, same candidate", readNumber)
      .option("--watch", "stay until it ends"),
  ).action(action(start));
  withFleetOptions(
    train
      .command("list")
      .description("Training runs, newest first")
      .option("--model <name>", "of one model")
      .option("--limit <count>", "at most", readCount, 20),
  ).action(action(list));
  withFleetOptions(
    train.command("show <run>").description("One run: progress, candidate, or why it failed"),
  ).action(action(show));
  withFleetOptions(
    train.command("watch <run>").description("Follow it until it ends; exit code 0 only if it succeeded"),
  ).action(action(watch));
  withFleetOptions(train.command("cancel <run>").description("Stop a run")).action(action(cancel));
}

async function start(base: string, options: StartOptions): Promise<void> {
  const { model, version } = readModelVersion(base);
  const { snapshot, steps, batch, rate, trainable, replayShare, validationShare, seed } = options;
  const settings = { steps, batch, rate, trainable, replayShare, validationShare, seed };
  const run = await fleetClient(options).post<TrainingRun>("/api/v1/training-runs", {
    model,
    baseVersion: version,
    snapshot,
    settings,
  });
  if (options.watch) return watch(run.run, options);
  if (options.json) return printJson(run);
  note(`${run.run}: ${run.state}`);
}

async function list(options: FleetOptions & { model?: string; limit: number }): Promise<void> {
  const path = `/api/v1/training-runs${queryOf({ model: options.model })}`;
  const runs = await takeItems(fleetClient(options).list<TrainingRun>(path), options.limit);
  if (options.json) return printJson(runs);
  printTable([
    ["RUN", "BASE", "STATE", "STEP", "LOSS", "CANDIDATE", "CREATED"],
    ...runs.map((run) => [
      run.run,
      formatModelVersion(run.model, run.baseVersion),
      run.state,
      `${run.progress.step}/${run.progress.steps}`,
      lossText(run),
      candidateText(run),
      timeText(run.created),
    ]),
  ]);
}

async function show(id: string, options: FleetOptions): Promise<void> {
  const run = await read(id, options);
  if (options.json) return printJson(run);
  printTable([
    ["RUN", run.run],
    ["base", formatModelVersion(run.model, run.baseVersion)],
    ["snapshot", run.snapshot],
    [
      "state",
      run.errorCode === null ? run.state : `${run.state}: ${run.errorCode}: ${run.errorMessage ?? ""}`,
    ],
    [
      "progress",
      `step ${run.progress.step} of ${run.progress.steps}, loss ${lossText(run)}, ${run.progress.message}`,
    ],
    ["candidate", candidateText(run)],
    ["time", `${timeText(run.started)} to ${timeText(run.finished)}`],
    ["settings", JSON.stringify(run.settings)],
  ]);
}

async function watch(id: string, options: FleetOptions): Promise<void> {
  const ended = await watchUntil(
    () => read(id, options),
    progressText,
    ({ state }) => isFinal(TRAINING, state),
    note,
  );
  if (options.json) printJson(ended);
  else
    note(
      ended.candidate === null
        ? `${ended.state}: ${ended.errorMessage ?? ""}`
        : `candidate ${candidateText(ended)}`,
    );
  if (ended.state !== "succeeded") process.exitCode = EXIT.failed;
}

function progressText(run: TrainingRun): string {
  const { step, steps, message } = run.progress;
  return `${run.state}: step ${step} of ${steps}, loss ${lossText(run)}, ${message}`;
}

async function cancel(id: string, options: FleetOptions): Promise<void> {
  const run = await fleetClient(options).post<TrainingRun>(
    `/api/v1/training-runs/${encodeURIComponent(id)}/cancel`,
  );
  if (options.json) return printJson(run);
  note(`${run.run}: ${run.state}`);
}

function read(id: string, options: FleetOptions): Promise<TrainingRun> {
  return fleetClient(options).get<TrainingRun>(`/api/v1/training-runs/${encodeURIComponent(id)}`);
}

function lossText({ progress }: TrainingRun): string {
  return progress.loss === null ? "–" : progress.loss.toFixed(4);
}

function candidateText(run: TrainingRun): string {
  return run.candidate === null ? "–" : formatModelVersion(run.model, run.candidate);
}
