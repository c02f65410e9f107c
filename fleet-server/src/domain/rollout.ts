import {
  DEPLOYMENT,
  sha256Hex,
  type DecidedBy,
  type DeploymentState,
  type ErrorCode,
  type GateVerdict,
  type HoldReason,
  type RolloutDeviceState,
  type RolloutRequest,
  type RolloutState,
  type RolloutSubject,
  type WaveRequest,
  type WaveState,
} from "@fieldloop/protocol";
import type { DeviceStats } from "./gate-evidence.js";

export type { RolloutDeviceState } from "@fieldloop/protocol";

/**
 * A rollout as data: what is stored, and what the engine works on. The engine changes these records in memory, and its journal says
 * which ones; a server that died at any instant goes on from the stored form as if nothing had happened.
 */
export interface RolloutRecord {
  readonly rollout: string;
  readonly subject: RolloutSubject;
  readonly request: RolloutRequest;
  readonly created: number;
  readonly createdBy: string;
  /** The person who answers for it: another must approve it. */
  readonly creator: string;
  /** The version or configuration that the devices had, where it was one. */
  readonly from: { readonly version: number | null; readonly configId: string | null } | null;
  state: RolloutState;
  reason: string | null;
  started: number | null;
  finished: number | null;
  approved: DecidedBy | null;
  /** It says what its target has: devices that join, return or were held up get it too. */
  current: boolean;
  supersededBy: string | null;
  revision: number;
}

export interface RolloutWave {
  /** From 1. */
  readonly wave: number;
  /** Null for the wave of the control group. */
  readonly plan: WaveRequest | null;
  state: WaveState;
  started: number | null;
  /** When its last device settled and the soak began. */
  soakStarted: number | null;
  /** Its patience counts from here: the start, the soak's start, or a later resume. */
  watchedSince: number | null;
  finished: number | null;
  verdict: GateVerdict | null;
  /** How often its gate was judged, and when it is judged again. */
  looks: number;
  nextLook: number | null;
  approved: DecidedBy | null;
  forced: DecidedBy | null;
}

export interface PackageRef {
  readonly model: string;
  readonly version: number;
  readonly packageSha256: string;
}

/** What a device had when it was asked: where a roll-back leads. */
export type Previous =
  | ({ readonly kind: "package" } & PackageRef)
  /** Null: only the policies of its groups and the fleet. */
  | { readonly kind: "config"; readonly configId: string | null };

/** A device that is compared: from when on, and how what it had before ran until then. */
export interface Watch {
  /** Milliseconds. */
  readonly since: number;
  readonly before: DeviceStats | null;
}

export interface Hold {
  readonly reason: HoldReason;
  readonly detail: string;
  /** The rollout that the device was left to. */
  readonly by?: string;
}

export interface RolloutDevice {
  readonly device: string;
  wave: number;
  /** Its place in the order of the plan. */
  readonly position: number;
  /** Held back for comparison until the last wave. */
  readonly control: boolean;
  readonly joined: boolean;
  state: RolloutDeviceState;
  /** Why it waits or was left out, where that was looked at. */
  hold: Hold | null;
  /** Offers so far. */
  attempt: number;
  errorCode: ErrorCode | null;
  errorMessage: string | null;
  offered: number | null;
  updated: number | null;
  /** Not asked again before. */
  retryAt: number | null;
  previous: Previous | null;
  restore: "none" | "offered" | "done" | "silent" | "impossible";
  /** Why it is silent or impossible. */
  restoreDetail: string | null;
  restoreOffered: number | null;
  watch: Watch | null;
  /** Latest word on its latest deployment; in memory only, the deployment itself is stored. */
  word: DeploymentWord | null;
}

/** What a device said about a deployment. */
export interface DeploymentWord {
  readonly state: DeploymentState;
  readonly errorCode: ErrorCode | null;
  readonly errorMessage: string | null;
}

/** Its device was deleted. */
export const GONE = "the device is not known any more";

/** Left out: the rollout `by` says what the device has from now on. */
export function supersededHold(by: string): Hold {
  return { reason: "superseded", detail: `rollout ${by} says what it has`, by };
}

const FAILED_STATES: ReadonlySet<RolloutDeviceState> = new Set([
  "rejected",
  "failed",
  "timed_out",
  "rolled_back",
  "cancelled",
]);

export function hasFailed(state: RolloutDeviceState): boolean {
  return FAILED_STATES.has(state);
}

/** Asked, and neither there nor failed nor given up: the device may be busy with it. */
export function isInProgress(state: RolloutDeviceState): boolean {
  return state !== "waiting" && state !== "skipped" && !isSettled(state);
}

/** A rollout is changing it now: asked and not settled, or asked to return. No other may ask it meanwhile. */
export function isBusy({ state, restore }: Pick<RolloutDevice, "state" | "restore">): boolean {
  return restore === "none" ? isInProgress(state) : restore === "offered";
}

/** Neither the offer nor time will change it within the wave. */
export function isSettled(state: RolloutDeviceState): boolean {
  return state === "active" || state === "silent" || hasFailed(state);
}

/** Every state that `from` may lead to in one step or more. */
const REACHABLE: ReadonlyMap<string, ReadonlySet<DeploymentState>> = reachability();

function reachability(): Map<string, ReadonlySet<DeploymentState>> {
  const reach = new Map<string, ReadonlySet<DeploymentState>>();
  for (const from of Object.keys(DEPLOYMENT.next) as DeploymentState[]) {
    const seen = new Set<DeploymentState>();
    const open = [...DEPLOYMENT.next[from]];
    for (let state = open.pop(); state !== undefined; state = open.pop()) {
      if (seen.has(state)) continue;
      seen.add(state);
      open.push(...DEPLOYMENT.next[state]);
    }
    reach.set(from, seen);
  }
  return reach;
}

/** Whether a report of `to` may follow `from`: events in between may not have arrived yet, but no report leads back. */
export function mayFollow(from: RolloutDeviceState, to: DeploymentState): boolean {
  return REACHABLE.get(from)?.has(to) ?? false;
}

/** The same for the same rollout, device, purpose and attempt, so that repeating a decision repeats the assignment and adds none. */
export function deploymentId(
  rollout: string,
  device: string,
  purpose: "offer" | "restore",
  attempt: number,
): string {
  const key = `${rollout}\n${device}\n${purpose}${attempt > 1 ? `\n${attempt}` : ""}`;
  return `dep_${sha256Hex(new TextEncoder().encode(key)).slice(0, 20)}`;
}

/** What a rollout changes on a device: two rollouts with the same slot want the same place. */
export function slotOf(subject: RolloutSubject): string {
  return subject.kind === "package" ? `model:${subject.model}` : "config";
}

/** A new rollout's device: planned, not asked. */
export function newRolloutDevice(
  device: string,
  place: { wave: number; position: number; control: boolean; joined: boolean },
): RolloutDevice {
  return {
    device,
    ...place,
    state: "waiting",
    hold: null,
    attempt: 0,
    errorCode: null,
    errorMessage: null,
    offered: null,
    updated: null,
    retryAt: null,
    previous: null,
    restore: "none",
    restoreDetail: null,
    restoreOffered: null,
    watch: null,
    word: null,
  };
}

export function newRolloutWave(wave: number, plan: WaveRequest | null): RolloutWave {
  return {
    wave,
    plan,
    state: "pending",
    started: null,
    soakStarted: null,
    watchedSince: null,
    finished: null,
    verdict: null,
    looks: 0,
    nextLook: null,
    approved: null,
    forced: null,
  };
}
