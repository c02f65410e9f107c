import type { ErrorCode } from "@fieldloop/protocol";
import {
  deploymentId,
  type DeviceObservation,
  type PackageRef,
  type RolloutDevice,
  type VersionCounts,
} from "../domain/rollout.js";
import { currentWave } from "../domain/rollout-step.js";
import type { Deployment } from "../store/deployments.js";
import type { StoredRollout } from "../store/rollouts.js";

/** Judged predictions of each version that a comparison looks at: the newest, so that an old summer does not hide a bad week. */
export const COMPARED_FEEDBACK_MAX = 300;
/** How far back the version before is looked at. */
const BEFORE_WINDOW_MS = 24 * 3_600_000;

/** What the observer reads; devices, deployments and telemetry of the server have these. */
export interface ObserverSources {
  readonly devices: {
    observe(
      devices: readonly string[],
      model: string,
    ): Promise<ReadonlyMap<string, { lastSeen: number | null; running: PackageRef | null }>>;
  };
  readonly deployments: { ofRollout(rollout: string): Promise<Deployment[]> };
  readonly telemetry: {
    /** Predictions of one version on one device in [from, to], and what feedback says of the newest `feedbackMax` it judged. */
    versionCounts(query: {
      device: string;
      model: string;
      version: number;
      from: number;
      to: number;
      feedbackMax: number;
    }): Promise<VersionCounts>;
  };
}

const NOTHING: VersionCounts = { predictions: 0, meanLatencyMs: null, feedback: { successes: 0, count: 0 } };

/** Reads what a step of the rollout engine looks at. Counts are read only where a gate is about to be judged. */
export class RolloutObserver {
  readonly #sources: ObserverSources;

  constructor(sources: ObserverSources) {
    this.#sources = sources;
  }

  async observe(rollout: StoredRollout, now: number): Promise<Map<string, DeviceObservation>> {
    const deployments = new Map(
      (await this.#sources.deployments.ofRollout(rollout.rollout)).map((deployment) => [
        deployment.deployment,
        deployment,
      ]),
    );
    const wave = currentWave(rollout);
    const judged = wave && (wave.state === "soaking" || wave.state === "inconclusive") ? wave.wave : 0;
    // Later waves are looked at when their turn comes.
    const looked = rollout.devices.filter(
      ({ offered, wave: number }) => offered !== null || number <= (wave?.wave ?? 0),
    );
    const devices = await this.#sources.devices.observe(
      looked.map(({ device }) => device),
      rollout.model,
    );
    const observations = new Map<string, DeviceObservation>();
    for (const device of looked) {
      const record = devices.get(device.device);
      const deployment = deployments.get(deploymentId(rollout.rollout, device.device, "offer"));
      observations.set(device.device, {
        lastSeen: record?.lastSeen ?? null,
        running: record?.running ?? null,
        deployment: deployment ? wordOf(deployment) : null,
        ...(device.wave === judged
          ? await this.counts(rollout, device, now)
          : { before: NOTHING, after: NOTHING }),
      });
    }
    return observations;
  }

  /** The version before and the new one on one device until the rollout's end; nothing where there is none. */
  async counts(
    rollout: Pick<StoredRollout, "model" | "version" | "finished">,
    { device, offered, previous }: RolloutDevice,
    now: number,
  ): Promise<{ before: VersionCounts; after: VersionCounts }> {
    if (offered === null) return { before: NOTHING, after: NOTHING };
    const { model, version } = rollout;
    const feedbackMax = COMPARED_FEEDBACK_MAX;
    const after = await this.#sources.telemetry.versionCounts({
      device,
      model,
      version,
      from: offered,
      to: rollout.finished ?? now,
      feedbackMax,
    });
    if (!previous) return { before: NOTHING, after };
    const before = await this.#sources.telemetry.versionCounts({
      device,
      model: previous.model,
      version: previous.version,
      from: offered - BEFORE_WINDOW_MS,
      to: offered,
      feedbackMax,
    });
    return { before, after };
  }
}

function wordOf(deployment: Deployment): NonNullable<DeviceObservation["deployment"]> {
  const { state, errorCode, errorMessage, updated } = deployment;
  return { state, errorCode: errorCode as ErrorCode | null, errorMessage, updated };
}
