import type { QuantizedType } from "./numeric.js";

/**
 * Types of activations and weights, in that order:
 * - `u8s8`: uint8 asymmetric and int8; what x86 and Arm CPUs run fastest, and the usual choice
 * - `s8s8`: int8 symmetric and int8; what TensorRT takes. On x86 ONNX Runtime runs most of it in float
 * - `u8u8`: uint8 asymmetric and uint8; for x86 without VNNI where 7-bit weights lose too much
 */
export const QUANTIZATION_SCHEMES = ["u8s8", "s8s8", "u8u8"] as const;
export type QuantizationScheme = (typeof QUANTIZATION_SCHEMES)[number];

export interface SchemeSettings {
  readonly activation: QuantizedType;
  readonly weight: QuantizedType;
  readonly symmetricActivation: boolean;
  readonly reduceRange: boolean;
}

/** CPU flags with an 8-bit dot product that does not saturate, as `facts.cpuFlags` spells them. */
const EXACT_DOT_PRODUCT = ["avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"];
const X86_VECTORS = ["avx2", "avx512f", "ssse3", "sse4_1", "avx"];

/**
 * Settings of a scheme for the CPUs that will run it, one list of flags for each kind of device. Weights get 7 bits where u8s8
 * meets an x86 CPU without VNNI: its multiply-add saturates at 16 bits (ONNX Runtime `quantization.md`, "reduce_range").
 */
export function schemeSettings(
  scheme: QuantizationScheme,
  devices: readonly (readonly string[])[],
): SchemeSettings {
  return {
    activation: scheme === "s8s8" ? "int8" : "uint8",
    weight: scheme === "u8u8" ? "uint8" : "int8",
    symmetricActivation: scheme === "s8s8",
    reduceRange: scheme === "u8s8" && devices.some(needsReducedRange),
  };
}

/** Whether a CPU with these flags saturates when uint8 activations meet full-range int8 weights. */
export function needsReducedRange(cpuFlags: readonly string[]): boolean {
  const has = (flags: readonly string[]) => flags.some((flag) => cpuFlags.includes(flag));
  return has(X86_VECTORS) && !has(EXACT_DOT_PRODUCT);
}

/** What a variant's `cpuFlags` say: where its integers are faster than floats. Empty for what is not meant for a CPU. */
export function variantCpuFlags(scheme: QuantizationScheme, reduceRange: boolean): string[] {
  if (scheme === "s8s8") return ["asimddp", "i8mm"];
  return reduceRange || scheme === "u8u8" ? ["avx2", ...EXACT_DOT_PRODUCT] : [...EXACT_DOT_PRODUCT];
}
