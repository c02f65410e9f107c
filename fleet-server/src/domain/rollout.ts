import {
  canTransition,
  DEPLOYMENT,
  ROLLOUT,
  sha256Hex,
  WAVE,
  type DeploymentState,
  type ErrorCode,
  type GateSettings,
  type GateVerdict,
  type RolloutState,
  type WaveState,
} from "@fieldloop/protocol";
import type { Counted } from "./intervals.js";

/**
 * A rollout as data. The engine (`rollout-step.ts`) is a pure function of it and of what was observed, so that a
 * server which died at any instant goes on from the stored form as if nothing had happened.
 */
export interface Rollout {
  readonly rollout: string;
  readonly model: string;
  readonly version: number;
  readonly packageSha256: string;
  readonly gate: GateSettings;
  readonly onFailure: "pause" | "abort" | "roll_back";
  readonly offersPerMinute: number;
  readonly state: RolloutState;
  readonly reason: string | null;
  readonly started: number | null;
  readonly finished: number | null;
  /** In the order of their numbers, which start at 1. */
  readonly waves: readonly RolloutWave[];
  readonly devices: readonly RolloutDevice[];
}

export interface RolloutWave {
  readonly wave: number;
  readonly state: WaveState;
  readonly started: number | null;
  /** When its last device settled and the soak began. */
  readonly soakStarted: number | null;
  /** Its timeout counts from here: the start, the soak's start, or a later resume. */
  readonly watchedSince: number | null;
  readonly finished: number | null;
  readonly verdict: GateVerdict | null;
}

export type RolloutDeviceState = DeploymentState | "waiting" | "silent";

export interface PackageRef {
  readonly model: string;
  readonly version: number;
  readonly packageSha256: string;
}

export interface RolloutDevice {
  readonly device: string;
  readonly wave: number;
  readonly state: RolloutDeviceState;
  readonly errorCode: ErrorCode | null;
  readonly errorMessage: string | null;
  readonly offered: number | null;
  readonly updated: number | null;
  /** What it ran when the version was offered to it: where a roll-back leads. */
  readonly previous: PackageRef | null;
  readonly restore: "none" | "offered" | "done" | "silent" | "impossible";
  readonly restoreOffered: number | null;
}

/** What one version did on a device. */
export interface VersionCounts {
  readonly predictions: number;
  readonly meanLatencyMs: number | null;
  /** Predictions that feedback called right, of those it judged. */
  readonly feedback: Counted;
}

/** What is known about one device at the time of a step. */
export interface DeviceObservation {
  readonly lastSeen: number | null;
  /** The package whose session answers, by the device's own report. */
  readonly running: PackageRef | null;
  /** Latest word on this rollout's deployment. */
  readonly deployment: {
    readonly state: DeploymentState;
    readonly errorCode: ErrorCode | null;
    readonly errorMessage: string | null;
    readonly updated: number;
  } | null;
  /** The version before and the new one, on this device. */
  readonly before: VersionCounts;
  readonly after: VersionCounts;
}

export type Decision =
  | { readonly kind: "rollout"; readonly state: RolloutState; readonly reason: string | null }
  | {
      readonly kind: "wave";
      readonly wave: number;
      readonly state: WaveState;
      readonly verdict: GateVerdict | null;
    }
  | { readonly kind: "watch"; readonly wave: number }
  | {
      readonly kind: "offer";
      readonly device: string;
      readonly previous: PackageRef | null;
      readonly already: boolean;
    }
  | {
      readonly kind: "device";
      readonly device: string;
      readonly state: RolloutDeviceState;
      readonly errorCode: ErrorCode | null;
      readonly errorMessage: string | null;
    }
  | { readonly kind: "restore"; readonly device: string }
  | {
      readonly kind: "restored";
      readonly device: string;
      readonly outcome: "done" | "silent" | "impossible";
    };

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

/** Neither the offer nor time will change it within the wave. */
export function isSettled(state: RolloutDeviceState): boolean {
  return state === "active" || state === "silent" || hasFailed(state);
}

/** Every state that `from` may lead to in one step or more. */
const REACHABLE: ReadonlyMap<DeploymentState, ReadonlySet<DeploymentState>> = reachability();

function reachability(): Map<DeploymentState, ReadonlySet<DeploymentState>> {
  const reach = new Map<DeploymentState, ReadonlySet<DeploymentState>>();
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
export function mayFollow(from: DeploymentState, to: DeploymentState): boolean {
  return REACHABLE.get(from)?.has(to) ?? false;
}

/** The same for the same rollout, device and purpose, so that repeating a decision repeats the assignment and adds none. */
export function deploymentId(rollout: string, device: string, purpose: "offer" | "restore"): string {
  return `dep_${sha256Hex(new TextEncoder().encode(`${rollout}\n${device}\n${purpose}`)).slice(0, 20)}`;
}

/**
 * A copy of a rollout while decisions are made on it: each is applied at once, so that the next one sees it. A decision that the
 * state machines do not allow is a defect of the engine, and thrown.
 */
export class RolloutDraft {
  readonly now: number;
  readonly decisions: Decision[] = [];
  #rollout: Rollout;
  readonly #devices: RolloutDevice[];
  readonly #waves: RolloutWave[];
  readonly #at: ReadonlyMap<string, number>;

  constructor(rollout: Rollout, now: number) {
    this.now = now;
    this.#devices = [...rollout.devices];
    this.#waves = [...rollout.waves];
    this.#rollout = { ...rollout, devices: this.#devices, waves: this.#waves };
    this.#at = new Map(rollout.devices.map(({ device }, at) => [device, at]));
  }

  get rollout(): Rollout {
    return this.#rollout;
  }

  decide(decision: Decision): void {
    switch (decision.kind) {
      case "rollout":
        this.#rollout = moveRollout(this.#rollout, decision.state, decision.reason, this.now);
        break;
      case "wave":
      case "watch":
        this.#waves[decision.wave - 1] = changeWave(this.#waves[decision.wave - 1]!, decision, this.now);
        break;
      case "offer":
      case "device":
      case "restore":
      case "restored": {
        const at = this.#at.get(decision.device)!;
        this.#devices[at] = changeDevice(this.#devices[at]!, decision, this.now);
        break;
      }
    }
    this.decisions.push(decision);
  }
}

function moveRollout(rollout: Rollout, state: RolloutState, reason: string | null, now: number): Rollout {
  demand(canTransition(ROLLOUT, rollout.state, state), `rollout ${rollout.state} → ${state}`);
  const final = state === "succeeded" || state === "aborted" || state === "rolled_back";
  return {
    ...rollout,
    state,
    reason,
    started: rollout.started ?? (state === "running" ? now : null),
    finished: final ? now : null,
  };
}

function changeWave(
  wave: RolloutWave,
  decision: Extract<Decision, { kind: "wave" | "watch" }>,
  now: number,
): RolloutWave {
  if (decision.kind === "watch") return { ...wave, watchedSince: now };
  const { state, verdict } = decision;
  demand(canTransition(WAVE, wave.state, state), `wave ${wave.wave} ${wave.state} → ${state}`);
  const begins = state === "running" || (state === "soaking" && wave.soakStarted === null);
  return {
    ...wave,
    state,
    verdict: verdict ?? wave.verdict,
    started: wave.started ?? now,
    soakStarted: wave.soakStarted ?? (state === "soaking" ? now : null),
    watchedSince: begins ? now : wave.watchedSince,
    finished: state === "passed" || state === "failed" ? now : null,
  };
}

function changeDevice(
  device: RolloutDevice,
  decision: Extract<Decision, { device: string }>,
  now: number,
): RolloutDevice {
  switch (decision.kind) {
    case "offer":
      demand(device.state === "waiting", `offer to a device that is ${device.state}`);
      return {
        ...device,
        state: decision.already ? "active" : "offered",
        previous: decision.previous,
        offered: now,
        updated: now,
      };
    case "device": {
      const { state, errorCode, errorMessage } = decision;
      return { ...device, state, errorCode, errorMessage, updated: now };
    }
    case "restore":
      demand(device.restore === "none", `restore of a device that is "${device.restore}"`);
      return { ...device, restore: "offered", restoreOffered: now };
    case "restored":
      return { ...device, restore: decision.outcome, updated: now };
  }
}

function demand(condition: boolean, what: string): void {
  if (!condition) throw new Error(`Apply rollout decision: ${what} is not allowed`);
}
