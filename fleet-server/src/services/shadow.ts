import { FieldloopError, type ShadowCounts, type ShadowView } from "@fieldloop/protocol";
import { combineStretches, NOTHING_LABELLED } from "../domain/shadow.js";
import { SERVER_LIMITS } from "../limits.js";
import type { Deployment, DeploymentStore } from "../store/deployments.js";
import type { ShadowStore } from "../store/shadow.js";

export interface ShadowServiceOptions {
  readonly deployments: Pick<DeploymentStore, "get" | "ofRollout">;
  readonly shadow: ShadowStore;
}

/** What shadows came to: for the gates of a rollout, and for people. */
export class ShadowService {
  readonly #options: ShadowServiceOptions;

  constructor(options: ShadowServiceOptions) {
    this.#options = options;
  }

  /** Null where the deployment was never in shadow. */
  async shadowOf(deployment: string): Promise<ShadowCounts | null> {
    return (await this.#counts([deployment])).get(deployment) ?? null;
  }

  /** By device; devices whose deployments were never in shadow are left out. A device that was offered it twice counts with its last. */
  async ofRollout(rollout: string): Promise<ReadonlyMap<string, ShadowCounts>> {
    const deployments = await this.#options.deployments.ofRollout(rollout);
    const counts = await this.#counts(deployments.map(({ deployment }) => deployment));
    const found = new Map<string, ShadowCounts>();
    for (const { deployment, device } of deployments) {
      const own = counts.get(deployment);
      if (own) found.set(device, own);
    }
    return found;
  }

  /** @throws FieldloopError `not_found` where there is no such deployment, or it was never in shadow */
  async view(deployment: string): Promise<ShadowView> {
    const record = await this.#options.deployments.get(deployment);
    if (!record) throw new FieldloopError("not_found", `Read shadow: there is no deployment "${deployment}"`);
    const { shadow } = this.#options;
    const all = combineStretches((await shadow.stretches([deployment])).get(deployment) ?? []);
    if (!all) throw new FieldloopError("not_found", `Read shadow: "${deployment}" was never in shadow`);
    const { compared, candidateMeanMs, activeMeanMs, classFlips } = all;
    return {
      ...all,
      ...identityOf(record),
      labelled: (await shadow.labelled([deployment])).get(deployment) ?? NOTHING_LABELLED,
      candidateMeanMs: compared === 0 ? null : candidateMeanMs,
      activeMeanMs: compared === 0 ? null : activeMeanMs,
      classFlips: classFlips.map(([active, candidate, count]) => ({ active, candidate, count })),
      samples: await shadow.samples(deployment),
    };
  }

  async #counts(deployments: readonly string[]): Promise<Map<string, ShadowCounts>> {
    const { shadow } = this.#options;
    const found = new Map<string, ShadowCounts>();
    // A rollout may have more deployments than a statement has places for values.
    for (let at = 0; at < deployments.length; at += SERVER_LIMITS.shadowDeploymentsAtOnce) {
      const some = deployments.slice(at, at + SERVER_LIMITS.shadowDeploymentsAtOnce);
      const stretches = await shadow.stretches(some);
      const labelled = await shadow.labelled([...stretches.keys()]);
      for (const [deployment, own] of stretches) {
        const { frames, compared, disagreements } = combineStretches(own)!;
        found.set(deployment, {
          frames,
          compared,
          disagreements,
          labelled: labelled.get(deployment) ?? NOTHING_LABELLED,
        });
      }
    }
    return found;
  }
}

function identityOf({ deployment, device, rollout, model, version }: Deployment) {
  return { deployment, device, rollout, model, version };
}
