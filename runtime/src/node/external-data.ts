import { constants } from "node:fs";
import { lstat, open } from "node:fs/promises";
import { join } from "node:path";
import { FieldloopError, LIMITS } from "@fieldloop/protocol";
import { externalTensors, inlineExternalData } from "../onnx/external.js";
import type { ModelProto } from "../onnx/generated/onnx_pb.js";

/** One plain file name: no folder, no drive, no parent. */
const PLAIN_NAME = /^[^/\\:\0]{1,255}$/;

/**
 * Brings a model's external data into it, in place. Parties: the model's author is not trusted, so a location is a plain
 * file name in the model's own folder, of a regular file with one name (no link of either kind), read within its size.
 * @returns how many tensors came in
 * @throws FieldloopError `onnx_external_data` naming the tensor and the file, `onnx_too_large`
 */
export async function inlineFromFolder(model: ModelProto, folder: string): Promise<number> {
  if (externalTensors(model).length === 0) return 0;
  const { tensors } = await inlineExternalData(
    model,
    async ({ location, offset, length }, tensor) => {
      const refuse = (why: string) =>
        new FieldloopError(
          "onnx_external_data",
          `Read external data of tensor "${tensor}": "${location.slice(0, 200)}" ${why}`,
        );
      const name = location.replace(/^\.\//, "");
      if (!PLAIN_NAME.test(name) || name === "." || name === "..") {
        throw refuse("is not a file in the model's own folder");
      }
      const path = join(folder, name);
      const info = await lstat(path).catch(() => undefined);
      if (info === undefined) throw refuse("is missing beside the model");
      if (!info.isFile() || info.nlink > 1) throw refuse("is no regular file of its own (a link?)");
      if (offset + (length ?? 0) > info.size) {
        throw refuse(`has ${info.size} bytes, bytes ${offset} to ${offset + (length ?? 0)} are wanted`);
      }
      const size = length ?? info.size - offset;
      if (size > LIMITS.onnxBytesMax)
        throw refuse(`gives ${size} bytes, at most ${LIMITS.onnxBytesMax} allowed`);
      const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
      try {
        const data = new Uint8Array(size);
        const { bytesRead } = await file.read(data, 0, size, offset);
        if (bytesRead !== size) throw refuse(`gave ${bytesRead} bytes, ${size} wanted`);
        return data;
      } finally {
        await file.close();
      }
    },
    LIMITS.onnxBytesMax,
  );
  return tensors;
}
