import { createReadStream } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { createGunzip } from "node:zlib";
import { fromBinary } from "@bufbuild/protobuf";
import { FieldloopError } from "@fieldloop/protocol";
import { z } from "zod";
import { TensorProto_DataType, TensorProtoSchema, type TensorProto } from "../onnx/generated/onnx_pb.js";
import { decodeModel, graphOf } from "../onnx/model.js";
import { tensorElementType, tensorRawBytes } from "../onnx/tensor.js";
import type { CaseTensor, ConformanceCase } from "./conformance-case.js";

const dimsSchema = z.array(z.int().min(0)).max(16);
const numericTypes = [
  "float32",
  "float64",
  "float16",
  "int8",
  "uint8",
  "int16",
  "uint16",
  "int32",
  "uint32",
  "int64",
  "uint64",
  "bool",
] as const;
const tensorSchema = z.union([
  z.object({ type: z.enum(numericTypes), dims: dimsSchema, b64: z.string() }),
  z.object({ type: z.literal("string"), dims: dimsSchema, strings: z.array(z.string()) }),
  z.object({ unsupported: z.string() }),
]);
const caseSchema = z.object({
  cat: z.string(),
  name: z.string(),
  set: z.string(),
  inputs: z.record(z.string(), tensorSchema),
  outputs: z.record(z.string(), tensorSchema),
  random: z.boolean().default(false),
  model_b64: z.string(),
});

/**
 * Cases from files of JSON lines (`.gz` or plain, or a folder that holds some) or from a folder in the layout of the ONNX backend tests:
 * `…/NAME/model.onnx` beside `test_data_set_N/input_K.pb` and `output_K.pb` (onnx/backend/test/README.md).
 * @throws FieldloopError `not_found`, `invalid_argument` naming the line or file that is not readable
 */
export async function* readCases(path: string): AsyncGenerator<ConformanceCase> {
  const info = await stat(path).catch(() => undefined);
  if (info === undefined) throw new FieldloopError("not_found", `Read cases: no file or folder "${path}"`);
  if (!info.isDirectory()) return yield* casesOfFile(path);
  const files = (await readdir(path)).filter((name) => CASE_FILE.test(name)).sort();
  if (files.length === 0) return yield* casesOfFolder(path);
  for (const name of files) yield* casesOfFile(join(path, name));
}

/** JSON lines, in a folder beside what belongs to them. */
const CASE_FILE = /\.jsonl(\.gz)?$/;

async function* casesOfFile(path: string): AsyncGenerator<ConformanceCase> {
  const raw = createReadStream(path);
  const input = path.endsWith(".gz") ? raw.pipe(createGunzip()) : raw;
  let number = 0;
  for await (const line of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
    number++;
    if (line.trim() === "") continue;
    let parsed: ConformanceCase;
    try {
      parsed = caseSchema.parse(JSON.parse(line));
    } catch (cause) {
      throw new FieldloopError("invalid_argument", `Read cases: line ${number} of "${path}" is no case`, {
        cause,
      });
    }
    yield parsed;
  }
}

async function* casesOfFolder(root: string): AsyncGenerator<ConformanceCase> {
  const models = (await readdir(root, { recursive: true }))
    .filter((name) => /(^|\/)model\.onnx$/.test(name.replaceAll("\\", "/")))
    .sort();
  if (models.length === 0) {
    throw new FieldloopError(
      "not_found",
      `Read cases: "${root}" holds neither cases as JSON lines nor a folder with a model.onnx`,
    );
  }
  for (const name of models) {
    const folder = join(root, name, "..");
    const parts = folder.replaceAll("\\", "/").split("/");
    const bytes = await readFile(join(root, name));
    const sets = (await readdir(folder)).filter((entry) => entry.startsWith("test_data_set_")).sort();
    for (const set of sets) {
      const { inputs, outputs } = await readSet(join(folder, set), bytes);
      yield {
        cat: parts.at(-2) ?? "",
        name: parts.at(-1) ?? "",
        set,
        inputs,
        outputs,
        random: false,
        model_b64: bytes.toString("base64"),
      };
    }
  }
}

/** Files are numbered in the order of the graph's inputs and outputs. */
async function readSet(
  folder: string,
  model: Uint8Array,
): Promise<{ inputs: Record<string, CaseTensor>; outputs: Record<string, CaseTensor> }> {
  const graph = graphOf(decodeModel(model));
  const read = async (stem: string, infos: typeof graph.input) => {
    const tensors: Record<string, CaseTensor> = {};
    for (const [index, info] of infos.entries()) {
      const bytes = await readFile(join(folder, `${stem}_${index}.pb`)).catch(() => undefined);
      // An initializer that is listed as an input has no file.
      if (bytes === undefined) continue;
      const kind = info.type?.value.case ?? "tensorType";
      tensors[info.name] =
        kind === "tensorType"
          ? toCaseTensor(fromBinary(TensorProtoSchema, bytes))
          : { unsupported: kind.replace("Type", "_type") };
    }
    return tensors;
  };
  return { inputs: await read("input", graph.input), outputs: await read("output", graph.output) };
}

function toCaseTensor(tensor: TensorProto): CaseTensor {
  const dims = tensor.dims.map(Number);
  if (tensor.dataType === TensorProto_DataType.STRING) {
    const decoder = new TextDecoder();
    return { type: "string", dims, strings: tensor.stringData.map((bytes) => decoder.decode(bytes)) };
  }
  const known = numericTypes.find((type) => {
    try {
      return tensorElementType(tensor) === type;
    } catch {
      return false;
    }
  });
  if (known === undefined) return { unsupported: TensorProto_DataType[tensor.dataType] ?? "unknown" };
  return { type: known, dims, b64: Buffer.from(tensorRawBytes(tensor)).toString("base64") };
}
