import { readFile } from "node:fs/promises";
import { gunzipSync } from "node:zlib";
import { FieldloopError } from "@fieldloop/protocol";
import { elementCountOf, type Feeds, type Tensor, type TensorInfo } from "@fieldloop/runtime";
import { parseIdx } from "./model-inputs.js";

/** Bytes of a data file after decompression. */
const DATA_BYTES_MAX = 1024 * 1024 * 1024;
const IDX_NAME = /(?:\.idx|ubyte)(?:\.gz)?$|\.idx\d?\.gz$/i;

/**
 * Inputs of a bare ONNX file from tensor files: `.npy` and IDX with the samples along the first axis, `.bin` of float32 little-endian,
 * `.csv` with one sample a line. `NAME=FILE` says which input a file is for; of a model with one input that may be left out.
 */
export async function readTensorFiles(
  specs: readonly string[],
  inputs: readonly TensorInfo[],
  limit: number,
): Promise<Feeds[]> {
  const columns = new Map<string, Tensor[]>();
  for (const spec of specs) {
    const input =
      inputs.find(({ name }) => spec.startsWith(`${name}=`)) ?? (inputs.length === 1 ? inputs[0] : undefined);
    if (!input) {
      const names = inputs.map(({ name }) => name).join(", ");
      throw new FieldloopError(
        "invalid_argument",
        `Read data "${spec}": the model has inputs ${names}; write NAME=FILE, or import it with a preset and quantize the package`,
      );
    }
    const path = spec.startsWith(`${input.name}=`) ? spec.slice(input.name.length + 1) : spec;
    columns.set(input.name, [...(columns.get(input.name) ?? []), ...(await readSamples(path, input))]);
  }
  const missing = inputs.find(({ name }) => !columns.has(name));
  if (missing) {
    throw new FieldloopError("invalid_argument", `Read data: nothing for input "${missing.name}"`);
  }
  const counts = [...columns].map(([, tensors]) => tensors.length);
  const count = Math.min(...counts, limit);
  if (new Set(counts).size > 1) {
    throw new FieldloopError(
      "invalid_argument",
      `Read data: the inputs have ${counts.join(" and ")} samples`,
    );
  }
  return Array.from({ length: count }, (_, at) =>
    Object.fromEntries([...columns].map(([name, tensors]) => [name, tensors[at]!])),
  );
}

/** Normal deviates for float inputs, around the middle of bytes, and zeros for the others, from a fixed seed. Says nothing about real data. */
export function randomFeeds(inputs: readonly TensorInfo[], count: number): Feeds[] {
  let state = 1;
  const uniform = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return (state + 1) / (2 ** 32 + 1);
  };
  const normal = () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  return Array.from({ length: count }, () =>
    Object.fromEntries(inputs.map((input) => [input.name, randomTensor(input, normal)])),
  );
}

function randomTensor(input: TensorInfo, normal: () => number): Tensor {
  const dims = sampleDims(input);
  const length = elementCountOf(dims);
  if (input.type === "float32") {
    return { type: "float32", dims, data: Float32Array.from({ length }, normal) };
  }
  if (input.type === "uint8") {
    const byte = () => Math.min(Math.max(Math.round(128 + 40 * normal()), 0), 255);
    return { type: "uint8", dims, data: Uint8Array.from({ length }, byte) };
  }
  if (input.type === "int64") return { type: "int64", dims, data: new BigInt64Array(length) };
  if (input.type === "int32") return { type: "int32", dims, data: new Int32Array(length) };
  if (input.type === "bool") return { type: "bool", dims, data: new Uint8Array(length) };
  throw new FieldloopError(
    "invalid_argument",
    `Make random inputs: input "${input.name}" is ${input.type}, give data with --data`,
  );
}

/** Dims of one sample: open sizes are 1. */
function sampleDims(input: TensorInfo): number[] {
  return input.dims.map((size) => (typeof size === "number" && size > 0 ? size : 1));
}

async function readSamples(path: string, input: TensorInfo): Promise<Tensor[]> {
  if (input.type !== "float32") {
    throw new FieldloopError(
      "invalid_argument",
      `Read data "${path}": input "${input.name}" is ${input.type}, wanted float32`,
    );
  }
  const file = await readFile(path).catch((cause: unknown) => {
    throw new FieldloopError("not_found", `Read data "${path}": ${(cause as Error).message}`, { cause });
  });
  const bytes = path.endsWith(".gz") ? gunzipSync(file, { maxOutputLength: DATA_BYTES_MAX }) : file;
  const dims = sampleDims(input);
  const size = elementCountOf(dims);
  const values = valuesOf(path, bytes, size);
  if (size === 0 || values.length === 0 || values.length % size !== 0) {
    throw new FieldloopError(
      "invalid_argument",
      `Read data "${path}": ${values.length} numbers, a sample of input "${input.name}" has ${size}`,
    );
  }
  return Array.from({ length: values.length / size }, (_, at) => ({
    type: "float32" as const,
    dims,
    data: values.slice(at * size, (at + 1) * size),
  }));
}

function valuesOf(path: string, bytes: Buffer, size: number): Float32Array {
  const name = path.replace(/\.gz$/i, "");
  if (IDX_NAME.test(path)) return Float32Array.from(parseIdx(path, bytes).data);
  if (/\.npy$/i.test(name)) return parseNpy(path, bytes);
  if (/\.csv$/i.test(name)) return parseCsv(path, bytes.toString("utf8"), size);
  if (/\.bin$/i.test(name)) {
    if (bytes.length % 4 !== 0) {
      throw new FieldloopError(
        "invalid_argument",
        `Read data "${path}": ${bytes.length} bytes are no float32 values`,
      );
    }
    return new Float32Array(Uint8Array.from(bytes).buffer);
  }
  throw new FieldloopError("invalid_argument", `Read data "${path}": wanted .npy, .bin, .csv or IDX`);
}

/** NumPy's format, versions 1 to 3 (numpy.lib.format): magic, header length, a Python literal, then the values in C order. */
export function parseNpy(path: string, bytes: Buffer): Float32Array {
  const refuse = (what: string): FieldloopError =>
    new FieldloopError("invalid_argument", `Read data "${path}": ${what}`);
  if (bytes.length < 12 || bytes.toString("latin1", 0, 6) !== "\x93NUMPY") throw refuse("not an .npy file");
  const wide = bytes[6]! >= 2;
  const start = wide ? 12 : 10;
  const headerLength = wide ? bytes.readUInt32LE(8) : bytes.readUInt16LE(8);
  const header = bytes.toString("latin1", start, start + headerLength);
  const type = /'descr':\s*'([^']+)'/.exec(header)?.[1];
  if (/'fortran_order':\s*True/.test(header)) throw refuse("its values are in Fortran order, wanted C order");
  const data = Uint8Array.from(bytes.subarray(start + headerLength)).buffer;
  const read = type === undefined ? undefined : NPY_VALUES[type];
  if (!read) {
    const known = Object.keys(NPY_VALUES).join(", ");
    throw refuse(`element type "${type ?? "unknown"}", wanted one of ${known}`);
  }
  return read(data);
}

const NPY_VALUES: Readonly<Record<string, (data: ArrayBuffer) => Float32Array>> = {
  "<f4": (data) => new Float32Array(data),
  "<f8": (data) => Float32Array.from(new Float64Array(data)),
  "|u1": (data) => Float32Array.from(new Uint8Array(data)),
  "|i1": (data) => Float32Array.from(new Int8Array(data)),
  "<i2": (data) => Float32Array.from(new Int16Array(data)),
  "<i4": (data) => Float32Array.from(new Int32Array(data)),
  "<i8": (data) => Float32Array.from(new BigInt64Array(data), Number),
};

function parseCsv(path: string, text: string, size: number): Float32Array {
  const rows = text
    .split(/\r?\n/)
    .filter((line) => line.trim() !== "")
    // An empty cell is no 0.
    .map((line) => line.split(",").map((cell) => (cell.trim() === "" ? Number.NaN : Number(cell))));
  if (rows[0]?.some(Number.isNaN)) rows.shift();
  rows.forEach((row, at) => {
    if (row.length !== size || row.some((value) => !Number.isFinite(value))) {
      throw new FieldloopError(
        "invalid_argument",
        `Read data "${path}": row ${at + 1} does not hold ${size} numbers`,
      );
    }
  });
  return Float32Array.from(rows.flat());
}
