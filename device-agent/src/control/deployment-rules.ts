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
const REJECTED = /^(package_|manifest_|onnx_|cbor_|message_|limit_exceeded)/;

/** How long each state may take; the others have an end of their own. */
export const STATE_TIMEOUT_MS: Partial<Record<DeploymentState, number>> = {
  offered: AGENT_LIMITS.verifyTimeoutMs,
  downloading: AGENT_LIMITS.downloadTimeoutMs,
  verifying: AGENT_LIMITS.verifyTimeoutMs,
  self_testing: AGENT_LIMITS.selfTestTimeoutMs,
};

/** Nothing more is to do: final, or committed. */
export function isSettled(state: DeploymentState): boolean {
  return state === "active" || isFinal(DEPLOYMENT, state);
}

/** The state in which a step that failed with this error ends. */
export function finalState(state: DeploymentState, error: FieldloopError): DeploymentState {
  const wanted: DeploymentState =
    error.code === "cancelled"
      ? "cancelled"
      : state === "probation"
        ? "rolled_back"
        : error.code === "timed_out"
          ? "timed_out"
          : REJECTED.test(error.code)
            ? "rejected"
            : "failed";
  return canTransition(DEPLOYMENT, state, wanted) ? wanted : "failed";
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
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done, { once: true });
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
  });
}
