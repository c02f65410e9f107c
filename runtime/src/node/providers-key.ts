import { createHash } from "node:crypto";
import { driverStamp } from "./driver-stamp.js";
import { ortNode } from "./ort.js";
import type { ProbeOptions } from "./providers-types.js";

/**
 * SHA-256 of everything that a probe's result depends on: versions of runtime, Node, kernel and drivers, CPU, thread budget,
 * and what the caller adds. Lower-case hexadecimal.
 */
export function machineKey(
  options: Pick<ProbeOptions, "threadCount" | "runtimeLibrary" | "environment">,
  more: readonly string[],
): string {
  const { threadCount, runtimeLibrary, environment } = options;
  const facts = [ortNode.version, String(threadCount), ...driverStamp(environment, runtimeLibrary), ...more];
  return createHash("sha256").update(JSON.stringify(facts)).digest("hex");
}
