import { open, readFile, stat } from "node:fs/promises";
import { createRequire } from "node:module";
import { isAbsolute } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";
import { z } from "zod";

const CHUNK_BYTES = 4 * 1024 * 1024;
/** The name of the version that a library of ONNX Runtime gives its symbols, e.g. `VERS_1.30.0`. */
const SYMBOL_VERSION = /\0VERS_(\d+\.\d+\.\d+)\0/;
const OVERLAP_BYTES = 64;

export { driverStamp } from "./driver-stamp.js";

/** `@fieldloop/runtime/vendor`: a vendor's own ONNX Runtime library. Loads no native library itself. */

/**
 * Environment of a process that uses a vendor's ONNX Runtime instead of the bundled one: the loader takes the library that
 * was loaded first under a name (ld.so(8), `LD_PRELOAD`), and both are `libonnxruntime.so.1`.
 * @param environment what else the process gets
 */
export function libraryEnvironment(
  environment: Readonly<Record<string, string | undefined>>,
  runtimeLibrary: string | undefined,
): Record<string, string | undefined> {
  if (runtimeLibrary === undefined) return { ...environment };
  const others = (environment["LD_PRELOAD"] ?? "")
    .split(/[:\s]+/)
    .filter((path) => path !== "" && path !== runtimeLibrary);
  return { ...environment, LD_PRELOAD: [runtimeLibrary, ...others].join(":") };
}

/**
 * Holds a vendor's library against the binding that will call it. The binding asks for symbols of exactly its own version.
 * @param wantedVersion that of the installed binding by default
 * @returns the version
 * @throws FieldloopError `provider_unavailable` where the file is not there, is no ONNX Runtime library or another version
 */
export async function checkRuntimeLibrary(path: string, wantedVersion?: string): Promise<string> {
  if (process.platform !== "linux") {
    throw new FieldloopError(
      "provider_unavailable",
      `Use library "${path}": a library of its own works on Linux, this is ${process.platform}`,
    );
  }
  // The loader takes a list: what stands behind such a character would be another library, which nobody held against anything.
  if (!isAbsolute(path) || /[\s:$]/.test(path)) {
    throw new FieldloopError(
      "provider_unavailable",
      `Use library "${path}": wanted a whole path without spaces, colons and $`,
    );
  }
  const version = await symbolVersion(path);
  const wanted = wantedVersion ?? (await bindingVersion());
  if (version === wanted) return version;
  throw new FieldloopError(
    "provider_unavailable",
    version === undefined
      ? `Use library "${path}": it is no shared library of ONNX Runtime`
      : `Use library "${path}": it is ONNX Runtime ${version}, wanted ${wanted}, the version of the installed binding`,
  );
}

async function bindingVersion(): Promise<string> {
  const path = createRequire(import.meta.url).resolve("onnxruntime-node/package.json");
  return z.object({ version: z.string() }).parse(JSON.parse(await readFile(path, "utf8"))).version;
}

async function symbolVersion(path: string): Promise<string | undefined> {
  const fail = (cause?: unknown): never => {
    throw new FieldloopError("provider_unavailable", `Use library "${path}": it can't be read`, { cause });
  };
  // Opening a named pipe would wait for its writer.
  if (!(await stat(path).catch(fail)).isFile()) fail();
  const file = await open(path, "r").catch(fail);
  try {
    const buffer = Buffer.alloc(OVERLAP_BYTES + CHUNK_BYTES);
    for (let position = 0, kept = 0; ; ) {
      const { bytesRead } = await file.read(buffer, kept, CHUNK_BYTES, position);
      if (bytesRead === 0) return undefined;
      if (position === 0 && buffer.readUInt32BE(0) !== 0x7f454c46) return undefined;
      const found = SYMBOL_VERSION.exec(buffer.toString("latin1", 0, kept + bytesRead));
      if (found !== null) return found[1];
      const end = kept + bytesRead;
      position += bytesRead;
      kept = Math.min(OVERLAP_BYTES, end);
      buffer.copyWithin(0, end - kept, end);
    }
  } finally {
    await file.close();
  }
}
