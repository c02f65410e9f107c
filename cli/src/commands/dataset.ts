import { writeFile } from "node:fs/promises";
import type { Dataset, Snapshot } from "@fieldloop/protocol";
import type { Command } from "commander";
import { action, note, printJson, printTable } from "../output.js";
import {
  fleetClient,
  readCount,
  readList,
  takeItems,
  timeText,
  withFleetOptions,
  type FleetOptions,
} from "./fleet-options.js";

export function registerDatasetCommand(program: Command): void {
  const dataset = program
    .command("dataset")
    .description("Turn labelled samples into datasets and frozen snapshots");
  withFleetOptions(
    dataset
      .command("create <name>")
      .description("Save a query over labelled samples")
      .requiredOption("--model <name>", "whose samples")
      .option("--devices <ids>", "of these devices only", readList)
      .option("--versions <numbers>", "of these versions only", (text) => readList(text).map(readCount))
      .option("--after <time>", "captured since, e.g. 2026-11-01")
      .option("--with-feedback", "also samples whose truth the application's feedback told"),
  ).action(action(create));
  withFleetOptions(
    dataset
      .command("list")
      .description("Datasets, newest first")
      .option("--limit <count>", "at most", readCount, 50),
  ).action(action(list));
  withFleetOptions(
    dataset.command("snapshot <dataset>").description("Freeze what the dataset holds now"),
  ).action(action(snapshot));
  withFleetOptions(dataset.command("snapshots <dataset>").description("Its snapshots, newest first")).action(
    action(snapshots),
  );
  withFleetOptions(
    dataset
      .command("export <snapshot>")
      .description("A snapshot's list as NDJSON: sample, hash of its bytes, label")
      .option("--output <file>", "instead of standard output"),
  ).action(action(exportSnapshot));
}

interface CreateOptions extends FleetOptions {
  model: string;
  devices?: string[];
  versions?: number[];
  after?: string;
  withFeedback?: boolean;
}

async function create(name: string, options: CreateOptions): Promise<void> {
  const { model, devices, versions, after } = options;
  const query = {
    labelled: !options.withFeedback,
    devices,
    versions,
    after: after === undefined ? undefined : Date.parse(after),
  };
  const made = await fleetClient(options).post<Dataset>("/api/v1/datasets", { name, model, query });
  if (options.json) return printJson(made);
  note(`${made.dataset}: ${made.sampleCount} samples now`);
}

async function list(options: FleetOptions & { limit: number }): Promise<void> {
  const datasets = await takeItems(fleetClient(options).list<Dataset>("/api/v1/datasets"), options.limit);
  if (options.json) return printJson(datasets);
  printTable([
    ["DATASET", "NAME", "MODEL", "SAMPLES", "CREATED"],
    ...datasets.map((one) => [
      one.dataset,
      one.name,
      one.model,
      String(one.sampleCount),
      timeText(one.created),
    ]),
  ]);
}

async function snapshot(dataset: string, options: FleetOptions): Promise<void> {
  const path = `/api/v1/datasets/${encodeURIComponent(dataset)}/snapshots`;
  const frozen = await fleetClient(options).post<Snapshot>(path);
  if (options.json) return printJson(frozen);
  process.stdout.write(`${frozen.snapshot}\n`);
  note(`${frozen.sampleCount} samples: ${labelsText(frozen)}`);
}

async function snapshots(dataset: string, options: FleetOptions): Promise<void> {
  const path = `/api/v1/datasets/${encodeURIComponent(dataset)}/snapshots`;
  const frozen = await takeItems(fleetClient(options).list<Snapshot>(path), 500);
  if (options.json) return printJson(frozen);
  printTable([
    ["SNAPSHOT", "SAMPLES", "CREATED", "LABELS"],
    ...frozen.map((one) => [one.snapshot, String(one.sampleCount), timeText(one.created), labelsText(one)]),
  ]);
}

async function exportSnapshot(id: string, options: FleetOptions & { output?: string }): Promise<void> {
  const bytes = await fleetClient(options).bytes(`/api/v1/snapshots/${encodeURIComponent(id)}/items`);
  if (options.output === undefined) process.stdout.write(bytes);
  else await writeFile(options.output, bytes);
}

function labelsText({ labels }: Snapshot): string {
  return Object.entries(labels)
    .map(([label, count]) => `${label} ${count}`)
    .join(", ");
}
