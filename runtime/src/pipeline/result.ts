import type { HeadResult } from "../heads/result.js";

/** What one node of a pipeline said about one frame, or about one box of it. */
export interface NodeResult {
  readonly node: string;
  readonly model: string;
  readonly version: number;
  /** Crops only: position of the box in the result of the head that found it. */
  readonly crop?: number;
  /** Where the node took its tensors or boxes from another node: position in `nodes` of the result that had them. Absent: the root's. */
  readonly parent?: number;
  /** Boxes and points are in 0..1 of the whole source image, those of crops as well. */
  readonly heads: readonly HeadResult[];
  /** Cutting, pre-processing, run and heads, in milliseconds; what ran as one batch is shared out evenly. */
  readonly latencyMs: number;
}
