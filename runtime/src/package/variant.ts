import { FieldloopError, type Facts, type Manifest, type Variant } from "@fieldloop/protocol";

/** CPU flags that make 8-bit integers faster than floats: dot products of x86 (VNNI, AMX) and of Arm. */
export const INT8_CPU_FLAGS = ["avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"] as const;

/** Execution providers on which half floats are as fast as floats or faster, and 8-bit integers made for a CPU are not. */
const ACCELERATORS: readonly string[] = ["webgpu", "cuda", "tensorrt", "coreml", "dml"];
/** CPU flags with arithmetic of half floats; without them a CPU converts to floats and back. */
const FP16_CPU_FLAGS: readonly string[] = ["avx512_fp16", "asimdhp"];

type DeviceFacts = Pick<Facts, "cpuFlags" | "executionProviders" | "memoryBytes">;

/** 0 for the most exact form of the numbers, more for coarser ones. */
export function precisionRank(variant: Pick<Variant, "precision">): number {
  return (["fp32", "fp16", "int8", "int4"] as const).indexOf(variant.precision);
}

/**
 * The variant that likely suits a device best, before anything was measured there (`chooseProviders` measures): int8 where the
 * CPU has one of the flags that the variant was made for (or any of {@link INT8_CPU_FLAGS} where it names none), else
 * fp32, then fp16 (before fp32 where a working accelerator or the CPU computes in it), 4-bit weights, and int8 on a CPU that
 * is slow at it last. Equals keep the manifest's order.
 * @throws FieldloopError `package_incompatible` where no variant has an execution provider and the CPU flags of the device and fits its memory
 */
export function chooseVariant(
  manifest: Pick<Manifest, "model" | "version" | "variants">,
  facts: DeviceFacts,
): Variant {
  const runnable = manifest.variants.filter(
    (variant) =>
      variant.executionProviders.some((provider) => facts.executionProviders.includes(provider)) &&
      (variant.cpuFlagsRequired?.some((flag) => facts.cpuFlags.includes(flag)) ?? true) &&
      (variant.memoryBytesMax ?? 0) <= facts.memoryBytes,
  );
  const best = runnable.reduce<Variant | undefined>(
    (chosen, variant) =>
      chosen === undefined || rank(variant, facts) < rank(chosen, facts) ? variant : chosen,
    undefined,
  );
  if (best === undefined) {
    const offered = manifest.variants.map(
      (variant) => `${variant.name} (${variant.executionProviders.join(", ")})`,
    );
    throw new FieldloopError(
      "package_incompatible",
      `Choose variant of "${manifest.model}@${manifest.version}": it offers ${offered.join("; ")}, this device has ${facts.executionProviders.join(", ")} and ${facts.memoryBytes} bytes of memory`,
    );
  }
  return best;
}

function rank(variant: Variant, facts: DeviceFacts): number {
  const wanted: readonly string[] = variant.cpuFlags.length > 0 ? variant.cpuFlags : INT8_CPU_FLAGS;
  const suits = wanted.some((flag) => facts.cpuFlags.includes(flag));
  const accelerated = variant.executionProviders.some(
    (provider) => ACCELERATORS.includes(provider) && facts.executionProviders.includes(provider),
  );
  const onCpu = variant.executionProviders.includes("cpu") && facts.executionProviders.includes("cpu");
  switch (variant.precision) {
    case "int8":
      // An int8 variant that names no CPU was quantized for its accelerator.
      return (onCpu && suits) || (!onCpu && accelerated) ? 0 : 5;
    case "fp16":
      return accelerated || FP16_CPU_FLAGS.some((flag) => facts.cpuFlags.includes(flag)) ? 1 : 3;
    case "fp32":
      return variant.cpuFlags.length === 0 || suits ? 2 : 4;
    case "int4":
      return 4;
  }
}
