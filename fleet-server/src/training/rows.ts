import { readFile } from "node:fs/promises";
import { join } from "node:path";
import {
  decodeDataFile,
  FieldloopError,
  type Manifest,
  type MediaType,
  type ModelInput,
} from "@fieldloop/protocol";
import { FramePreparer, sampleFrame, type Tensor } from "@fieldloop/runtime";
import { prepareImage, type ModelPackage } from "@fieldloop/runtime/node";
import type { JobItem } from "./job.js";

/** A labelled input in memory, as it came from the device or the package. */
export interface Labelled {
  readonly media: MediaType;
  readonly label: string;
  readonly payload: Uint8Array<ArrayBuffer>;
}

/** Rows as the model's input wants them: `inputs` is [labels.length, rowSize]. */
export interface Rows {
  readonly inputs: Float32Array;
  /** Index into the labels. */
  readonly labels: Int32Array;
  readonly rowSize: number;
  /** Dims of the input tensor for one row. */
  readonly dims: readonly number[];
}

export interface PreparedRows extends Rows {
  /** Inputs that could not be decoded or have a label that the model does not know. */
  readonly skipped: number;
}

export async function readItem(item: JobItem): Promise<Labelled> {
  return { media: item.media, label: item.label, payload: new Uint8Array(await readFile(item.file)) };
}

/** Labelled inputs that travel with a package; none where it has no such file. */
export async function readDataFile(pkg: ModelPackage, which: "replay" | "holdout"): Promise<Labelled[]> {
  const file = pkg.manifest[which];
  return file ? decodeDataFile(new Uint8Array(await readFile(join(pkg.dir, file.file)))) : [];
}

/** The one input that this trainer can feed. @throws FieldloopError `training_unsupported_op` */
export function trainableInput(manifest: Manifest): ModelInput {
  const [input, ...others] = manifest.inputs;
  if (
    !input ||
    others.length > 0 ||
    input.kind === "tensor" ||
    (input.kind === "image" && input.elementType !== "float32")
  ) {
    throw new FieldloopError(
      "training_unsupported_op",
      "Prepare training: wanted one float32 image or window input",
    );
  }
  return input;
}

/**
 * Pre-processes inputs exactly as the device does. An input that cannot be decoded, or has a label that the model does not know,
 * is left out and counted: one broken sample must not stop a run.
 */
export async function prepareRows(
  manifest: Manifest,
  labels: readonly string[],
  items: readonly Labelled[],
  onProgress: (done: number) => void = () => undefined,
): Promise<PreparedRows> {
  const input = trainableInput(manifest);
  const preparer = new FramePreparer(manifest, prepareImage);
  const indices = new Map(labels.map((label, at) => [label, at]));
  const rows: Tensor[] = [];
  const truths: number[] = [];
  for (const [at, item] of items.entries()) {
    const truth = indices.get(item.label);
    const row = truth === undefined ? undefined : await prepareRow(preparer, input.name, item);
    if (row && truth !== undefined) {
      rows.push(row);
      truths.push(truth);
    }
    onProgress(at + 1);
  }
  const rowSize = rows[0]?.data.length ?? 0;
  const inputs = new Float32Array(rows.length * rowSize);
  rows.forEach((row, at) => inputs.set(row.data as Float32Array, at * rowSize));
  return {
    inputs,
    labels: Int32Array.from(truths),
    rowSize,
    dims: rows[0]?.dims ?? [],
    skipped: items.length - rows.length,
  };
}

async function prepareRow(
  preparer: FramePreparer,
  input: string,
  item: Labelled,
): Promise<Tensor | undefined> {
  try {
    const prepared = await preparer.prepare(sampleFrame(item.media, item.payload));
    return prepared.feeds[input];
  } catch (error) {
    if (error instanceof FieldloopError) return undefined;
    throw error;
  }
}

/** A few of many, spread evenly; all where they fit. */
export function spread<Item>(items: readonly Item[], count: number): Item[] {
  if (items.length <= count) return [...items];
  return Array.from({ length: count }, (_, at) => items[Math.floor((at * items.length) / count)]!);
}
