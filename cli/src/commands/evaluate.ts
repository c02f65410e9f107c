import { FieldloopError, formatModelVersion, type Evaluation } from "@fieldloop/protocol";
import type { Command } from "commander";
import { action, EXIT, note, printJson, printTable } from "../output.js";
import {
  fleetClient,
  proportionText,
  queryOf,
  readCount,
  readModelVersion,
  takeItems,
  timeText,
  withFleetOptions,
  type FleetOptions,
} from "./fleet-options.js";

/** An evaluation runs while the request waits. */
const RUN_TIMEOUT_MS = 600_000;

export function registerEvaluateCommand(program: Command): void {
  const evaluate = program
    .command("evaluate")
    .description("Compare two versions on labelled samples and on old data");
  withFleetOptions(
    evaluate
      .command("run <candidate>")
      .description("Evaluate MODEL@VERSION against another version; exit code 0 only if it passed")
      .requiredOption("--base <version>", "the version to compare with", readCount)
      .requiredOption("--snapshot <sha256>", "labelled samples; those trained on are left out"),
  ).action(action(run));
  withFleetOptions(
    evaluate
      .command("list")
      .description("Evaluations, newest first")
      .option("--model <name>", "of one model")
      .option("--limit <count>", "at most", readCount, 20),
  ).action(action(list));
  withFleetOptions(
    evaluate.command("show <evaluation>").description("One evaluation: slices, classes, reasons"),
  ).action(action(show));
}

async function run(
  candidate: string,
  options: FleetOptions & { base: number; snapshot: string },
): Promise<void> {
  const { model, version } = readModelVersion(candidate);
  if (version === options.base)
    throw new FieldloopError("invalid_argument", `Evaluate: "${candidate}" cannot be compared with itself`);
  const body = { model, base: options.base, candidate: version, snapshot: options.snapshot };
  const evaluation = await fleetClient(options, RUN_TIMEOUT_MS).post<Evaluation>("/api/v1/evaluations", body);
  if (options.json) printJson(evaluation);
  else report(evaluation);
  if (evaluation.verdict !== "passed") process.exitCode = EXIT.failed;
}

async function list(options: FleetOptions & { model?: string; limit: number }): Promise<void> {
  const path = `/api/v1/evaluations${queryOf({ model: options.model })}`;
  const evaluations = await takeItems(fleetClient(options).list<Evaluation>(path), options.limit);
  if (options.json) return printJson(evaluations);
  printTable([
    ["EVALUATION", "CANDIDATE", "BASE", "VERDICT", "CREATED", "REASONS"],
    ...evaluations.map((one) => [
      one.evaluation,
      formatModelVersion(one.model, one.candidate),
      formatModelVersion(one.model, one.base),
      one.verdict,
      timeText(one.created),
      one.reasons.join("; "),
    ]),
  ]);
}

async function show(id: string, options: FleetOptions): Promise<void> {
  const evaluation = await fleetClient(options).get<Evaluation>(
    `/api/v1/evaluations/${encodeURIComponent(id)}`,
  );
  if (options.json) return printJson(evaluation);
  report(evaluation);
}

function report(evaluation: Evaluation): void {
  const { model, base, candidate } = evaluation;
  for (const slice of evaluation.slices) {
    const perClass = new Map(slice.base.perClass.map(({ label, recall }) => [label, recall]));
    printTable([
      [slice.slice.toUpperCase(), formatModelVersion(model, base), formatModelVersion(model, candidate)],
      ["accuracy", proportionText(slice.base.accuracy), proportionText(slice.candidate.accuracy)],
      ["only this one right", String(slice.onlyBaseRight), String(slice.onlyCandidateRight)],
      ...slice.candidate.perClass.map(({ label, recall }) => [
        `recall ${label}`,
        proportionText(perClass.get(label)!),
        proportionText(recall),
      ]),
    ]);
  }
  note(`${evaluation.verdict}: ${evaluation.reasons.join("; ")}`);
}
