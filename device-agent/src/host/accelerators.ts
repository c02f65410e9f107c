import { existsSync, readdirSync } from "node:fs";

/** Environment by which a Vulkan driver is named where there is no device node for it. */
const VULKAN_VARIABLES = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"];

/**
 * Of the execution providers that the library knows those whose hardware may be here: trying one costs a process of its own, so what
 * cannot be is left out. Only Linux can be asked so cheaply; elsewhere all may be.
 */
export function likelyAccelerators(
  candidates: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
  platform: NodeJS.Platform = process.platform,
): string[] {
  const accelerators = candidates.filter((name) => name !== "cpu" && name !== "wasm");
  if (platform !== "linux") return accelerators;
  const hasNvidia = existsSync("/dev/nvidiactl") || existsSync("/dev/nvhost-ctrl");
  const hasVulkan =
    hasNvidia || hasRenderNode() || VULKAN_VARIABLES.some((name) => environment[name] !== undefined);
  return accelerators.filter((name) => {
    if (name === "cuda" || name === "tensorrt") return hasNvidia;
    return name === "webgpu" ? hasVulkan : true;
  });
}

/** A GPU of any make: `/dev/dri/renderD128` and so on. */
function hasRenderNode(): boolean {
  try {
    return readdirSync("/dev/dri").some((name) => name.startsWith("renderD"));
  } catch {
    return false;
  }
}
