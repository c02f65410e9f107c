import { readFile } from "node:fs/promises";
import { FieldloopError } from "@fieldloop/protocol";
import {
  CONFORMANCE_STATUSES,
  compareWithBaseline,
  runConformance,
  type BaselineDifference,
  type ConformanceReport,
} from "@fieldloop/runtime/node";
import type { Command } from "commander";
import { action, note, printJson, printTable } from "../output.js";
import { parsePositiveInteger } from "./model-options.js";

interface ConformanceFlags {
  readonly baseline?: string;
  readonly processes: number;
  readonly timeout: number;
  readonly reasons?: boolean;
  readonly json?: boolean;
}

/** Lines of differences and reasons that go to a terminal. */
const SHOWN_MAX = 40;
const PROGRESS_EVERY = 250;

export function registerModelConformance(model: Command): void {
  model
    .command("conformance")
    .description(
      "Run operator test cases of the ONNX standard through this runtime, each in a process that may die",
    )
    .argument("<path>", "folder of ONNX backend tests, or a file of cases as JSON lines (.gz too)")
    .option("--baseline <tsv>", "statuses to hold the run against: category, test, set, status, why")
    .option("--processes <n>", "child processes side by side", parsePositiveInteger, 2)
    .option("--timeout <seconds>", "for one case", parsePositiveInteger, 20)
    .option("--reasons", "name the reason for every case that did not pass")
    .option("--json", "result as JSON")
    .action(action(conformance));
}

async function conformance(path: string, flags: ConformanceFlags): Promise<void> {
  const baseline = flags.baseline === undefined ? undefined : await readBaseline(flags.baseline);
  const started = performance.now();
  const report = await runConformance(path, {
    processes: flags.processes,
    timeoutMs: flags.timeout * 1000,
    onCase: (done) => {
      if (done % PROGRESS_EVERY === 0) note(`${done} cases`);
    },
  });
  const seconds = (performance.now() - started) / 1000;
  const differences = baseline === undefined ? undefined : compareWithBaseline(report, baseline);
  const crashed = report.cases.filter(({ status }) => status === "crash" || status === "timeout");
  if (flags.json) printJson({ ...report, seconds, differences: differences ?? null });
  else printReport(report, seconds, differences, flags.reasons === true);
  if (crashed.length > 0) {
    throw new FieldloopError(
      "model_run_failed",
      `Run conformance cases: ${crashed.length} ended their process, the first is "${crashed[0]!.name}": ${crashed[0]!.why}`,
    );
  }
  if (differences !== undefined && differences.length > 0) {
    throw new FieldloopError(
      "conflict",
      `Hold conformance against the baseline: ${differences.length} cases differ, the first is "${differences[0]!.name}"`,
    );
  }
}

async function readBaseline(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    throw new FieldloopError("not_found", `Read baseline "${file}": ${(cause as Error).message}`, { cause });
  }
}

function printReport(
  report: ConformanceReport,
  seconds: number,
  differences: readonly BaselineDifference[] | undefined,
  withReasons: boolean,
): void {
  const { cases, summary } = report;
  const statuses = CONFORMANCE_STATUSES.filter((status) => cases.some((entry) => entry.status === status));
  printTable([
    ["category", ...statuses, "cases"],
    ...Object.entries(summary).map(([category, counts]) => [
      category,
      ...statuses.map((status) => String(counts[status] ?? 0)),
      String(Object.values(counts).reduce((sum, count) => sum + count, 0)),
    ]),
  ]);
  const failed = cases.filter(({ status }) => status !== "pass");
  if (withReasons) {
    printTable([["case", "status", "why"], ...failed.map(({ name, status, why }) => [name, status, why])]);
  } else if (failed.length > 0) {
    process.stdout.write(`${failed.length} cases did not pass; --reasons names why\n`);
  }
  if (differences !== undefined) {
    process.stdout.write(
      `baseline: ${differences.length === 0 ? "every status is equal" : `${differences.length} differ`}\n`,
    );
    for (const { name, status, baseline, why } of differences.slice(0, SHOWN_MAX)) {
      process.stdout.write(`  ${name}: ${status ?? "not run"}, baseline ${baseline ?? "has none"} ${why}\n`);
    }
  }
  process.stdout.write(`${cases.length} cases in ${seconds.toFixed(1)} s\n`);
}
