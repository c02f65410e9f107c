import { createHash } from "node:crypto";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { arch, cpus, platform, release } from "node:os";
import { ortNode } from "./ort.js";
import type { ProbeOptions } from "./providers-types.js";

/** Where drivers are registered or say their version: a change there may change what works. */
const DRIVER_FILES = ["/proc/driver/nvidia/version", "/etc/nv_tegra_release", "/sys/module/amdgpu/version"];
const DRIVER_FOLDERS = ["/dev/dri", "/etc/vulkan/icd.d", "/usr/share/vulkan/icd.d"];
/** Environment by which drivers and libraries are found. */
const DRIVER_VARIABLES = [
  "VK_DRIVER_FILES",
  "VK_ICD_FILENAMES",
  "LD_LIBRARY_PATH",
  "LD_PRELOAD",
  "CUDA_VISIBLE_DEVICES",
];

/**
 * SHA-256 of everything that a probe's result depends on: versions of runtime, Node, kernel and drivers, CPU, thread budget,
 * and what the caller adds. Lower-case hexadecimal.
 */
export function machineKey(
  options: Pick<ProbeOptions, "threadCount" | "runtimeLibrary" | "environment">,
  more: readonly string[],
): string {
  const { threadCount, runtimeLibrary, environment } = options;
  const facts = [
    ortNode.version,
    process.versions.node,
    platform(),
    arch(),
    release(),
    cpus()[0]?.model ?? "",
    String(cpus().length),
    String(threadCount),
    ...DRIVER_FILES.map(textOf),
    ...DRIVER_FOLDERS.map(listOf),
    ...DRIVER_VARIABLES.map((name) => environment?.[name] ?? ""),
    runtimeLibrary === undefined ? "" : stampOf(runtimeLibrary),
    ...more,
  ];
  return createHash("sha256").update(JSON.stringify(facts)).digest("hex");
}

function textOf(path: string): string {
  return orEmpty(() => readFileSync(path, "utf8"));
}

function listOf(path: string): string {
  return orEmpty(() => readdirSync(path).sort().join(","));
}

function stampOf(path: string): string {
  return orEmpty(() => {
    const { size, mtimeMs } = statSync(path);
    return `${path} ${size} ${mtimeMs}`;
  });
}

/** A file that is not there is a fact as well. */
function orEmpty(read: () => string): string {
  try {
    return read();
  } catch {
    return "";
  }
}
