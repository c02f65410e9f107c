import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { FieldloopError, formatModelVersion } from "@fieldloop/protocol";
import { readQuantizedBase, type QuantizedBase, type VariantSettings } from "@fieldloop/runtime";
import { makeDeltaOf } from "@fieldloop/runtime/delta";
import { openPackage, readModelFile } from "@fieldloop/runtime/node";

export interface OpenedBase {
  readonly quantized: QuantizedBase;
  /** Bytes that travel to a device that has the base; those of the whole variant where a delta saves nothing. */
  readonly deltaBytes: (variantBytes: Uint8Array) => number;
}

/**
 * Opens the version that devices have: a package, of which the int8 variant counts and the float one tells what did not change since, or an
 * ONNX file that `model quantize` wrote.
 * @throws FieldloopError `invalid_argument`, `not_found`, `package_incompatible` where there is nothing to stay near to
 */
export async function openBase(base: string, path: string, settings: VariantSettings): Promise<OpenedBase> {
  if (settings.method !== "static" || settings.scheme === "u8u8") {
    throw new FieldloopError(
      "invalid_argument",
      `Stay near "${base}": wanted --method static with int8 weights (--scheme u8s8 or s8s8)`,
    );
  }
  const info = await stat(base).catch(() => undefined);
  if (!info) throw new FieldloopError("not_found", `Stay near a base: no file or folder "${base}"`);
  const { int8, float } = info.isDirectory()
    ? await packageFiles(base)
    : { int8: new Uint8Array(await readModelFile(base)), float: undefined };
  const quantized = readQuantizedBase(int8, float);
  if (quantized.levels.size === 0) {
    throw new FieldloopError(
      "package_incompatible",
      `Stay near "${base}": it has no int8 weights that "fieldloop model quantize" wrote, so "${path}" cannot keep them; leave --base out`,
    );
  }
  return { quantized, deltaBytes: (bytes) => makeDeltaOf(int8, bytes)?.length ?? bytes.length };
}

async function packageFiles(
  dir: string,
): Promise<{ readonly int8: Uint8Array; readonly float: Uint8Array | undefined }> {
  const { manifest } = await openPackage(dir);
  const read = async (precision: string): Promise<Uint8Array | undefined> => {
    const variant = manifest.variants.find((entry) => entry.precision === precision);
    return variant && new Uint8Array(await readFile(join(dir, variant.file)));
  };
  const int8 = await read("int8");
  if (int8) return { int8, float: await read("fp32") };
  const name = formatModelVersion(manifest.model, manifest.version);
  throw new FieldloopError(
    "package_incompatible",
    `Stay near "${dir}": ${name} has no int8 variant; leave --base out`,
  );
}
