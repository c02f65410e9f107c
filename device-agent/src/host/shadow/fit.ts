import type { Manifest, ModelInput } from "@fieldloop/protocol";
import { frameInput } from "@fieldloop/runtime";
import type { WindowShape } from "../sources/source.js";

/**
 * How a candidate gets at its input from the frames that the source gives to the active version: each does its own pre-processing, so an image
 * is an image whatever its size. `recut`: the active version's windows follow on one another, and the signal in them is cut anew. `none`:
 * the source would have to be read otherwise, as it will be once the candidate is active.
 */
export type Fit =
  | { readonly kind: "same" }
  | { readonly kind: "recut"; readonly from: WindowShape; readonly to: WindowShape }
  | { readonly kind: "none" };

type Part = Pick<Manifest, "inputs" | "nodes">;

/** `isCutBySource`: windows stay what they are whatever the version wants. */
export function fitOf(active: Part, candidate: Part, isCutBySource: boolean): Fit {
  const from = frameInput(active.inputs);
  const to = frameInput(candidate.inputs);
  if (!from || from.kind !== to?.kind) return { kind: "none" };
  if (from.kind !== "window" || to.kind !== "window" || isCutBySource) return { kind: "same" };
  const isOneSignal = from.channels === to.channels && from.sampleRateHz === to.sampleRateHz;
  if (!isOneSignal) return { kind: "none" };
  // Windows that nothing is carried between may come as often as they like.
  if (from.length === to.length && (from.hop === to.hop || !carries(candidate))) return { kind: "same" };
  return from.hop <= from.length ? { kind: "recut", from, to } : { kind: "none" };
}

/** Whether what it answers depends on the frames before. */
export function carries({ inputs, nodes }: Part): boolean {
  return [inputs, ...nodes.map((node) => node.inputs)].some((all) => all.some(isCarried));
}

function isCarried(input: ModelInput): boolean {
  return input.kind === "state" || (input.kind === "window" && input.context > 0);
}
