/** Chromium's software implementation of Vulkan: the GPU path without a GPU. Drivers are found when a process starts. */
export const SOFTWARE_VULKAN = "/usr/lib/chromium/vk_swiftshader_icd.json";
