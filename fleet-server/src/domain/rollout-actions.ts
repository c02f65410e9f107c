import type { DecidedBy, RolloutAction, RolloutState } from "@fieldloop/protocol";
import type { LiveRollout } from "./rollout-live.js";
import { laterClaim, stands } from "./rollout-places.js";
import { withdrawOffers } from "./rollout-restore.js";
import { hasFailed, supersededHold, type RolloutDevice, type RolloutWave } from "./rollout.js";

/** Who asks. Names are written down; two are the same person where the same person answers for both. */
export interface Actor {
  /** Of the token. */
  readonly name: string;
  /** Whose token it is; null for a program's. */
  readonly person: string | null;
  /** Who answers for what is done with it: the person, or who made the program's token. */
  readonly sponsor: string;
}

/** Why an action was refused, for people; undefined where it was done. */
export type Refusal = string | undefined;

/** What a person asks of a rollout. Everything that is done is in the journal; what is refused changed nothing. */
export function act(live: LiveRollout, action: RolloutAction, actor: Actor, now: number): Refusal {
  const by: DecidedBy = { by: actor.name, time: now, reason: action.reason };
  const refusal = perform(live, action, by, actor);
  if (refusal === undefined) {
    const wave = action.action === "approve" ? (action.wave ?? null) : null;
    const reason = action.reason === "" ? null : action.reason;
    live.journal.write({ type: "action", actor: actor.name, action: action.action, wave, reason });
  }
  return refusal;
}

function perform(live: LiveRollout, action: RolloutAction, by: DecidedBy, actor: Actor): Refusal {
  switch (action.action) {
    case "start":
      return start(live, by);
    case "approve":
      return action.wave === undefined ? approve(live, by, actor) : approveWave(live, action.wave, by);
    case "pause":
      return moveFrom(live, ["running"], "paused", by);
    case "resume":
      return resume(live, by);
    case "abort":
      return action.devices === "revert" ? rollBack(live, by) : abort(live, by);
    case "roll_back":
      return rollBack(live, by);
    case "retry":
      return retry(live, action.devices, by);
    case "next_wave":
      return nextWave(live, by);
  }
}

function moveFrom(
  live: LiveRollout,
  from: readonly RolloutState[],
  to: RolloutState,
  by: DecidedBy,
): Refusal {
  if (!from.includes(live.state)) return `it is "${live.state}"`;
  live.moveRollout(to, by.reason === "" ? null : by.reason, by.by, by.time);
  return undefined;
}

/** A draft goes as far as it may: to the approval, to its time, or off. A scheduled rollout begins before its time. */
function start(live: LiveRollout, by: DecidedBy): Refusal {
  if (live.state === "scheduled") return moveFrom(live, ["scheduled"], "running", by);
  if (live.state !== "draft") return `it is "${live.state}"`;
  if (live.record.request.approval.required) return moveFrom(live, ["draft"], "awaiting_approval", by);
  return release(live, "draft", by);
}

function release(live: LiveRollout, from: RolloutState, by: DecidedBy): Refusal {
  const { startAt } = live.record.request.schedule;
  return moveFrom(live, [from], startAt !== null && startAt > by.time ? "scheduled" : "running", by);
}

/** Two persons are two: whoever planned it cannot let it go, with whichever token; a program is no person. */
function approve(live: LiveRollout, by: DecidedBy, { name, person, sponsor }: Actor): Refusal {
  if (live.state !== "awaiting_approval") return `it is "${live.state}"`;
  const { createdBy, creator } = live.record;
  if (sponsor === creator)
    return `"${sponsor}" answers for "${name}" and for "${createdBy}", which created it; another person must approve it`;
  if (person === null)
    return `"${name}" is a program's token; a person must approve it, with a token that names them`;
  live.set({ approved: by });
  return release(live, "awaiting_approval", by);
}

function approveWave(live: LiveRollout, number: number, by: DecidedBy): Refusal {
  const wave = live.waves[number - 1];
  if (!wave) return `it has ${live.waves.length} waves`;
  if (!wave.plan?.approvalBefore) return `wave ${number} needs no approval`;
  if (wave.state !== "pending") return `wave ${number} is "${wave.state}"`;
  if (wave.approved) return `wave ${number} was approved by "${wave.approved.by}"`;
  live.setWave(wave, { approved: by });
  return undefined;
}

function resume(live: LiveRollout, by: DecidedBy): Refusal {
  if (live.state !== "paused") return `it is "${live.state}"`;
  // A failed wave stays failed: going on would mean that its gate meant nothing.
  const failed = live.waves.find(({ state }) => state === "failed");
  if (failed)
    return `wave ${failed.wave} failed; retry its devices, let it pass by hand (next_wave), abort or roll back`;
  watchAgain(live, by.time);
  return moveFrom(live, ["paused"], "running", by);
}

/** The open wave gets its whole patience again. */
function watchAgain(live: LiveRollout, now: number): void {
  const wave = live.openWave;
  if (wave && wave.state !== "pending") live.setWave(wave, { watchedSince: now, nextLook: now });
}

const BEFORE_END: readonly RolloutState[] = ["draft", "awaiting_approval", "scheduled", "running", "paused"];

function abort(live: LiveRollout, by: DecidedBy): Refusal {
  if (live.state === "succeeded") return `it is "succeeded"; roll it back to take it away (roll_back)`;
  const refusal = moveFrom(live, BEFORE_END, "aborted", by);
  if (refusal === undefined) withdrawOffers(live, by.by, by.time);
  return refusal;
}

function rollBack(live: LiveRollout, by: DecidedBy): Refusal {
  // Nobody was asked yet: there is nothing to take back.
  if (live.state === "draft" || live.state === "awaiting_approval" || live.state === "scheduled")
    return abort(live, by);
  return moveFrom(live, ["running", "paused", "succeeded", "aborted"], "rolling_back", by);
}

const RETRY_FROM: readonly RolloutState[] = ["running", "paused", "succeeded"];

function retry(live: LiveRollout, devices: readonly string[] | undefined, by: DecidedBy): Refusal {
  if (!RETRY_FROM.includes(live.state)) return `it is "${live.state}"`;
  const entries = devices ? devices.map((device) => live.devices.get(device)) : [...live.devices.values()];
  const missing = devices?.find((_, at) => entries[at] === undefined);
  if (missing !== undefined) return `device "${missing}" is not in it`;
  const wanted = (entries as RolloutDevice[]).filter(canRetry);
  // Whoever names a device means it; of all, those that a later rollout has by now are left to it.
  const takers = new Map(devices ? [] : wanted.map((entry) => [entry, takerOf(live, entry)]));
  const again = wanted.filter((entry) => !takers.get(entry));
  if (again.length === 0)
    return wanted.length === 0
      ? "no device of it failed or is silent"
      : "another rollout has what failed by now; name the devices (devices) to ask them all the same";
  for (const entry of again) {
    const hold = { reason: "retry", detail: `asked again by ${by.by}` } as const;
    live.change(entry, { state: "waiting", hold, retryAt: null, updated: by.time, word: null });
    live.note("retried", by.by, entry);
  }
  for (const [entry, taker] of takers) {
    if (!taker) continue;
    live.change(entry, { state: "skipped", hold: supersededHold(taker.id), updated: by.time });
    live.note("skipped", by.by, entry);
  }
  if (live.state === "succeeded") {
    if (!live.record.current) live.set({ current: true });
    return undefined;
  }
  const wave = live.openWave;
  if (wave && wave.state !== "pending" && again.some((entry) => entry.wave === wave.wave)) {
    if (wave.state !== "running") live.moveWave(wave, "running", by.by, by.time);
    else live.setWave(wave, { watchedSince: by.time });
  }
  if (live.state === "paused" && live.waves.every(({ state }) => state !== "failed"))
    return moveFrom(live, ["paused"], "running", by);
  return undefined;
}

function canRetry(entry: RolloutDevice): boolean {
  return (hasFailed(entry.state) || entry.state === "silent") && entry.restore === "none";
}

/** The later rollout whose offer holds there. */
function takerOf(live: LiveRollout, entry: RolloutDevice): LiveRollout | undefined {
  const device = live.deviceOf(entry);
  const later = laterClaim(live, entry, device);
  return later && stands(later, device!) ? later.live : undefined;
}

function nextWave(live: LiveRollout, by: DecidedBy): Refusal {
  if (live.state !== "running" && live.state !== "paused") return `it is "${live.state}"`;
  const wave = live.openWave;
  if (!wave) return "all of its waves have passed";
  if (wave.state === "pending") return pendingRefusal(wave);
  live.setWave(wave, { forced: by });
  live.moveWave(wave, "passed", by.by, by.time);
  return live.state === "paused" ? moveFrom(live, ["paused"], "running", by) : undefined;
}

function pendingRefusal(wave: RolloutWave): Refusal {
  const needsApproval = wave.plan?.approvalBefore && !wave.approved;
  return `wave ${wave.wave} has not begun${needsApproval ? "; approve it" : ""}`;
}
