import type { ConformanceCase } from "./conformance-case.js";
import { runCase } from "./conformance-run.js";
import { serveScratch } from "./scratch-child.js";

/** The child process of a conformance run. The parent wrote the case; nothing of it has been checked yet. */
serveScratch((request) => {
  const { entry, within } = request as { entry: ConformanceCase; within: string };
  return runCase(entry, within);
});
