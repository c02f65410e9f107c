import type { Head } from "@fieldloop/protocol";
import type { Tensor } from "../backend.js";
import type { RegressionResult } from "./result.js";
import { named, outputInvalid, realValues } from "./values.js";

export type RegressionHead = Extract<Head, { kind: "regression" }>;

/**
 * `raw · scale + offset` of each target; `position` is the place of the first between its `min` and `max`, unclipped.
 * @throws FieldloopError `model_output_invalid` where there is not one finite value for each target
 */
export function readRegression(head: RegressionHead, output: Tensor): RegressionResult {
  const raw = realValues(output, head.quantization);
  if (raw.length !== head.targets.length) {
    throw outputInvalid(
      head,
      `output ${named(head.output, output)}, wanted one value for each of ${head.targets.length} targets`,
    );
  }
  const values = Float32Array.from(
    raw,
    (value, at) => value * head.targets[at]!.scale + head.targets[at]!.offset,
  );
  if (!values.every(Number.isFinite)) {
    throw outputInvalid(head, `output "${head.output}" holds values that are not finite`);
  }
  const { min, max } = head.targets[0]!;
  const hasRange = min !== undefined && max !== undefined && max > min;
  return {
    kind: "regression",
    name: head.name,
    values,
    ...(hasRange ? { position: (values[0]! - min) / (max - min) } : {}),
  };
}
