import { readFileSync, readdirSync, statSync } from "node:fs";
import { arch, cpus, platform, release } from "node:os";

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
 * What can change which execution providers work here without a change of this program: Node, kernel, CPU, drivers, the environment
 * by which they are found, a library that is loaded before the bundled one. Loads nothing.
 */
export function driverStamp(
  environment: Readonly<Record<string, string | undefined>> | undefined,
  runtimeLibrary?: string,
): string[] {
  return [
    process.versions.node,
    platform(),
    arch(),
    release(),
    cpus()[0]?.model ?? "",
    String(cpus().length),
    ...DRIVER_FILES.map(textOf),
    ...DRIVER_FOLDERS.map(listOf),
    ...DRIVER_VARIABLES.map((name) => environment?.[name] ?? ""),
    ...(environment?.["LD_PRELOAD"] ?? "").split(/[:\s]+/).map(stampOf),
    runtimeLibrary === undefined ? "" : stampOf(runtimeLibrary),
  ];
}

function textOf(path: string): string {
  return orEmpty(() => readFileSync(path, "utf8"));
}

function listOf(path: string): string {
  return orEmpty(() => readdirSync(path).sort().join(","));
}

function stampOf(path: string): string {
  if (path === "") return "";
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
