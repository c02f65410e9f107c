import type { ConformanceCase } from "./conformance-case.js";
import { runCase } from "./conformance-run.js";
import { serveScratch } from "./scratch-child.js";

/** The child process of a conformance run. The parent wrote the case; nothing of it has been checked yet. */
serveScratch((request) => runCase(request as ConformanceCase));
