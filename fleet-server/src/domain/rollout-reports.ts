import { ERROR_CODES, type ErrorCode, type RolloutSubject } from "@fieldloop/protocol";
import type { FleetDevice } from "./fleet.js";
import { isNewer } from "./rollout-holds.js";
import { ENGINE } from "./rollout-journal.js";
import type { LiveRollout } from "./rollout-live.js";
import { hasSubject, isBack, laterClaim } from "./rollout-places.js";
import {
  GONE,
  hasFailed,
  isInProgress,
  mayFollow,
  supersededHold,
  type DeploymentWord,
  type Previous,
  type RolloutDevice,
  type RolloutDeviceState,
  type RolloutWave,
} from "./rollout.js";

/** Reasons that may pass by themselves: asking again can help. A version that failed its test or its probation is no such reason. */
const PASSING_CODES: ReadonlySet<string> = new Set([
  "download_failed",
  "download_length_mismatch",
  "download_too_slow",
  "storage_full",
  "storage_failed",
  "timed_out",
  "unavailable",
  "trust_unreachable",
  "trust_metadata_expired",
  "host_unresponsive",
]);

/** What a roll-back of it would lead to; null where it runs nothing. */
export function previousOf(device: FleetDevice, subject: RolloutSubject): Previous | null {
  if (subject.kind === "config") return { kind: "config", configId: device.configId };
  const running = device.runningOf(subject.model);
  return (
    running && {
      kind: "package",
      model: running.model,
      version: running.version,
      packageSha256: running.packageSha256,
    }
  );
}

/** A device's word on its deployment, told by ingest as it came in; the step that follows judges it. */
export function takeWord(entry: RolloutDevice, word: DeploymentWord): void {
  entry.word = word;
}

/** The state of one device follows what it reports; called when something about it changed. */
export function noteReport(live: LiveRollout, entry: RolloutDevice, device: FleetDevice, now: number): void {
  if (entry.offered === null || entry.state === "waiting" || entry.state === "skipped") return;
  if (live.state === "aborted" || live.state === "rolled_back") return;
  const { subject } = live.record;
  const word = wordOf(entry, device, subject);
  if (entry.state === "silent" || entry.state === "timed_out") noteReturn(live, entry, device, word, now);
  else if (word && mayFollow(entry.state, word.state)) follow(live, entry, word, now);
  else if (entry.state === "active" && leftSubject(device, subject)) noteLeft(live, entry, device, now);
}

/** `active` counts only where the device reports this very package, or configuration, as the one that it has. */
function wordOf(entry: RolloutDevice, device: FleetDevice, subject: RolloutSubject): DeploymentWord | null {
  const has = hasSubject(device, subject);
  if (subject.kind === "config") return has ? { state: "active", errorCode: null, errorMessage: null } : null;
  return entry.word?.state === "active" && !has ? null : entry.word;
}

function follow(live: LiveRollout, entry: RolloutDevice, word: DeploymentWord, now: number): void {
  if (hasFailed(word.state)) fail(live, entry, word, now);
  else settle(live, entry, word, now);
}

function settle(live: LiveRollout, entry: RolloutDevice, word: DeploymentWord, now: number): void {
  live.change(entry, { ...wordFields(word), hold: null, updated: now });
}

/** Given up for silence or for taking too long, and heard again: what it says now counts. */
function noteReturn(
  live: LiveRollout,
  entry: RolloutDevice,
  device: FleetDevice,
  word: DeploymentWord | null,
  now: number,
): void {
  const ended = word && (word.state === "active" || hasFailed(word.state));
  if (entry.state === "timed_out") {
    // A device that said so itself has nothing more to say; one that was only too slow may still arrive.
    if (ended && word.state !== "timed_out") settle(live, entry, word, now);
    return;
  }
  const silentMs = live.record.request.gate.silenceSeconds * 1000;
  if (now - heardAt(entry, device) > silentMs || !device.online) return;
  // Another rollout has begun to change it meanwhile: it stays given up until that is over.
  if (!ended && device.changing > 0) return;
  const later = ended ? undefined : laterClaim(live, entry, device)?.live;
  if (later) return noteReplaced(live, entry, later, now);
  settle(live, entry, word ?? { state: "offered", errorCode: null, errorMessage: null }, now);
}

/** Its offer is in the device's desired state no longer. A newer rollout has the last word; after an older one it is asked again. */
function noteReplaced(live: LiveRollout, entry: RolloutDevice, by: LiveRollout, now: number): void {
  if (live.state === "rolling_back") return;
  if (!isNewer(by, live)) {
    live.change(entry, { state: "waiting", hold: null, retryAt: null, updated: now, word: null });
    return;
  }
  live.change(entry, { state: "skipped", hold: supersededHold(by.id), updated: now });
  live.note("skipped", ENGINE, entry);
}

/** The rollout that took the device failed there or was taken back, and the device reports this one's subject: it counts here again. */
export function noteGivenBack(
  live: LiveRollout,
  entry: RolloutDevice,
  device: FleetDevice,
  now: number,
): void {
  if (live.state !== "running" && live.state !== "paused" && live.state !== "succeeded") return;
  if (isBack(live, entry, device)) live.change(entry, { state: "active", hold: null, updated: now });
}

/** It reports something else as running, without having said that it went back. */
function leftSubject(device: FleetDevice, subject: RolloutSubject): boolean {
  if (subject.kind === "config") return false;
  const running = device.runningOf(subject.model);
  return running !== null && running.packageSha256 !== subject.packageSha256;
}

function noteLeft(live: LiveRollout, entry: RolloutDevice, device: FleetDevice, now: number): void {
  const newer = newerThatIsThere(live, device);
  if (newer) {
    live.change(entry, { state: "skipped", hold: supersededHold(newer.id), updated: now });
    live.note("skipped", ENGINE, entry);
    return;
  }
  const { subject } = live.record;
  const running = subject.kind === "package" ? device.runningOf(subject.model) : null;
  const errorMessage = `it reports ${running?.model}@${running?.version} as running`;
  live.change(entry, { state: "rolled_back", errorCode: null, errorMessage, updated: now });
  if (live.state !== "rolling_back") live.note("failed", ENGINE, entry);
}

/** A newer rollout for the same place brought what the device reports now: that is no failure of this one. */
function newerThatIsThere(live: LiveRollout, device: FleetDevice): LiveRollout | undefined {
  return device.claims
    .map((claim) => claim.live)
    .find(
      (other) => other.slot === live.slot && isNewer(other, live) && hasSubject(device, other.record.subject),
    );
}

function fail(live: LiveRollout, entry: RolloutDevice, word: DeploymentWord, now: number): void {
  const { retries } = live.record.request;
  const again =
    live.state === "running" &&
    entry.attempt <= retries.max &&
    (word.state === "failed" || word.state === "timed_out") &&
    PASSING_CODES.has(word.errorCode ?? "timed_out");
  if (!again) {
    settle(live, entry, word, now);
    if (live.state !== "rolling_back") live.note("failed", ENGINE, entry);
    return;
  }
  const delayMs = retries.delaySeconds * 1000 * 2 ** (entry.attempt - 1);
  const title = word.errorCode ? ERROR_CODES[word.errorCode].title : "It took too long";
  live.change(entry, {
    ...wordFields(word),
    state: "waiting",
    retryAt: now + delayMs,
    hold: { reason: "retry", detail: `${title}; asked again, attempt ${entry.attempt + 1}` },
    updated: now,
    word: null,
  });
}

function wordFields(word: DeploymentWord): {
  state: RolloutDeviceState;
  errorCode: ErrorCode | null;
  errorMessage: string | null;
} {
  const { state, errorCode, errorMessage } = word;
  return { state, errorCode, errorMessage };
}

export function heardAt(entry: RolloutDevice, device: FleetDevice | undefined): number {
  return Math.max(device?.lastSeen ?? 0, entry.offered ?? 0);
}

/** Devices that one step holds against the clock, at most: of more, a part in each. */
const LOOKED_AT_MAX = 5_000;

/**
 * What time does to devices: one that was asked and says nothing is silent, one that takes too long has timed out. Those of the wave
 * that is watched count as silent even after they were done: a version that mutes a device has failed there.
 */
export function noteTime(
  live: LiveRollout,
  watched: RolloutWave | undefined,
  deviceOf: (device: string) => FleetDevice | undefined,
  now: number,
): void {
  const { silenceSeconds, waveTimeoutSeconds } = live.record.request.gate;
  for (const entry of live.rounds.inProgress.take(LOOKED_AT_MAX)) {
    const device = deviceOf(entry.device);
    if (now - heardAt(entry, device) > silenceSeconds * 1000) noteSilence(live, entry, silenceSeconds, now);
    else if (now - (entry.offered ?? now) > waveTimeoutSeconds * 1000) {
      const errorMessage = `not done ${waveTimeoutSeconds} s after the offer`;
      fail(live, entry, { state: "timed_out", errorCode: "timed_out", errorMessage }, now);
    }
  }
  if (!watched) return;
  for (const entry of live.rounds.members[watched.wave - 1]!.take(LOOKED_AT_MAX)) {
    if (entry.state !== "active") continue;
    if (now - heardAt(entry, deviceOf(entry.device)) > silenceSeconds * 1000)
      noteSilence(live, entry, silenceSeconds, now);
  }
}

function noteSilence(live: LiveRollout, entry: RolloutDevice, seconds: number, now: number): void {
  const errorMessage = `nothing heard for ${seconds} s`;
  live.change(entry, { state: "silent", errorCode: "timed_out", errorMessage, updated: now });
  live.note("silent", ENGINE, entry);
}

/** A device that was deleted can neither be asked nor report. */
export function noteGone(live: LiveRollout, entry: RolloutDevice, now: number): void {
  if (isInProgress(entry.state) || entry.state === "waiting") {
    const hold = { reason: "left", detail: GONE } as const;
    live.change(entry, { state: "skipped", hold, updated: now });
    live.note("skipped", ENGINE, entry);
  }
  if (entry.restore === "offered")
    live.change(entry, { restore: "impossible", restoreDetail: GONE, updated: now });
}
