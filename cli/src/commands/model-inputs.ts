import { readFile, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { FieldloopError, LIMITS, type Manifest, type ModelInput } from "@fieldloop/protocol";
import type { Frame } from "@fieldloop/runtime";
import { isTensorFile, namedTensorFiles, namedTensorFrame, tensorFrames } from "./model-input-tensors.js";
import { parseLabels } from "./model-options.js";
import { sourceFrames, sourceText, tensorFileFrames, tensorFileSpec } from "./model-sources.js";

/** A frame with the name under which its result is shown. */
export interface NamedFrame {
  readonly name: string;
  readonly frame: Frame;
  /** The first of a stream: what a model carried from frames before does not fit it. */
  readonly fresh?: boolean;
}

const IMAGE_NAME = /\.(?:jpe?g|png|webp)$/i;
const IDX_NAME = /(?:\.idx|ubyte)(?:\.gz)?$|\.idx\d?\.gz$/i;
/** Bytes of a data file after decompression. */
const DATA_BYTES_MAX = 1024 * 1024 * 1024;

/**
 * The frames of inputs as a person names them: image files, folders of images, IDX files of images, CSV files of windows or rows,
 * tensors as .npy and .bin, one tensor an input as INPUT=FILE, files of sound and video, and any source that an agent takes.
 */
export async function* readFrames(paths: readonly string[], manifest: Manifest): AsyncGenerator<NamedFrame> {
  const files = namedTensorFiles(paths, manifest.inputs);
  if (files !== undefined) {
    yield await namedTensorFrame(files, manifest.inputs);
    return;
  }
  for (const path of paths) {
    const info = await stat(path).catch(() => undefined);
    if (info?.isFile() && isTensorFile(path, manifest.inputs)) {
      yield* tensorFrames(path, manifest.inputs);
      continue;
    }
    const tensors = tensorFileSpec(path, info !== undefined);
    const source = sourceText(path, info !== undefined, manifest);
    if (tensors !== undefined) {
      yield* named(tensors.path, tensorFileFrames(tensors, await readData(tensors.path), manifest));
    } else if (source !== undefined) yield* readFrom(source, manifest);
    else if (info === undefined)
      throw new FieldloopError("not_found", `Read input: no file or folder "${path}"`);
    else if (info.isDirectory()) yield* readFolder(path);
    else if (IDX_NAME.test(path)) yield* idxFrames(path, await readData(path));
    else if (/\.csv(?:\.gz)?$/i.test(path)) yield* csvFrames(path, await readData(path), manifest.inputs[0]!);
    else yield { name: path, frame: await imageFrame(path) };
  }
}

function* named(name: string, frames: Iterable<Frame>): Generator<NamedFrame> {
  let at = 0;
  for (const frame of frames) yield { name: at++ === 0 ? name : `${name}#${at}`, frame };
}

async function* readFrom(source: string, manifest: Manifest): AsyncGenerator<NamedFrame> {
  let at = 0;
  for await (const { frame, fresh } of sourceFrames(source, manifest)) {
    yield { name: String(at), frame, fresh: fresh === true || at === 0 };
    at++;
  }
}

async function* readFolder(dir: string): AsyncGenerator<NamedFrame> {
  const names = (await readdir(dir)).filter((name) => IMAGE_NAME.test(name)).sort();
  if (names.length === 0)
    throw new FieldloopError("not_found", `Read input: no JPEG, PNG or WebP in "${dir}"`);
  for (const name of names) yield { name, frame: await imageFrame(join(dir, name)) };
}

async function imageFrame(path: string): Promise<Frame> {
  const { size } = await stat(path);
  if (size > LIMITS.imageBytesMax) {
    throw new FieldloopError(
      "image_too_large",
      `Read image "${path}": ${size} bytes, at most ${LIMITS.imageBytesMax} allowed`,
    );
  }
  return { kind: "encoded", bytes: await readFile(path) };
}

async function readData(path: string): Promise<Buffer> {
  const bytes = await readFile(path).catch((cause: unknown) => {
    throw new FieldloopError("not_found", `Read "${path}": ${(cause as Error).message}`, { cause });
  });
  if (!path.endsWith(".gz")) return bytes;
  try {
    return gunzipSync(bytes, { maxOutputLength: DATA_BYTES_MAX });
  } catch (cause) {
    throw new FieldloopError("invalid_argument", `Read "${path}": ${(cause as Error).message}`, { cause });
  }
}

/** IDX of unsigned bytes (yann.lecun.com/exdb/mnist): magic 0, 0, 8, number of dims; big-endian sizes; the bytes. */
export function parseIdx(path: string, bytes: Buffer): { dims: number[]; data: Buffer } {
  const rank = bytes[3] ?? 0;
  if (bytes.length < 4 || bytes[0] !== 0 || bytes[1] !== 0 || bytes[2] !== 8 || rank < 1 || rank > 4) {
    throw new FieldloopError("invalid_argument", `Read "${path}": not an IDX file of unsigned bytes`);
  }
  const start = 4 + rank * 4;
  const dims =
    bytes.length < start ? [] : Array.from({ length: rank }, (_, at) => bytes.readUInt32BE(4 + at * 4));
  const wanted = dims.reduce((product, size) => product * size, 1);
  if (bytes.length !== start + wanted) {
    throw new FieldloopError(
      "invalid_argument",
      `Read "${path}": ${bytes.length} bytes, dims [${dims.join(", ")}] want ${start + wanted}`,
    );
  }
  return { dims, data: bytes.subarray(start) };
}

function* idxFrames(path: string, bytes: Buffer): Generator<NamedFrame> {
  const { dims, data } = parseIdx(path, bytes);
  const [count, height, width, depth] = dims;
  const channels = depth ?? 1;
  if (height === undefined || width === undefined || (channels !== 1 && channels !== 3)) {
    throw new FieldloopError("invalid_argument", `Read "${path}": dims [${dims.join(", ")}], wanted images`);
  }
  const size = height * width * channels;
  for (let at = 0; at < count!; at++) {
    const pixels = data.subarray(at * size, (at + 1) * size);
    yield { name: String(at), frame: { kind: "pixels", data: pixels, width, height, channels } };
  }
}

/**
 * Rows of `length · channels` numbers are windows; rows of `channels` numbers are samples, cut into windows by the
 * input's hop. A first row that holds text is a heading.
 */
export function* csvFrames(path: string, bytes: Buffer, input: ModelInput): Generator<NamedFrame> {
  if (input.kind !== "window") {
    throw new FieldloopError(
      "invalid_argument",
      `Read "${path}": the model takes ${input.kind} input, no windows`,
    );
  }
  const { length, channels, hop } = input;
  const rows = parseRows(path, bytes.toString("utf8"));
  const columns = rows[0]?.length ?? 0;
  if (columns === length * channels) {
    for (const [at, row] of rows.entries()) yield windowFrame(String(at), row);
    return;
  }
  if (columns !== channels) {
    throw new FieldloopError(
      "window_invalid",
      `Read "${path}": ${columns} columns, wanted ${channels} (samples) or ${length * channels} (windows)`,
    );
  }
  const samples = rows.flat();
  for (let at = 0; at + length <= rows.length; at += hop) {
    yield windowFrame(`${at}–${at + length}`, samples.slice(at * channels, (at + length) * channels));
  }
}

function windowFrame(name: string, values: readonly number[]): NamedFrame {
  return { name, frame: { kind: "window", samples: Float32Array.from(values) } };
}

function parseRows(path: string, text: string): number[][] {
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== "");
  const rows = lines.map((line) =>
    line.split(",").map((cell) => (cell.trim() === "" ? Number.NaN : Number(cell))),
  );
  if (rows[0]?.some((value) => Number.isNaN(value))) rows.shift();
  rows.forEach((row, at) => {
    if (row.length !== rows[0]!.length || row.some((value) => !Number.isFinite(value))) {
      throw new FieldloopError(
        "window_invalid",
        `Read "${path}": row ${at + 1} does not hold ${rows[0]!.length} numbers`,
      );
    }
  });
  return rows;
}

/** True classes, one for each frame: IDX of bytes, or text with a label or a class index a line. */
export async function readTruth(path: string, labels: readonly string[]): Promise<number[]> {
  const info = await stat(path).catch(() => undefined);
  if (info === undefined) throw new FieldloopError("not_found", `Read labels: no file "${path}"`);
  const bytes = await readData(path);
  if (IDX_NAME.test(path)) return [...parseIdx(path, bytes).data];
  return parseLabels(bytes.toString("utf8")).map((text, at) => {
    const index = labels.indexOf(text);
    if (index >= 0) return index;
    if (/^-?\d+$/.test(text)) return Number(text);
    throw new FieldloopError(
      "invalid_argument",
      `Read labels "${path}": line ${at + 1} is "${text}", no label of the model`,
    );
  });
}
