import type { NearBaseReport, VariantReport } from "@fieldloop/runtime";
import { printTable } from "../output.js";
import { formatBytes } from "./model-options.js";

/** Layers that are printed without `--json`. */
const LAYERS_SHOWN = 8;
const NODES_SHOWN = 12;

/** A variant's report for people: what came of it, then the worst layers and what stayed float. */
export function printVariantReport(report: VariantReport & { readonly reasons: readonly string[] }): void {
  const { kernels, speed, accuracy, search, base } = report;
  const settings = Object.entries(report.settings).map(([name, value]) => `${name} ${value}`);
  const rows: string[][] = [
    ["", "float", "variant", ""],
    ["method", "", report.method, settings.join(", ")],
    [
      "size",
      formatBytes(report.bytesBefore),
      formatBytes(report.bytesAfter),
      times(report.bytesBefore / report.bytesAfter, "smaller"),
    ],
    ["nodes converted", "", String(report.nodesConverted), `of ${report.nodesConvertible}`],
    ["integer kernels", "", String(kernels.integer), `${kernels.float} products in float`],
  ];
  if (speed) {
    const { floatMs, variantMs, threads, runs } = speed;
    rows.push([
      "median run, ms",
      floatMs.toFixed(3),
      variantMs.toFixed(3),
      `${times(floatMs / variantMs, "faster")}, ${threads} thread${threads === 1 ? "" : "s"}, ${runs} runs of each in turns`,
    ]);
  }
  if (accuracy) {
    rows.push([
      `${accuracy.metric}, %`,
      (100 * accuracy.float).toFixed(2),
      (100 * accuracy.variant).toFixed(2),
      `${accuracy.samples} inputs not calibrated on`,
    ]);
  }
  if (base) {
    const share = (bytes: number): string => `${((100 * bytes) / report.bytesAfter).toFixed(1)} %`;
    rows.push([
      "travels from the base",
      "",
      formatBytes(base.deltaBytes),
      `${share(base.deltaBytes)} of the file, ${share(base.deltaBytesRounded)} if it were rounded; ${nearness(base)}`,
    ]);
  }
  for (const output of report.outputs) {
    rows.push([
      `output ${output.name}`,
      "",
      `${output.sqnrDb.toFixed(1)} dB`,
      `cosine ${output.cosine.toFixed(5)}`,
    ]);
  }
  printTable(rows);
  printLayers(report);
  if (search) {
    process.stdout.write(
      `\nsearch: ${search.evaluations} models judged, ${search.keepFloat.length} nodes left in float${search.found ? "" : ", the bound was not reached"}\n`,
    );
  }
  const floats = kernels.floatNodes ?? [];
  if (!report.method.startsWith("fp16") && floats.length > 0) {
    const more = floats.length > NODES_SHOWN ? `, ${floats.length - NODES_SHOWN} more` : "";
    process.stdout.write(`\nin float: ${floats.slice(0, NODES_SHOWN).join(", ")}${more}\n`);
  }
  for (const warning of report.warnings) process.stdout.write(`warning: ${warning}\n`);
}

function nearness({ changeCost, trail, metric, samples }: NearBaseReport): string {
  const chosen = trail.find((trial) => trial.changeCost === changeCost)!;
  const [rounded] = trail;
  const said = `${metric} ${(100 * chosen.accuracy).toFixed(2)} against ${(100 * rounded!.accuracy).toFixed(2)} % on ${samples} others`;
  return changeCost === null ? `staying nearer cost ${metric}` : said;
}

function printLayers({ layers }: VariantReport): void {
  if (layers.length === 0) return;
  const worst = layers.toSorted((a, b) => a.sqnrDb - b.sqnrDb).slice(0, LAYERS_SHOWN);
  process.stdout.write("\n");
  printTable([
    [
      layers.length > worst.length ? `worst ${worst.length} of ${layers.length} layers` : "layer",
      "operator",
      "SQNR, dB",
      "cosine",
    ],
    ...worst.map(({ node, operator, sqnrDb, cosine }) => [
      node,
      operator,
      sqnrDb.toFixed(1),
      cosine.toFixed(5),
    ]),
  ]);
}

function times(ratio: number, what: string): string {
  if (ratio >= 1) return `${ratio.toFixed(2)} times ${what}`;
  return `${(1 / ratio).toFixed(2)} times ${what === "faster" ? "slower" : "larger"}`;
}
