import { readFileSync } from "node:fs";
import { arch, cpus, platform, totalmem } from "node:os";
import type { Facts } from "@fieldloop/protocol";
import { IR_VERSION_MAX, OPSETS_MAX } from "../onnx/limits.js";
import { MANIFEST_SCHEMA_MAX } from "../package/manifest.js";
import { ortNode } from "./ort.js";

/** CPU flags that decide about variants; a device reports these and no others. */
const REPORTED_FLAGS = new Set([
  "sse4_2",
  "avx",
  "avx2",
  "fma",
  "f16c",
  "avx512f",
  "avx512bw",
  "avx512vl",
  "avx512_vnni",
  "avx512_bf16",
  "avx512_fp16",
  "avx_vnni",
  "amx_tile",
  "amx_int8",
  "amx_bf16",
  "asimd",
  "asimdhp",
  "asimddp",
  "i8mm",
  "bf16",
  "sve",
  "sve2",
]);

/**
 * What this machine is: decides which variant it gets.
 * @param executionProviders what really works here, as `workingProviders` found it; the CPU always does
 */
export function hostFacts(executionProviders: readonly string[] = ["cpu"]): Facts {
  const cpuInfo = readCpuInfo();
  const processors = cpus();
  return {
    arch: arch(),
    platform: platform(),
    cpuModel: (processors[0]?.model.trim() || fieldOf(cpuInfo, "model name") || "unknown").slice(0, 128),
    cpuCount: Math.max(processors.length, 1),
    cpuFlags: cpuFlagsOf(cpuInfo),
    memoryBytes: totalmem(),
    executionProviders: [...executionProviders],
    nodeVersion: process.versions.node,
    runtimeVersion: `${ortNode.name} ${ortNode.version}`,
    timeZone: Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC",
    deviceClass: `${platform()}-${arch()}`,
    opsetMax: OPSETS_MAX[""] ?? null,
    irVersionMax: IR_VERSION_MAX,
    manifestSchemaMax: MANIFEST_SCHEMA_MAX,
  };
}

/** The reported flags of `/proc/cpuinfo`: its line is `flags` on x86 and `Features` on Arm. */
export function cpuFlagsOf(cpuInfo: string): string[] {
  const line = fieldOf(cpuInfo, "flags") || fieldOf(cpuInfo, "Features");
  return [...new Set(line.split(/\s+/))].filter((flag) => REPORTED_FLAGS.has(flag)).sort();
}

function fieldOf(cpuInfo: string, name: string): string {
  return new RegExp(`^${name}\\s*:\\s*(.*)$`, "m").exec(cpuInfo)?.[1] ?? "";
}

/** Empty where the system has no such file: then no flag is known, and variants that need one are not preferred. */
function readCpuInfo(): string {
  try {
    return readFileSync("/proc/cpuinfo", "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    return "";
  }
}
