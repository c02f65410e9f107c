import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MODEL_CASES, type Finding, type ModelCase } from "./models-cases.js";
import { importCommand, ModelCommands, publicData, type QuantizeReport } from "./models-commands.js";
import { writeModelsPage } from "./models-page.js";
import { progress, SuiteUnavailable, type Figure } from "./report.js";

/** One line of the table. */
export interface ModelRow {
  readonly model: ModelCase;
  readonly command: string;
  readonly finding: Finding;
  readonly floatMs: number;
  /** Int8, taken or refused; a text where it does not apply. */
  readonly quantized: QuantizeReport | string;
}

/**
 * Every public model through the command line: imported, verified, run on public data, quantized. Times are medians of one thread, float and
 * int8 in turns.
 * @param page file whose table is written anew
 */
export async function runModelsSuite({ markdown: page }: { readonly markdown?: string }): Promise<Figure[]> {
  const data = publicData(process.env["FIELDLOOP_TEST_DATA"]);
  if (data === undefined) {
    throw new SuiteUnavailable("FIELDLOOP_TEST_DATA names no folder with the public models and sets");
  }
  const folder = await mkdtemp(join(tmpdir(), "fieldloop-bench-models-"));
  try {
    const commands = new ModelCommands(data, folder);
    const rows: ModelRow[] = [];
    for (const model of MODEL_CASES) {
      try {
        const row = await rowOf(model, commands);
        rows.push(row);
        progress(`${model.id}: ${row.finding.text}`);
      } catch (error) {
        // The others are worth knowing; the count below tells that one is missing.
        progress(`${model.id}: ${String(error)}`);
      }
    }
    if (page !== undefined) {
      await writeModelsPage(page, rows);
      progress(`table written to ${page}`);
    }
    return [
      {
        id: "models-imported",
        what: "public model files imported by one command, golden cases held",
        value: rows.length,
        unit: "models",
        bar: { at: "least", value: MODEL_CASES.length },
      },
      ...rows.flatMap(figuresOf),
    ];
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function rowOf(model: ModelCase, commands: ModelCommands): Promise<ModelRow> {
  const { preset, dir } = await commands.import(model);
  if (preset !== model.preset) throw new Error(`${model.id}: preset ${preset}, wanted ${model.preset}`);
  await commands.verify(dir);
  const finding = model.find(await commands.run(model));
  const quantized =
    typeof model.quantize === "string" ? model.quantize : await commands.quantize(model, model.quantize);
  if (typeof quantized !== "string" && quantized.written !== null) await commands.verify(quantized.written);
  const measured = typeof quantized === "string" ? undefined : quantized.speed?.floatMs;
  const floatMs = measured ?? (await commands.bench(model));
  return { model, command: importCommand(model), finding, floatMs, quantized };
}

function figuresOf({ model, finding, floatMs, quantized }: ModelRow): Figure[] {
  const { value, unit, reference, text } = finding;
  const figures: Figure[] = [];
  if (reference === undefined)
    figures.push({ id: `models-${model.id}`, what: `${model.id}: ${text}`, value, unit });
  else {
    figures.push({
      id: `models-${model.id}`,
      what: `${model.id}: ${text}; off the reference by`,
      value: Number(Math.abs(value - reference.value).toFixed(6)),
      unit: unit.startsWith("%") ? "points" : unit.split(" ").at(-1)!,
      peer: { what: `${unit} known`, value: reference.value },
      bar: { at: "most", value: reference.tolerance },
    });
  }
  const int8 = typeof quantized === "string" ? undefined : quantized.speed;
  figures.push({
    id: `models-${model.id}-ms`,
    what: `${model.id}: ${int8 === undefined ? "fp32" : `int8${isTaken(quantized) ? "" : ", refused"}`}, one thread`,
    value: int8?.variantMs ?? floatMs,
    unit: "ms",
    ...(int8 === undefined ? {} : { peer: { what: "ms in fp32", value: int8.floatMs } }),
  });
  return figures;
}

/** Whether the quantizer wrote a version with the variant. */
export function isTaken(quantized: QuantizeReport | string): boolean {
  return typeof quantized !== "string" && quantized.accepted;
}
