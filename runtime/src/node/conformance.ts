import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { CaseResult, ConformanceCase, ConformanceStatus } from "./conformance-case.js";
import { readCases } from "./conformance-read.js";
import { ScratchFailure, ScratchProcess } from "./scratch-process.js";

export interface ConformanceOptions {
  /** Child processes side by side. Default 2. */
  readonly processes?: number;
  /** For one case. Default 20 s. */
  readonly timeoutMs?: number;
  /** Of one child. Default 2 GiB. */
  readonly rssBytesMax?: number;
  readonly onCase?: (done: number, result: CaseReport) => void;
}

export interface CaseReport extends CaseResult {
  readonly category: string;
  readonly name: string;
  readonly set: string;
}

export interface ConformanceReport {
  /** In the order of the source. */
  readonly cases: readonly CaseReport[];
  /** Number of cases by category, then status. */
  readonly summary: Readonly<Record<string, Readonly<Partial<Record<ConformanceStatus, number>>>>>;
}

/**
 * Runs every case of a file or folder (see {@link readCases}) through the runtime, in child processes that are replaced
 * when one dies, so that a native crash costs its own case alone.
 * @throws FieldloopError what {@link readCases} throws
 */
export async function runConformance(
  path: string,
  options: ConformanceOptions = {},
): Promise<ConformanceReport> {
  const source = readCases(path);
  const within = await mkdtemp(join(tmpdir(), "fieldloop-conformance-"));
  const results: CaseReport[] = [];
  let started = 0;
  let done = 0;
  const worker = async () => {
    const child = new ScratchProcess(new URL("./conformance-entry.js", import.meta.url), {
      timeoutMs: options.timeoutMs ?? 20_000,
      rssBytesMax: options.rssBytesMax ?? 2 * 2 ** 30,
    });
    try {
      for (let next = await source.next(); next.done !== true; next = await source.next()) {
        const at = started++;
        const { cat: category, name, set } = next.value;
        const result = { category, name, set, ...(await runInChild(child, { entry: next.value, within })) };
        results[at] = result;
        options.onCase?.(++done, result);
      }
    } finally {
      await child.stop();
    }
  };
  try {
    await Promise.all(Array.from({ length: options.processes ?? 2 }, worker));
  } finally {
    await rm(within, { recursive: true, force: true });
  }
  return { cases: results, summary: summarize(results) };
}

async function runInChild(
  child: ScratchProcess,
  request: { readonly entry: ConformanceCase; readonly within: string },
): Promise<CaseResult> {
  try {
    return (await child.ask(request)) as CaseResult;
  } catch (error) {
    if (!(error instanceof ScratchFailure)) throw error;
    return { status: error.end === "timed_out" ? "timeout" : "crash", why: error.message };
  }
}

function summarize(cases: readonly CaseReport[]): ConformanceReport["summary"] {
  const summary: Record<string, Partial<Record<ConformanceStatus, number>>> = {};
  for (const { category, status } of cases) {
    const counts = (summary[category] ??= {});
    counts[status] = (counts[status] ?? 0) + 1;
  }
  return summary;
}

/** Where a run and a recorded one disagree. */
export interface BaselineDifference {
  readonly name: string;
  readonly set: string;
  readonly status: string | undefined;
  readonly baseline: string | undefined;
  readonly why: string;
}

/**
 * Compares statuses with a table of tab-separated `category, test, set, status, why` with a heading line.
 * @returns one entry for each case whose status differs or that only one side has
 */
export function compareWithBaseline(report: ConformanceReport, table: string): BaselineDifference[] {
  const recorded = new Map<string, string>();
  for (const line of table.split(/\r?\n/).slice(1)) {
    const [category, name, set, status] = line.split("\t");
    if (status !== undefined) recorded.set(`${category}\t${name}\t${set}`, status);
  }
  const differences: BaselineDifference[] = [];
  for (const { category, name, set, status, why } of report.cases) {
    const key = `${category}\t${name}\t${set}`;
    const baseline = recorded.get(key);
    recorded.delete(key);
    if (baseline !== status) differences.push({ name, set, status, baseline, why });
  }
  for (const [key, baseline] of recorded) {
    const [, name = "", set = ""] = key.split("\t");
    differences.push({ name, set, status: undefined, baseline, why: "not run" });
  }
  return differences;
}
