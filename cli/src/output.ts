import { toFieldloopError, type ErrorCode } from "@fieldloop/protocol";
import pc from "picocolors";

/** Exit codes of the command line: 0 done, 1 the work failed, 2 the call itself was wrong. */
export const EXIT = { ok: 0, failed: 1, usage: 2 } as const;

/** One JSON document on standard output, for programs. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

/** Progress and notes for people go to standard error, so that a pipe sees only results. */
export function note(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** Columns padded to their widest cell; the first row is the heading. */
export function printTable(rows: readonly (readonly string[])[]): void {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, at) => (widths[at] = Math.max(widths[at] ?? 0, cell.length)));
  rows.forEach((row, index) => {
    const line = row.map((cell, at) => (at === row.length - 1 ? cell : cell.padEnd(widths[at]!))).join("  ");
    process.stdout.write(`${index === 0 ? pc.dim(line) : line}\n`);
  });
}

/** What only another call can mend. */
const USAGE_CODES: ReadonlySet<ErrorCode> = new Set([
  "invalid_argument",
  "invalid_body",
  "source_unknown",
  "preset_unknown",
]);

/** Prints a coded error and returns the exit code for it. */
export function reportError(error: unknown): number {
  const coded = toFieldloopError(error);
  note(`${pc.red("error")} ${coded.code}: ${coded.message}`);
  if (coded.code === "internal" && process.env.FIELDLOOP_DEBUG) note(String((error as Error)?.stack));
  return USAGE_CODES.has(coded.code) ? EXIT.usage : EXIT.failed;
}

/** Wraps a command's action: errors are printed by code and decide the exit code. */
export function action<Args extends unknown[]>(
  work: (...args: Args) => Promise<void>,
): (...args: Args) => Promise<void> {
  return async (...args) => {
    try {
      await work(...args);
    } catch (error) {
      process.exitCode = reportError(error);
    }
  };
}
