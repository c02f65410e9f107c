import type { ElementType } from "../backend.js";

/** A tensor of a case; strings travel as text, everything else as base64 of little-endian bytes. */
export type CaseTensor =
  | { readonly type: Exclude<ElementType, "string">; readonly dims: readonly number[]; readonly b64: string }
  | { readonly type: "string"; readonly dims: readonly number[]; readonly strings: readonly string[] }
  /** What no tensor of this runtime holds: an ONNX type name such as `INT4` or `sequence_type`. */
  | { readonly unsupported: string };

/** One model with inputs and the outputs that the ONNX standard wants. */
export interface ConformanceCase {
  readonly cat: string;
  readonly name: string;
  readonly set: string;
  readonly inputs: Readonly<Record<string, CaseTensor>>;
  readonly outputs: Readonly<Record<string, CaseTensor>>;
  /** Outputs are random numbers: only types and shapes count. */
  readonly random: boolean;
  readonly model_b64: string;
}

export const CONFORMANCE_STATUSES = [
  "pass",
  "mismatch",
  "load-fail",
  "run-fail",
  "type-not-in-node",
  "crash",
  "timeout",
] as const;
/**
 * `load-fail`: refused by the gate or the engine; `type-not-in-node`: opens, but its inputs or outputs are of a type that
 * does not cross the binding; `crash` and `timeout`: the process of the case had to go.
 */
export type ConformanceStatus = (typeof CONFORMANCE_STATUSES)[number];

export interface CaseResult {
  readonly status: ConformanceStatus;
  /** Empty for `pass`. */
  readonly why: string;
}
