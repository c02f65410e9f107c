import { measureBackends } from "./backends.js";
import { measureConformance } from "./conformance.js";
import { measureLanes } from "./lanes.js";
import { measureOverhead } from "./overhead.js";
import { measurePipelines } from "./pipelines.js";
import type { Figure } from "./report.js";

/** What the runtime adds to bare ONNX Runtime: per call, per pipeline, per backend; and whether it gives the same. */
export async function runRuntimeSuite(): Promise<Figure[]> {
  return [
    ...(await measureOverhead()),
    ...(await measureLanes()),
    ...(await measurePipelines()),
    ...(await measureBackends()),
    ...(await measureConformance(process.env["FIELDLOOP_TEST_DATA"] ?? "")),
  ];
}
