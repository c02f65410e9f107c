import { canTransition, ROLLOUT, type GateVerdict, type RolloutState } from "@fieldloop/protocol";
import { judgeGate, judgeHealth } from "./gate.js";
import { gatherEvidence } from "./rollout-evidence.js";
import {
  hasFailed,
  isSettled,
  mayFollow,
  RolloutDraft,
  type Decision,
  type DeviceObservation,
  type Rollout,
  type RolloutDevice,
  type RolloutWave,
} from "./rollout.js";

export interface Step {
  readonly rollout: Rollout;
  /** What was decided, in order; `rollout` already holds it. The caller stores that, then carries out the offers and restores. */
  readonly decisions: readonly Decision[];
}

const OFFER_WINDOW_MS = 60_000;

/**
 * One step of the rollout engine: notes what the devices report, then does what the state asks for. Pure: the same rollout,
 * observations and time give the same decisions, and a step that was stored but not carried out is not decided again.
 */
export function step(
  rollout: Rollout,
  observations: ReadonlyMap<string, DeviceObservation>,
  now: number,
): Step {
  const draft = new RolloutDraft(rollout, now);
  noteReports(draft, observations);
  if (draft.rollout.state === "running") runWaves(draft, observations);
  else if (draft.rollout.state === "rolling_back") restoreDevices(draft, observations);
  return { rollout: draft.rollout, decisions: draft.decisions };
}

export type OperatorAction = "start" | "pause" | "resume" | "abort" | "roll_back";

/**
 * What an operator asks for, as decisions.
 * @returns undefined where the rollout's state does not allow it
 */
export function act(
  rollout: Rollout,
  action: OperatorAction,
  reason: string | null,
  now: number,
): Step | undefined {
  const draft = new RolloutDraft(rollout, now);
  const target = ACTION_TARGET[action];
  const from: readonly RolloutState[] = ACTION_FROM[action];
  if (!from.includes(rollout.state) || !canTransition(ROLLOUT, rollout.state, target)) return undefined;
  if (action === "resume") {
    // A failed wave stays failed: going on would mean that its gate meant nothing.
    if (rollout.waves.some((wave) => wave.state === "failed")) return undefined;
    const open = currentWave(rollout);
    if (open && open.state !== "pending") draft.decide({ kind: "watch", wave: open.wave });
  }
  draft.decide({ kind: "rollout", state: target, reason });
  return { rollout: draft.rollout, decisions: draft.decisions };
}

const ACTION_TARGET = {
  start: "running",
  pause: "paused",
  resume: "running",
  abort: "aborted",
  roll_back: "rolling_back",
} as const satisfies Record<OperatorAction, RolloutState>;

const ACTION_FROM: Record<OperatorAction, readonly RolloutState[]> = {
  start: ["draft", "scheduled"],
  pause: ["running"],
  resume: ["paused"],
  abort: ["draft", "awaiting_approval", "scheduled", "running", "paused"],
  roll_back: ["running", "paused", "succeeded"],
};

/** The wave that is not passed yet; undefined when all are. */
export function currentWave(rollout: Rollout): RolloutWave | undefined {
  return rollout.waves.find((wave) => wave.state !== "passed");
}

/** Device states follow the devices' reports; silence is noted where the wave is still open. */
function noteReports(draft: RolloutDraft, observations: ReadonlyMap<string, DeviceObservation>): void {
  const watched = watchedWave(draft.rollout);
  for (const device of draft.rollout.devices) {
    const observation = observations.get(device.device);
    if (device.offered === null || !observation) continue;
    const next = reportedState(draft, device, observation, device.wave === watched?.wave);
    if (next) draft.decide(next);
  }
}

function watchedWave(rollout: Rollout): RolloutWave | undefined {
  const wave = rollout.state === "running" ? currentWave(rollout) : undefined;
  return wave && wave.state !== "pending" && wave.state !== "failed" ? wave : undefined;
}

function reportedState(
  draft: RolloutDraft,
  device: RolloutDevice,
  observation: DeviceObservation,
  watched: boolean,
): Decision | undefined {
  const silentSince = Math.max(observation.lastSeen ?? 0, device.offered ?? 0);
  const silent = draft.now - silentSince > draft.rollout.gate.silenceSeconds * 1000;
  const word = observation.deployment;
  const reported = word && isProven(draft.rollout, word.state, observation) ? word : null;
  if (device.state === "silent") {
    if (silent) return undefined;
    const state = reported?.state ?? "offered";
    return {
      kind: "device",
      device: device.device,
      state,
      errorCode: reported?.errorCode ?? null,
      errorMessage: reported?.errorMessage ?? null,
    };
  }
  if (device.state !== "waiting" && reported && mayFollow(device.state, reported.state)) {
    const { state, errorCode, errorMessage } = reported;
    return { kind: "device", device: device.device, state, errorCode, errorMessage };
  }
  if (watched && silent && !hasFailed(device.state)) {
    return {
      kind: "device",
      device: device.device,
      state: "silent",
      errorCode: "timed_out",
      errorMessage: `nothing heard for ${draft.rollout.gate.silenceSeconds} s`,
    };
  }
  return undefined;
}

/** `active` counts only where the device reports this very package as the one that answers. */
function isProven(rollout: Rollout, state: string, observation: DeviceObservation): boolean {
  return state !== "active" || observation.running?.packageSha256 === rollout.packageSha256;
}

function runWaves(draft: RolloutDraft, observations: ReadonlyMap<string, DeviceObservation>): void {
  const wave = currentWave(draft.rollout);
  if (!wave) {
    draft.decide({ kind: "rollout", state: "succeeded", reason: null });
    return;
  }
  switch (wave.state) {
    case "pending":
      draft.decide({ kind: "wave", wave: wave.wave, state: "running", verdict: null });
      offer(draft, wave.wave, observations);
      break;
    case "running":
      runWave(draft, wave, observations);
      break;
    case "soaking":
    case "inconclusive":
      watchWave(draft, wave, observations);
      break;
    case "failed":
    case "passed":
      break;
  }
}

function runWave(
  draft: RolloutDraft,
  wave: RolloutWave,
  observations: ReadonlyMap<string, DeviceObservation>,
): void {
  const late = draft.now - (wave.watchedSince ?? draft.now) > draft.rollout.gate.waveTimeoutSeconds * 1000;
  const health = judgeHealth(
    draft.rollout.gate,
    gatherEvidence(draft.rollout, wave.wave, observations, late),
    draft.now,
  );
  if (health.verdict === "fail") {
    failWave(draft, wave, health);
    return;
  }
  offer(draft, wave.wave, observations);
  const open = draft.rollout.devices.some((device) => device.wave === wave.wave && !isSettled(device.state));
  if (!open) draft.decide({ kind: "wave", wave: wave.wave, state: "soaking", verdict: null });
}

function watchWave(
  draft: RolloutDraft,
  wave: RolloutWave,
  observations: ReadonlyMap<string, DeviceObservation>,
): void {
  const { gate } = draft.rollout;
  const evidence = gatherEvidence(draft.rollout, wave.wave, observations, false);
  const health = judgeHealth(gate, evidence, draft.now);
  if (health.verdict === "fail") {
    failWave(draft, wave, health);
    return;
  }
  if (draft.now - (wave.soakStarted ?? draft.now) < gate.soakSeconds * 1000) return;
  const verdict = judgeGate(gate, evidence, draft.now);
  switch (verdict.verdict) {
    case "pass":
      draft.decide({ kind: "wave", wave: wave.wave, state: "passed", verdict });
      break;
    case "fail":
      failWave(draft, wave, verdict);
      break;
    case "inconclusive":
      waitOrPause(draft, wave, verdict);
      break;
  }
}

/** Undecided: wait as long as a wave may take, then ask a person. */
function waitOrPause(draft: RolloutDraft, wave: RolloutWave, verdict: GateVerdict): void {
  if (wave.state === "soaking")
    draft.decide({ kind: "wave", wave: wave.wave, state: "inconclusive", verdict });
  const waitedMs = draft.now - (wave.watchedSince ?? draft.now);
  const { soakSeconds, waveTimeoutSeconds } = draft.rollout.gate;
  if (waitedMs > (soakSeconds + waveTimeoutSeconds) * 1000) {
    draft.decide({
      kind: "rollout",
      state: "paused",
      reason: `wave ${wave.wave} is inconclusive: ${explain(verdict)}`,
    });
  }
}

function failWave(draft: RolloutDraft, wave: RolloutWave, verdict: GateVerdict): void {
  draft.decide({ kind: "wave", wave: wave.wave, state: "failed", verdict });
  const reason = `wave ${wave.wave} failed: ${explain(verdict)}`;
  const state = ({ pause: "paused", abort: "aborted", roll_back: "rolling_back" } as const)[
    draft.rollout.onFailure
  ];
  draft.decide({ kind: "rollout", state, reason });
}

function explain(verdict: GateVerdict): string {
  return verdict.tests
    .filter((test) => test.verdict === verdict.verdict)
    .map((test) => `${test.test}: ${test.detail}`)
    .join("; ");
}

function offer(
  draft: RolloutDraft,
  wave: number,
  observations: ReadonlyMap<string, DeviceObservation>,
): void {
  let left = offersLeft(draft);
  for (const device of draft.rollout.devices) {
    if (left <= 0) return;
    if (device.wave !== wave || device.state !== "waiting") continue;
    const running = observations.get(device.device)?.running ?? null;
    const already = running?.packageSha256 === draft.rollout.packageSha256;
    draft.decide({ kind: "offer", device: device.device, previous: already ? null : running, already });
    left--;
  }
}

/** Offers and restores together stay within the rate in every window of a minute. */
function offersLeft(draft: RolloutDraft): number {
  const since = draft.now - OFFER_WINDOW_MS;
  let recent = 0;
  for (const { offered, restoreOffered } of draft.rollout.devices) {
    if (offered !== null && offered > since) recent++;
    if (restoreOffered !== null && restoreOffered > since) recent++;
  }
  return draft.rollout.offersPerMinute - recent;
}

/** Every device that was offered the version gets what it ran before; done when each proves it, or stays silent. */
function restoreDevices(draft: RolloutDraft, observations: ReadonlyMap<string, DeviceObservation>): void {
  let left = offersLeft(draft);
  for (const device of draft.rollout.devices) {
    if (device.restore === "none" && device.offered !== null) {
      if (device.previous === null) {
        // It ran the version before this rollout, or nothing: there is no way back to offer.
        draft.decide({ kind: "restored", device: device.device, outcome: "impossible" });
      } else if (left > 0) {
        draft.decide({ kind: "restore", device: device.device });
        left--;
      }
    } else if (device.restore === "offered") {
      const outcome = restoreOutcome(draft, device, observations.get(device.device));
      if (outcome) draft.decide({ kind: "restored", device: device.device, outcome });
    }
  }
  const open = draft.rollout.devices.some(
    ({ offered, restore }) => offered !== null && (restore === "none" || restore === "offered"),
  );
  if (!open) draft.decide({ kind: "rollout", state: "rolled_back", reason: restoreSummary(draft.rollout) });
}

function restoreOutcome(
  draft: RolloutDraft,
  device: RolloutDevice,
  observation: DeviceObservation | undefined,
): "done" | "silent" | undefined {
  if (observation?.running?.packageSha256 === device.previous?.packageSha256) return "done";
  // Its desired state is retained: it goes back whenever it returns; the rollout need not wait for ever.
  const since = Math.max(observation?.lastSeen ?? 0, device.restoreOffered ?? 0);
  const { silenceSeconds, waveTimeoutSeconds } = draft.rollout.gate;
  const silent = draft.now - since > silenceSeconds * 1000;
  const late = draft.now - (device.restoreOffered ?? draft.now) > waveTimeoutSeconds * 1000;
  return silent || late ? "silent" : undefined;
}

function restoreSummary(rollout: Rollout): string {
  const count = (outcome: RolloutDevice["restore"]): number =>
    rollout.devices.filter(({ restore }) => restore === outcome).length;
  const parts = [rollout.reason ?? "rolled back", `${count("done")} devices restored`];
  if (count("silent") > 0)
    parts.push(`${count("silent")} did not confirm it and will go back when they return`);
  if (count("impossible") > 0) parts.push(`${count("impossible")} ran nothing to return to`);
  return parts.join("; ");
}
