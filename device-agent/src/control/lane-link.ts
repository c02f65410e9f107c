import type { DeviceState } from "@fieldloop/protocol";
import type { Activation, PackageToRun, ProviderToRun } from "../ipc.js";
import type { LaneSpec } from "../lane-spec.js";
import { PROVIDER_SHOWN_MAX } from "./host-link-options.js";
import { OWN_FAULT } from "./quarantine.js";
import type { HostCrash } from "./supervisor.js";

/** What a lane runs, as the host said last. */
export interface LaneLink {
  readonly spec: LaneSpec;
  running: DeviceState["running"];
  /** What a host that is not ready yet was given to begin with. */
  starting: PackageToRun | undefined;
  /** What the host was asked to change to and has not answered yet. */
  activating: PackageToRun | undefined;
  rateMax: number | null;
}

export function laneLinks(lanes: readonly LaneSpec[]): ReadonlyMap<string, LaneLink> {
  return new Map(
    lanes.map((spec) => [
      spec.name,
      { spec, running: null, starting: undefined, activating: undefined, rateMax: null },
    ]),
  );
}

/** What the host said of itself ended with it. */
export function forgetHost(link: LaneLink): void {
  link.running = null;
  link.starting = undefined;
  link.activating = undefined;
  link.rateMax = null;
}

/** As it is reported; `since` in milliseconds since the epoch. */
export function runningOf(activation: Activation, since: number): NonNullable<DeviceState["running"]> {
  const { model, version, packageSha256 } = activation.origin;
  const { variant, executionProvider, providerShares } = activation;
  return {
    model,
    version,
    packageSha256,
    variant,
    executionProvider: executionProvider.slice(0, PROVIDER_SHOWN_MAX),
    ...(providerShares ? { providerShares: { ...providerShares } } : {}),
    since,
  };
}

/**
 * The lanes that may have ended the host: whose run was stuck, else those that had frames running or changed their model, else all; none
 * where it was an inference for another program.
 */
export function suspectsOf(crash: HostCrash, lanes: readonly LaneLink[]): LaneLink[] {
  const { stuckLane, stuckInference, inferring, frames } = crash;
  if (stuckInference) return [];
  if (stuckLane !== undefined) return lanes.filter(({ spec }) => spec.name === stuckLane);
  const running = lanes.filter(
    ({ spec, activating }) => activating !== undefined || frames.some(({ lane }) => lane === spec.name),
  );
  if (running.length > 0) return running;
  return inferring > 0 ? [] : [...lanes];
}

/** Whether something beside this lane ran when the host ended, so that it may have been that. */
export function ranBeside({ stuckLane, inferring, frames }: HostCrash, name: string): boolean {
  if (stuckLane !== undefined) return stuckLane !== name;
  return inferring > 0 || frames.some(({ lane }) => lane !== name);
}

/**
 * The execution provider whose driver may have taken the whole process with it: of the model that was being loaded, else of the one that
 * had a frame running. Undefined where it was the CPU, or an end from outside. `startsFailed`: hosts in a row that never got ready.
 */
export function providerToBlame(
  link: LaneLink,
  { reason, unresponsive, frames }: HostCrash,
  startsFailed: number,
): { readonly packageSha256: string; readonly provider: ProviderToRun } | undefined {
  if (!unresponsive && !OWN_FAULT.has(reason) && startsFailed < STARTS_FAILED_MAX) return undefined;
  const loading = link.activating ?? link.starting;
  const first = loading?.providers?.[0];
  if (loading && first && first.executionProvider !== "cpu") {
    return { packageSha256: loading.packageSha256, provider: first };
  }
  const { running, spec } = link;
  if (!running || running.executionProvider === "cpu") return undefined;
  return frames.some(({ lane }) => lane === spec.name)
    ? { packageSha256: running.packageSha256, provider: running }
    : undefined;
}

/** A host that is killed from outside before it is ready, time after time, may be so because of what a driver takes. */
const STARTS_FAILED_MAX = 3;
