import { FieldloopError, type Facts, type Manifest, type Variant } from "@fieldloop/protocol";

/** CPU flags that make 8-bit integers faster than floats: dot products of x86 (VNNI, AMX) and of Arm. */
export const INT8_CPU_FLAGS = ["avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"] as const;

type DeviceFacts = Pick<Facts, "cpuFlags" | "executionProviders" | "memoryBytes">;

/**
 * The variant that suits a device best: int8 where the CPU has one of the flags that the variant was made for (or any of
 * {@link INT8_CPU_FLAGS} where it names none), else fp32, then fp16, and int8 on a CPU that is slow at it last.
 * Equals keep the manifest's order.
 * @throws FieldloopError `package_incompatible` where no variant has an execution provider of the device and fits its memory
 */
export function chooseVariant(
  manifest: Pick<Manifest, "model" | "version" | "variants">,
  facts: DeviceFacts,
): Variant {
  const runnable = manifest.variants.filter(
    (variant) =>
      variant.executionProviders.some((provider) => facts.executionProviders.includes(provider)) &&
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
  switch (variant.precision) {
    case "int8":
      return suits ? 0 : 4;
    case "fp32":
      return variant.cpuFlags.length === 0 || suits ? 1 : 3;
    case "fp16":
      return 2;
    case "int4":
      return 3;
  }
}
