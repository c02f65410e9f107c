import {
  canTransition,
  DEPLOYMENT,
  FieldloopError,
  isFinal,
  type Assignment,
  type DeploymentState,
} from "@fieldloop/protocol";
import type { Activation } from "../ipc.js";
import { AGENT_LIMITS } from "../limits.js";
import type { Installed } from "./deployment-file.js";

/** Numbers that a step of a deployment has to tell. */
export type Measured = Record<string, number>;

/** Refused by what it is: another try would end the same. All else is `failed`. */
const REJECTED = /^(package_|manifest_|onnx_|cbor_|message_|trust_|limit_exceeded|device_class_mismatch)/;

/** How long each state may work, waiting left out; activation and probation have ends of their own. */
const STATE_TIMEOUT_MS: Partial<Record<DeploymentState, number>> = {
  offered: AGENT_LIMITS.offerTimeoutMs,
  downloading: AGENT_LIMITS.downloadTimeoutMs,
  verifying: AGENT_LIMITS.verifyTimeoutMs,
  installed: AGENT_LIMITS.offerTimeoutMs,
  self_testing: AGENT_LIMITS.selfTestTimeoutMs,
  shadowing: AGENT_LIMITS.shadowTimeoutMs,
};

/**
 * Starts of the agent that may find a deployment in a state before it is given up: a step that ends the whole machine each time must come
 * to an end too. Undefined for states that are settled.
 */
const STARTS_MAX: Partial<Record<DeploymentState, number>> = {
  offered: AGENT_LIMITS.waitingStartsMax,
  downloading: AGENT_LIMITS.downloadStartsMax,
  verifying: AGENT_LIMITS.verifyStartsMax,
  installed: AGENT_LIMITS.waitingStartsMax,
  self_testing: AGENT_LIMITS.selfTestStartsMax,
  shadowing: AGENT_LIMITS.selfTestStartsMax,
  activating: AGENT_LIMITS.activationAttemptsMax,
  probation: AGENT_LIMITS.probationAttemptsMax,
};

/** Milliseconds of work; undefined where the state ends by itself. */
export function stateTimeoutMs(state: DeploymentState, assignment: Assignment): number | undefined {
  const limitMs = STATE_TIMEOUT_MS[state];
  if (limitMs === undefined) return undefined;
  if (state !== "shadowing") return limitMs;
  return Math.min(limitMs + (assignment.shadow?.seconds ?? 0) * 1_000 * SHADOW_SLACK, TIMER_MS_MAX);
}

/** Predictions may come slowly, and the candidate may take its share of time only. */
const SHADOW_SLACK = 4;
/** What a timer holds: 24.8 days. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** A download may take the time that its bytes need at the least rate besides. */
export function downloadTimeMs(bytes: number): number {
  const { downloadTimeoutMs, downloadBytesPerSecondMin } = AGENT_LIMITS;
  return Math.min(downloadTimeoutMs + (bytes / downloadBytesPerSecondMin) * 1_000, TIMER_MS_MAX);
}

/** Why a deployment that so many starts found in a state goes no further; undefined where it does. */
export function giveUp(state: DeploymentState, starts: number): FieldloopError | undefined {
  const startsMax = STARTS_MAX[state];
  if (startsMax === undefined || starts < startsMax) return undefined;
  const code =
    state === "probation" ? "probation_failed" : state === "activating" ? "host_crashed" : "timed_out";
  return new FieldloopError(code, `Deployment: the agent stopped ${starts} times in "${state}"`);
}

/** In these a host may run the candidate, or is about to. */
export function isTaken(state: DeploymentState): boolean {
  return state === "activating" || state === "probation";
}

/** Nothing more is to do: final, or committed. */
export function isSettled(state: DeploymentState): boolean {
  return state === "active" || isFinal(DEPLOYMENT, state);
}

/** The state in which a step that failed with this error ends. */
export function finalState(state: DeploymentState, error: FieldloopError): DeploymentState {
  const wanted = wantedEnd(state, error);
  return canTransition(DEPLOYMENT, state, wanted) ? wanted : "failed";
}

function wantedEnd(state: DeploymentState, { code }: FieldloopError): DeploymentState {
  if (code === "cancelled") return "cancelled";
  if (code === "returned_locally") return isTaken(state) ? "rolled_back" : "cancelled";
  if (state === "probation") return "rolled_back";
  if (code === "timed_out") return "timed_out";
  return REJECTED.test(code) ? "rejected" : "failed";
}

/** `internal` says nothing to the fleet: name the step that failed. */
export function withoutInternal(error: FieldloopError, state: DeploymentState): FieldloopError {
  if (error.code !== "internal" || state !== "self_testing") return error;
  return new FieldloopError("self_test_failed", error.message, { cause: error });
}

export function installedOf(assignment: Assignment): Installed {
  const { model, version, packageSha256 } = assignment;
  return { model, version, packageSha256 };
}

export function measuredOf(activation: Activation): Measured {
  const { loadMs, swapGapMs, framesDroppedDuringSwap } = activation;
  return { loadMs, swapGapMs, framesDroppedDuringSwap };
}

/** Ends early when the signal does. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done, { once: true });
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
  });
}
