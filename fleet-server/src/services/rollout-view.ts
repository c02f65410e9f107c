import type { ErrorCode, RolloutRequest, RolloutView } from "@fieldloop/protocol";
import type { PackageRef, RolloutDevice } from "../domain/rollout.js";
import type { StoredVersion } from "../store/registry.js";
import type { StoredRollout } from "../store/rollouts.js";

/** A new rollout as it is stored first: planned, nothing offered. */
export function buildRollout(
  rollout: string,
  request: RolloutRequest,
  target: StoredVersion,
  waves: readonly (readonly string[])[],
  about: { created: number; createdBy: string; fromVersion: number | null },
): StoredRollout {
  return {
    ...about,
    rollout,
    model: request.model,
    version: request.version,
    packageSha256: target.packageSha256,
    gate: request.gate,
    onFailure: request.onFailure,
    offersPerMinute: request.offersPerMinute,
    state: "draft",
    reason: null,
    started: null,
    finished: null,
    request,
    revision: 1,
    waves: waves.map((_, at) => ({
      wave: at + 1,
      state: "pending",
      started: null,
      soakStarted: null,
      watchedSince: null,
      finished: null,
      verdict: null,
    })),
    devices: waves.flatMap((devices, at) =>
      devices.map(
        (device): RolloutDevice => ({
          device,
          wave: at + 1,
          state: "waiting",
          errorCode: null,
          errorMessage: null,
          offered: null,
          updated: null,
          previous: null,
          restore: "none",
          restoreOffered: null,
        }),
      ),
    ),
  };
}

/** What the target runs, where it is one version of the model. */
export function commonVersion(running: readonly PackageRef[], model: string): number | null {
  const versions = new Set(running.filter((one) => one.model === model).map(({ version }) => version));
  return versions.size === 1 ? [...versions][0]! : null;
}

/** A rollout as the API shows it. */
export function viewRollout(stored: StoredRollout, accuracy: RolloutView["accuracy"]): RolloutView {
  const {
    rollout,
    model,
    version,
    packageSha256,
    fromVersion,
    state,
    reason,
    created,
    started,
    finished,
    request,
  } = stored;
  return {
    rollout,
    model,
    version,
    packageSha256,
    fromVersion,
    state,
    reason,
    created,
    started,
    finished,
    request,
    accuracy,
    waves: stored.waves.map((wave) => ({
      wave: wave.wave,
      state: wave.state,
      started: wave.started,
      finished: wave.finished,
      gate: wave.verdict,
      devices: stored.devices
        .filter((device) => device.wave === wave.wave)
        .map((device) => ({
          device: device.device,
          state: device.state,
          errorCode: device.errorCode satisfies ErrorCode | null,
          updated: device.updated,
        })),
    })),
  };
}
