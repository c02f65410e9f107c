import { FieldloopError, type GoldenCase, type Precision } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import { halfToNumber } from "./tensor-bytes.js";

export interface Tolerance {
  readonly absolute: number;
  readonly relative: number;
}

/** Where a golden case declares none for a precision. */
export const DEFAULT_TOLERANCE: Readonly<Record<Precision, Tolerance>> = {
  fp32: { absolute: 1e-4, relative: 1e-3 },
  fp16: { absolute: 1e-2, relative: 1e-2 },
  int8: { absolute: 1e-1, relative: 1e-1 },
  int4: { absolute: 1e-1, relative: 1e-1 },
};

export function toleranceOf(golden: GoldenCase, precision: Precision): Tolerance {
  return golden.tolerance[precision] ?? DEFAULT_TOLERANCE[precision];
}

/**
 * Holds one output of a golden case against the expected one: |actual − expected| <= absolute + relative·|expected|.
 * @returns the largest absolute difference
 * @throws FieldloopError `golden_case_failed` naming case, output, index and both values
 */
export function compareGolden(
  caseName: string,
  outputName: string,
  actual: Tensor | undefined,
  expected: Tensor,
  tolerance: Tolerance,
): number {
  if (actual === undefined || !sameDims(actual.dims, expected.dims)) {
    const shape = actual === undefined ? "missing" : `[${actual.dims.join(", ")}]`;
    throw failed(caseName, `output "${outputName}" is ${shape}, wanted [${expected.dims.join(", ")}]`);
  }
  let worst = 0;
  for (let at = 0; at < expected.data.length; at++) {
    const wanted = numberAt(expected, at);
    const got = numberAt(actual, at);
    if (Object.is(wanted, got) || wanted === got) continue;
    const difference = Math.abs(got - wanted);
    const allowed = tolerance.absolute + tolerance.relative * Math.abs(wanted);
    // Written so that NaN fails.
    if (!(difference <= allowed)) {
      throw failed(caseName, `output "${outputName}"[${at}] is ${got}, wanted ${wanted} ± ${allowed}`);
    }
    if (difference > worst) worst = difference;
  }
  return worst;
}

function numberAt(tensor: Tensor, at: number): number {
  const value = tensor.data[at];
  return tensor.type === "float16" && typeof value === "number" ? halfToNumber(value) : Number(value);
}

function sameDims(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, at) => size === b[at]);
}

function failed(caseName: string, what: string): FieldloopError {
  return new FieldloopError("golden_case_failed", `Check golden case "${caseName}": ${what}`);
}
