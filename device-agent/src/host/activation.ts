import type { Activation } from "../ipc.js";
import type { HostModel } from "./model.js";

/** What is told of a model that answers from now on. */
export function activationOf(
  model: HostModel,
  loadMs: number,
  swapGapMs: number,
  framesDroppedDuringSwap: number,
): Activation {
  const { origin, variant, executionProvider, providerShares } = model;
  return {
    origin,
    variant,
    executionProvider,
    ...(providerShares === undefined ? {} : { providerShares }),
    loadMs,
    swapGapMs,
    framesDroppedDuringSwap,
  };
}
