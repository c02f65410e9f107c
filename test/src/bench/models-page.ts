import { readFile, writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import { basename } from "node:path";
import { PRESETS, PRESET_NAMES } from "@fieldloop/runtime";
import type { ModelRow } from "./models.js";

/** Puts the measured table and the list of presets between their markers. @throws Error where the page has no such markers */
export async function writeModelsPage(path: string, rows: readonly ModelRow[]): Promise<void> {
  const page = await readFile(path, "utf8");
  await writeFile(path, between(between(page, "models", modelsTable(rows)), "presets", presetsTable()));
}

/** All presets with their titles, as a Markdown table. */
export function presetsTable(): string {
  const rows = PRESET_NAMES.map((name) => [`\`${name}\``, PRESETS[name].title]);
  return table(["preset", "for"], rows);
}

/** The text between the markers of a part; throws where there are none. */
export function partOf(page: string, part: string): string {
  const { begin, end } = markers(part);
  const from = page.indexOf(begin);
  const to = page.indexOf(end);
  if (from < 0 || to < from) throw new Error(`the page has no "${begin}" before "${end}"`);
  return page.slice(from + begin.length, to).trim();
}

function between(page: string, part: string, text: string): string {
  partOf(page, part);
  const { begin, end } = markers(part);
  return `${page.slice(0, page.indexOf(begin) + begin.length)}\n\n${text}\n\n${page.slice(page.indexOf(end))}`;
}

function markers(part: string): { begin: string; end: string } {
  return { begin: `<!-- ${part}: written by npm run bench -- models -->`, end: `<!-- ${part}: end -->` };
}

function modelsTable(rows: readonly ModelRow[]): string {
  const head = ["model", "preset", "command", "result", "fp32 ms", "int8 ms", "int8"];
  const lines = rows.map((row) => [
    basename(row.model.file),
    `\`${row.model.preset}\``,
    `\`${row.command}\``,
    row.finding.text,
    row.floatMs.toFixed(digits(row.floatMs)),
    int8Ms(row),
    verdict(row),
  ]);
  const machine = `Medians of one thread on ${cpus()[0]?.model ?? "this CPU"}, fp32 and int8 in turns.`;
  return `${table(head, lines)}\n\n${machine}`;
}

function int8Ms({ quantized }: ModelRow): string {
  const ms = typeof quantized === "string" ? undefined : quantized.speed?.variantMs;
  return ms === undefined ? "–" : ms.toFixed(digits(ms));
}

function digits(ms: number): number {
  return ms >= 100 ? 0 : ms >= 10 ? 1 : ms >= 1 ? 2 : 3;
}

function verdict({ quantized }: ModelRow): string {
  if (typeof quantized === "string") return quantized;
  const { accepted, accuracy, reasons, method } = quantized;
  if (!accepted) return `refused: ${reasons.join("; ")}`;
  const kept =
    accuracy === undefined
      ? ""
      : `, ${accuracy.metric} ${(100 * accuracy.variant).toFixed(1)} % on ${accuracy.samples} inputs`;
  return `taken, ${method}${kept}`;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}
