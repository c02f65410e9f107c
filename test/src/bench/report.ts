import { cpus } from "node:os";
import { writeFileSync } from "node:fs";

/** One measured number, where it can be beside the limit or the peer that was measured in the same run. */
export interface Figure {
  readonly id: string;
  readonly what: string;
  readonly value: number;
  readonly unit: string;
  readonly peer?: { readonly what: string; readonly value: number };
  /** What the project holds itself to. */
  readonly bar?: { readonly at: "most" | "least"; readonly value: number };
}

export interface Report {
  readonly suite: string;
  readonly machine: Readonly<Record<string, string | number>>;
  readonly seconds: number;
  readonly figures: readonly (Figure & { readonly ratio?: number; readonly met?: boolean })[];
}

export function makeReport(suite: string, figures: readonly Figure[], seconds: number): Report {
  const machine = {
    cpu: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    node: process.versions.node,
    date: new Date().toISOString(),
  };
  const judged = figures.map((figure) => ({ ...figure, ...ratioOf(figure), ...judge(figure) }));
  return { suite, machine, seconds: Math.round(seconds), figures: judged };
}

function ratioOf({ value, peer }: Figure): { ratio?: number } {
  return peer && peer.value > 0 ? { ratio: Number((value / peer.value).toPrecision(3)) } : {};
}

function judge({ value, bar }: Figure): { met?: boolean } {
  if (!bar) return {};
  return { met: bar.at === "most" ? value <= bar.value : value >= bar.value };
}

export function printReport(report: Report): void {
  const { suite, machine, seconds, figures } = report;
  process.stdout.write(
    `${suite}: ${machine["cpu"]}, ${machine["cores"]} cores, Node ${machine["node"]}, ${seconds} s\n\n`,
  );
  const rows = figures.map(({ what, value, unit, peer, ratio, bar, met }) => [
    what,
    `${readable(value)} ${unit}`,
    peer ? `${readable(peer.value)} ${peer.what}` : "",
    ratio === undefined ? "" : `${readable(ratio)}×`,
    bar ? `${met ? "ok" : "NOT MET"}, at ${bar.at} ${readable(bar.value)}` : "",
  ]);
  const table = [["figure", "measured", "beside, in the same run", "ratio", "bar"], ...rows];
  const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)));
  for (const row of table) {
    process.stdout.write(
      `${row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join("  ")
        .trimEnd()}\n`,
    );
  }
}

export function writeReport(path: string, report: Report): void {
  writeFileSync(path, `${JSON.stringify(report, null, 2)}\n`);
}

function readable(value: number): string {
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toLocaleString("en-US", { maximumFractionDigits: digits, minimumFractionDigits: 0 });
}

/** Says what is being measured, on standard error: the report alone goes to standard output. */
export function progress(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** What a suite needs is not here; its message says what. */
export class SuiteUnavailable extends Error {
  override readonly name = "SuiteUnavailable";
}

/** The whole takes long: each figure is said as soon as it is there. */
export function tell(figures: Figure[]): Figure[] {
  for (const { id, value, unit, peer } of figures) {
    progress(`  ${id}: ${value} ${unit}${peer ? `, ${peer.what} ${peer.value}` : ""}`);
  }
  return figures;
}

export function median(values: readonly number[], share = 0.5): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}
