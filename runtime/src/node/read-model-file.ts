import { readFile, stat } from "node:fs/promises";
import { FieldloopError, LIMITS } from "@fieldloop/protocol";
import { foreignFile } from "../onnx/foreign.js";

/** @throws FieldloopError `not_found`, `onnx_too_large`, or `onnx_malformed` where it is a file of another kind, saying which */
export async function readModelFile(file: string): Promise<Uint8Array> {
  const info = await stat(file).catch(() => undefined);
  if (!info?.isFile()) throw new FieldloopError("not_found", `Read ONNX: no file "${file}"`);
  if (info.size > LIMITS.onnxBytesMax) {
    throw new FieldloopError(
      "onnx_too_large",
      `Read ONNX: "${file}" has ${info.size} bytes, at most ${LIMITS.onnxBytesMax} allowed`,
    );
  }
  const bytes = await readFile(file);
  const foreign = foreignFile(bytes);
  if (foreign !== undefined) {
    throw new FieldloopError("onnx_malformed", `Read ONNX: "${file}" is ${foreign}, wanted ONNX`);
  }
  return bytes;
}
