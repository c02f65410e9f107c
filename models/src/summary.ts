import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** One line of the table in `results/README.md`: what was measured, and the figure as people read it. */
export type SummaryRow = readonly [what: string, figure: string];

interface Results {
  readonly seed: number;
  readonly measuredOn: Readonly<Record<string, string | number>>;
  readonly summary: readonly SummaryRow[];
}

/** Writes `results/README.md` from the results files that are there: a table for each model. */
export async function writeSummary(outDir: string, names: readonly string[]): Promise<void> {
  const parts = [
    "# What the shipped models reach",
    "",
    "Written by `fieldloop model train-shipped`; every figure is measured by the recipe that made the package, on data",
    "that nothing was trained on. All of them, with file sizes and figures per class: the JSON files beside this one.",
  ];
  for (const name of names) {
    const bytes = await readFile(join(outDir, "results", `${name}.json`), "utf8").catch(
      (error: NodeJS.ErrnoException) => {
        if (error.code === "ENOENT") return undefined;
        throw error;
      },
    );
    if (bytes === undefined) continue;
    const { seed, measuredOn, summary } = JSON.parse(bytes) as Results;
    const where = `${measuredOn["cpu"]}, ${measuredOn["threads"]} thread, ${measuredOn["backend"]}, seed ${seed}`;
    parts.push("", `## ${name}`, "", `Measured on ${where}.`, "", "| what | figure |", "| --- | --- |");
    for (const [what, figure] of summary) parts.push(`| ${what} | ${figure} |`);
  }
  await writeFile(join(outDir, "results", "README.md"), `${parts.join("\n")}\n`);
}

/** A share as people read it. */
export function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
