import { expect } from "vitest";
import type { ContractResult } from "@fieldloop/runtime/contract";

/** Software Vulkan has no half floats in its shaders; a case that wants them must then fail saying so. */
export const NO_HALF_FLOATS = { "equal to the CPU: fp16": /requires f16/ } as const;

/**
 * Holds one case of a suite that ran elsewhere to its result.
 * @param lacking cases that may fail for what the device lacks, and what they must say then
 */
export function expectHeld(
  results: readonly ContractResult[],
  name: string,
  lacking: Readonly<Record<string, RegExp>> = {},
): void {
  const result = results.find((candidate) => candidate.name === name);
  expect(result, `case "${name}" was not run`).toBeDefined();
  const said = lacking[name];
  if (said !== undefined && result?.failure !== undefined) expect(result.failure).toMatch(said);
  else expect(result?.failure).toBeUndefined();
}
