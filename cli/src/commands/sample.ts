import { writeFile } from "node:fs/promises";
import { formatModelVersion, type Annotation, type Proportion, type SampleView } from "@fieldloop/protocol";
import type { Command } from "commander";
import { action, note, printJson, printTable } from "../output.js";
import {
  fleetClient,
  percentText,
  proportionText,
  queryOf,
  readCount,
  takeItems,
  timeText,
  withFleetOptions,
  type FleetOptions,
} from "./fleet-options.js";

interface ListOptions extends FleetOptions {
  model?: string;
  device?: string;
  stratum?: string;
  shadow?: string;
  status?: string;
  labelled?: string;
  wrong?: string;
  order: string;
  limit: number;
}

interface Statistics {
  readonly strata: readonly {
    stratum: string;
    samples: number;
    wrong: number;
    right: number;
    errorShare: Proportion;
  }[];
}

export function registerSampleCommand(program: Command): void {
  const sample = program
    .command("sample")
    .description("Look at captured samples, worst first, and label them");
  withFleetOptions(
    sample
      .command("list")
      .description("Samples, those that promise most first")
      .option("--model <name>", "of one model")
      .option("--device <id>", "of one device")
      .option("--stratum <name>", "worth, random or campaign")
      .option("--shadow <deployment>", "where its candidate decided otherwise; any for any deployment's")
      .option("--status <name>", "new, confirmed, in_training, fixed, regressed or ignored")
      .option("--labelled <yes|no>", "with or without a label")
      .option("--wrong <yes|no|unknown>", "by what is known")
      .option("--order <name>", "worth or newest", "worth")
      .option("--limit <count>", "at most", readCount, 30),
  ).action(action(list));
  withFleetOptions(
    sample
      .command("show <sample>")
      .description("One sample, its labels, and where it was used")
      .option("--payload <file>", "write the captured input there"),
  ).action(action(show));
  withFleetOptions(
    sample
      .command("label <sample> <label>")
      .description("Label a sample; earlier labels stay in its history"),
  ).action(action(label));
  withFleetOptions(
    sample
      .command("statistics")
      .description("How often samples of each stratum are wrong")
      .option("--model <name>", "of one model"),
  ).action(action(statistics));
}

async function list(options: ListOptions): Promise<void> {
  const { model, device, stratum, shadow, status, labelled, wrong, order, limit } = options;
  const query = queryOf({
    model,
    device,
    stratum,
    shadow,
    status,
    labelled,
    wrong,
    order,
    limit: Math.min(limit, 500),
  });
  const samples = await takeItems(fleetClient(options).list<SampleView>(`/api/v1/samples${query}`), limit);
  if (options.json) return printJson(samples);
  printTable([
    ["SAMPLE", "DEVICE", "VERSION", "STRATUM", "WORTH", "SAID", "CONFIDENCE", "TRUTH", "STATUS"],
    ...samples.map((one) => [
      one.sample,
      one.device,
      formatModelVersion(one.model, one.version),
      one.stratum,
      one.worth.toFixed(2),
      one.label,
      percentText(one.confidence),
      one.annotation?.label ?? one.truth ?? "–",
      one.status,
    ]),
  ]);
}

async function show(id: string, options: FleetOptions & { payload?: string }): Promise<void> {
  const client = fleetClient(options);
  const path = `/api/v1/samples/${encodeURIComponent(id)}`;
  const sample = await client.get<SampleView>(path);
  const history = await client.get<{ annotations: Annotation[]; snapshots: string[] }>(`${path}/history`);
  if (options.payload !== undefined) await writeFile(options.payload, await client.bytes(`${path}/payload`));
  if (options.json) return printJson({ ...sample, ...history });
  printTable([
    ["SAMPLE", sample.sample],
    ["from", `${sample.device}, prediction ${sample.predictionId}, ${timeText(sample.time)}`],
    ["version", formatModelVersion(sample.model, sample.version)],
    ["said", `${sample.label}, ${percentText(sample.confidence)}`],
    ...shadowRows(sample),
    ["feedback", sample.truth ?? "–"],
    ["stratum", `${sample.stratum}, probability ${sample.probability}, worth ${sample.worth.toFixed(3)}`],
    ["status", sample.status],
    ...Object.entries(sample.signals).map(([name, value]) => [`  ${name}`, value.toFixed(3)]),
    ...history.annotations.map((one) => [
      `label ${timeText(one.created)}`,
      `${one.label} by ${one.author}${one.current ? "" : " (replaced)"}`,
    ]),
    ...history.snapshots.map((snapshot) => ["in snapshot", snapshot]),
  ]);
}

function shadowRows({ model, shadow }: SampleView): [string, string][] {
  if (!shadow) return [];
  const candidate = `${formatModelVersion(model, shadow.version)} in shadow`;
  return [[candidate, `${shadow.label}, ${percentText(shadow.confidence)}`]];
}

async function label(id: string, text: string, options: FleetOptions): Promise<void> {
  const path = `/api/v1/samples/${encodeURIComponent(id)}/annotations`;
  const sample = await fleetClient(options).post<SampleView>(path, { label: text });
  if (options.json) return printJson(sample);
  note(
    `${sample.sample}: ${text}, ${sample.wrong === "yes" ? `the model said ${sample.label}` : "as the model said"}`,
  );
}

async function statistics(options: FleetOptions & { model?: string }): Promise<void> {
  const path = `/api/v1/failures/statistics${queryOf({ model: options.model })}`;
  const found = await fleetClient(options).get<Statistics>(path);
  if (options.json) return printJson(found);
  printTable([
    ["STRATUM", "SAMPLES", "WRONG", "RIGHT", "ERROR SHARE"],
    ...found.strata.map((one) => [
      one.stratum,
      String(one.samples),
      String(one.wrong),
      String(one.right),
      proportionText(one.errorShare),
    ]),
  ]);
}
