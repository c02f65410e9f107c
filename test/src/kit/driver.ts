import { readFileSync } from "node:fs";
import { isAlive } from "./processes.js";

/** Has the number of the process that compiles the SQLite driver, while it does (`scripts/run.mjs`). */
const MARK = new URL("../../../node_modules/.fieldloop-compiling", import.meta.url);
/** Workspaces whose tests do without the driver. */
const WITHOUT = /\/(protocol|runtime|models|device-agent)\/dist\//;

/** Whether the SQLite driver is being compiled just now: in a fresh clone the first tests run meanwhile. */
export function isDriverCompiling(): boolean {
  try {
    return isAlive(Number(readFileSync(MARK, "utf8")));
  } catch {
    // The usual case: there is no such file.
    return false;
  }
}

/** @param file path of a compiled test */
export function wantsDriver(file: string): boolean {
  return !WITHOUT.test(file);
}
