import { readFile } from "node:fs/promises";
import { FieldloopError, type ModelInput, type TensorInput } from "@fieldloop/protocol";
import { elementCountOf, tensorFromBytes, type ElementType, type Tensor } from "@fieldloop/runtime";
import { windowsOf } from "./model-input-windows.js";
import type { NamedFrame } from "./model-inputs.js";

const TENSOR_NAME = /\.(?:npy|bin)$/i;

/** NumPy's type codes without the byte order. */
const NUMPY_TYPES: Readonly<Record<string, ElementType>> = {
  f4: "float32",
  f8: "float64",
  f2: "float16",
  i1: "int8",
  u1: "uint8",
  i2: "int16",
  u2: "uint16",
  i4: "int32",
  u4: "uint32",
  i8: "int64",
  u8: "uint64",
  b1: "bool",
};

/** Whether a file holds tensors as they are: any .npy, and a .bin where no window is to be cut from it. */
export function isTensorFile(path: string, inputs: readonly ModelInput[]): boolean {
  return /\.npy$/i.test(path) || (/\.bin$/i.test(path) && inputs.every(({ kind }) => kind !== "window"));
}

/** Input and file of each `INPUT=FILE`; undefined where a path is not of that form or names no input of the model. */
export function namedTensorFiles(
  paths: readonly string[],
  inputs: readonly ModelInput[],
): [string, string][] | undefined {
  const files: [string, string][] = [];
  for (const path of paths) {
    // Names of tensors may hold an equals sign as well.
    const input = inputs.find(({ name }) => path.startsWith(`${name}=`) && TENSOR_NAME.test(path));
    if (input === undefined) return undefined;
    files.push([input.name, path.slice(input.name.length + 1)]);
  }
  return files.length === 0 ? undefined : files;
}

/**
 * Frames of a tensor file, or windows of an array. `.npy` brings its own type and dims; `.bin` is raw little-endian values of the input's type. A
 * file of several items (the first dimension, or a multiple of the bytes) gives a frame for each.
 */
export async function* tensorFrames(path: string, inputs: readonly ModelInput[]): AsyncGenerator<NamedFrame> {
  const window = inputs.find((input) => input.kind === "window");
  if (window !== undefined && inputs.filter(isFed).length === 1) {
    const windows = windowsOf(path, await readTensorFile(path, window), window);
    for (const [at, samples] of windows.entries()) {
      yield { name: windows.length === 1 ? path : `${path}#${at}`, frame: { kind: "window", samples } };
    }
    return;
  }
  const input = onlyTensorInput(path, inputs);
  const items = split(await readTensorFile(path, input), input);
  for (const [at, tensor] of items.entries()) {
    const name = items.length === 1 ? path : `${path}#${at}`;
    yield { name, frame: { kind: "tensors", feeds: { [input.name]: tensor } } };
  }
}

/** One frame of several files, `INPUT=FILE` each. */
export async function namedTensorFrame(
  files: readonly (readonly [string, string])[],
  inputs: readonly ModelInput[],
): Promise<NamedFrame> {
  const feeds: Record<string, Tensor> = {};
  for (const [name, path] of files) {
    const input = inputs.find((candidate) => candidate.name === name);
    if (input !== undefined) feeds[name] = await readTensorFile(path, input);
  }
  return { name: files.map(([, path]) => path).join(" "), frame: { kind: "tensors", feeds } };
}

function onlyTensorInput(path: string, inputs: readonly ModelInput[]): TensorInput {
  const fed = inputs.filter(isFed);
  const [input] = fed;
  if (fed.length === 1 && input?.kind === "tensor") return input;
  throw new FieldloopError(
    "invalid_argument",
    `Read "${path}": the model takes ${fed.map(({ name, kind }) => `${kind} "${name}"`).join(", ")}, wanted one tensor (several as INPUT=FILE)`,
  );
}

function isFed({ kind }: ModelInput): boolean {
  return kind !== "state" && kind !== "constant";
}

async function readTensorFile(path: string, input: ModelInput): Promise<Tensor> {
  const bytes = await readFile(path);
  if (/\.npy$/i.test(path)) return readNpy(path, bytes);
  if (input.elementType === "string") {
    throw new FieldloopError("invalid_argument", `Read "${path}": text has no raw form`);
  }
  const declared = "dims" in input ? input.dims : [];
  const item = declared.map((size) => (size === 0 ? 1 : size));
  const itemBytes = tensorSize(input.elementType) * elementCountOf(item);
  if (bytes.length === 0 || bytes.length % itemBytes !== 0) {
    throw new FieldloopError(
      "invalid_argument",
      `Read "${path}": ${bytes.length} bytes, ${input.elementType}[${declared.join(", ")}] wants a multiple of ${itemBytes}`,
    );
  }
  const count = bytes.length / itemBytes;
  const dims = item.length === 0 ? [] : [item[0]! * count, ...item.slice(1)];
  return tensorFromBytes(input.elementType, dims, bytes);
}

function tensorSize(type: Exclude<ElementType, "string">): number {
  return type === "bool" ? 1 : Number(/\d+$/.exec(type)![0]) / 8;
}

/** Items along the first dimension, each with the declared dims; one where the file is what is declared. */
function split(tensor: Tensor, input: TensorInput): Tensor[] {
  const item = input.dims.map((size) => (size === 0 ? 1 : size));
  const isItem = (dims: readonly number[]): boolean =>
    dims.length === item.length && dims.every((size, at) => input.dims[at] === 0 || size === item[at]);
  const [first, ...rest] = tensor.dims;
  const withBatch = [1, ...rest];
  const canSplit = first !== undefined && first > 1 && isItem(withBatch) && !Array.isArray(tensor.data);
  if (!canSplit) return [tensor];
  const size = tensor.data.length / first;
  return Array.from({ length: first }, (_, at) => ({
    ...tensor,
    dims: withBatch,
    data: tensor.data.slice(at * size, (at + 1) * size) as Tensor["data"],
  }));
}

/** The .npy format, versions 1 to 3 (numpy.lib.format): magic, version, length of the header, a Python literal, the values. */
export function readNpy(path: string, bytes: Uint8Array): Tensor {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const isNpy =
    bytes.length > 12 && bytes[0] === 0x93 && String.fromCharCode(...bytes.subarray(1, 6)) === "NUMPY";
  if (!isNpy) throw new FieldloopError("invalid_argument", `Read "${path}": not a .npy file`);
  const isOld = bytes[6] === 1;
  const headerLength = isOld ? view.getUint16(8, true) : view.getUint32(8, true);
  const start = (isOld ? 10 : 12) + headerLength;
  const header = new TextDecoder().decode(bytes.subarray(isOld ? 10 : 12, start));
  const code = /'descr':\s*'([<|=>])([a-z]\d)'/.exec(header);
  const shape = /'shape':\s*\(([\d,\s]*)\)/.exec(header)?.[1];
  const type = code?.[1] === ">" ? undefined : NUMPY_TYPES[code?.[2] ?? ""];
  if (type === undefined || shape === undefined || /'fortran_order':\s*True/.test(header)) {
    throw new FieldloopError(
      "invalid_argument",
      `Read "${path}": header ${header.trim().slice(0, 120)}, wanted little-endian numbers in C order`,
    );
  }
  const dims = shape.split(",").flatMap((size) => (size.trim() === "" ? [] : [Number(size)]));
  return tensorFromBytes(type, dims, bytes.subarray(start));
}
