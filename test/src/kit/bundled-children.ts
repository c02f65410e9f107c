import childProcess from "node:child_process";
import { readFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import workers from "node:worker_threads";
import { bundledProgram } from "fieldloop/bundled-program";

/**
 * Loaded first of all into each process that runs tests (`vitest.config.ts`). Tests run module by module; the processes and threads that
 * the tested code starts are the bundled ones all the same, as with the command that people run: what is tested is what ships, and a
 * process starts three times faster. Where the bundle is missing, or older than the code, they are the modules.
 */
const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const shipped = readEntries();

function readEntries(): ReadonlyMap<string, string> {
  const program = bundledProgram("agent");
  if (program === undefined) return new Map();
  const folder = fileURLToPath(new URL(".", program));
  const entries = JSON.parse(readFileSync(resolve(folder, "entries.json"), "utf8")) as Record<string, string>;
  return new Map(
    Object.entries(entries).map(([source, file]) => [resolve(ROOT, source), resolve(folder, file)]),
  );
}

function shippedOf<File>(file: File): File | string {
  if (file instanceof URL ? file.protocol !== "file:" : typeof file !== "string") return file;
  return shipped.get(file instanceof URL ? fileURLToPath(file) : String(file)) ?? file;
}

const { fork, spawn } = childProcess;
const { Worker } = workers;
type Arguments = readonly unknown[];

Object.assign(childProcess, {
  fork: (file: string | URL, ...more: Arguments) =>
    Reflect.apply(fork, childProcess, [shippedOf(file), ...more]),
  spawn: (program: string, parameters: unknown, ...more: Arguments) =>
    Reflect.apply(spawn, childProcess, [
      program,
      program === process.execPath && Array.isArray(parameters) ? parameters.map(shippedOf) : parameters,
      ...more,
    ]),
});
Object.assign(workers, {
  Worker: class extends Worker {
    constructor(file: string | URL, options?: workers.WorkerOptions) {
      super(shippedOf(file), options);
    }
  },
});
syncBuiltinESMExports();
