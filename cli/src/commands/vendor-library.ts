import { spawn } from "node:child_process";
import { checkRuntimeLibrary, libraryEnvironment } from "@fieldloop/runtime/vendor";

/**
 * Where `FIELDLOOP_ONNXRUNTIME_LIBRARY` names a vendor's library that this process was not started with, runs the same
 * command line once more with it, to its end; signals are passed on.
 * @returns true where that was done: the caller's work is then done as well
 * @throws FieldloopError `provider_unavailable` where the library does not fit
 */
export async function ranWithVendorLibrary(): Promise<boolean> {
  const library = process.env.FIELDLOOP_ONNXRUNTIME_LIBRARY;
  if (!library || process.env.LD_PRELOAD?.split(/[:\s]+/).includes(library)) return false;
  await checkRuntimeLibrary(library);
  const child = spawn(process.execPath, process.argv.slice(1), {
    stdio: "inherit",
    env: libraryEnvironment(process.env, library),
  });
  const pass = (signal: NodeJS.Signals): void => void child.kill(signal);
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, pass);
  process.exitCode = await new Promise<number>((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => resolve(code ?? 1));
  });
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.off(signal, pass);
  return true;
}
