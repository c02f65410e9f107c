import { toFieldloopError, type Assignment, type FieldloopError } from "@fieldloop/protocol";
import { deploymentId } from "../domain/rollout.js";
import type { StoredVersion } from "../store/registry.js";
import type { OpenAssignment, StoredRollout } from "../store/rollouts.js";

export interface RolloutAssignerOptions {
  readonly registry: { require(model: string, version: number): Promise<StoredVersion> };
  readonly desired: {
    assign(
      device: string,
      request: Omit<Assignment, "lane" | "shadow" | "window" | "expires"> & { readonly rollout: string },
    ): Promise<unknown>;
  };
}

/** Writes what the engine decided into desired states, under deployment ids that repeat with the decision. */
export class RolloutAssigner {
  readonly #options: RolloutAssignerOptions;

  constructor(options: RolloutAssignerOptions) {
    this.#options = options;
  }

  /** @returns why the device can never be asked (unknown, suspended, or no such version); anything else is thrown, to be tried again */
  async assign(rollout: StoredRollout, open: OpenAssignment): Promise<FieldloopError | undefined> {
    const wanted = open.purpose === "offer" ? rollout : open.previous!;
    const { model, version } = wanted;
    try {
      const stored = await this.#options.registry.require(model, version);
      await this.#options.desired.assign(open.device, {
        deployment: deploymentId(rollout.rollout, open.device, open.purpose),
        rollout: rollout.rollout,
        model,
        version,
        packageSha256: stored.packageSha256,
        manifestBytes: stored.manifestBytes,
        probation: rollout.request.probation,
      });
      return undefined;
    } catch (error) {
      const coded = toFieldloopError(error);
      // The assignment was written, and the server died before it noted so.
      if (coded.code === "already_exists") return undefined;
      if (coded.code === "not_found" || coded.code === "device_suspended") return coded;
      throw error;
    }
  }
}
