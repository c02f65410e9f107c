import type { GateVerdict } from "@fieldloop/protocol";
import { judgeGate, judgeHealth } from "./gate.js";
import { isDynamic } from "./groups.js";
import { chooseCompared, gatherEvidence, type EvidenceSource } from "./rollout-evidence.js";
import type { StepContext } from "./rollout-holds.js";
import { ENGINE, GATE } from "./rollout-journal.js";
import type { LiveRollout } from "./rollout-live.js";
import { fillWave, offerLate, offerWave, type OfferBudget } from "./rollout-offers.js";
import { noteTime } from "./rollout-reports.js";
import { restoreDevices, withdrawOffers } from "./rollout-restore.js";
import type { RolloutWave } from "./rollout.js";

/** Looks at a gate in one soak, about; in a longer wait they grow apart. */
const LOOKS_PER_SOAK = 30;
const LOOK_MS_MIN = 1_000;
const LOOK_SHARE_OF_WAIT = 20;
const LARGE_WAVE_LOOK_MS = 5_000;

/**
 * One step of one rollout: what time does to its devices, then what its state asks for. Nothing in here waits or reads: the same
 * records, reports and time give the same decisions. A step that changes nothing costs a look at the devices in progress.
 */
export function stepRollout(
  live: LiveRollout,
  context: StepContext,
  source: EvidenceSource,
  budget: OfferBudget,
): void {
  const deviceOf = (id: string) => context.fleet.get(id);
  switch (live.state) {
    case "scheduled":
      startOnTime(live, context.now);
      return;
    case "running":
      noteTime(live, watchedWave(live), deviceOf, context.now);
      offerLate(live, context, budget);
      runWaves(live, context, source, budget);
      return;
    case "paused":
      noteTime(live, undefined, deviceOf, context.now);
      return;
    case "succeeded":
      noteTime(live, undefined, deviceOf, context.now);
      if (live.record.current) serveLate(live, context, budget);
      return;
    case "rolling_back":
    case "aborted":
      restoreDevices(live, context, budget);
      return;
    case "draft":
    case "awaiting_approval":
    case "rolled_back":
      return;
  }
}

/** A target that nobody joins is served when nobody of it is left to be asked. */
function serveLate(live: LiveRollout, context: StepContext, budget: OfferBudget): void {
  offerLate(live, context, budget);
  const left = live.late.size + live.inProgress.size;
  if (left === 0 && !isDynamic(live.record.request.target)) live.set({ current: false });
}

/** Whether the gate is going to be judged at this time: what it looks at should be fresh then. */
export function isLookDue(live: LiveRollout, now: number): boolean {
  const wave = live.state === "running" ? live.openWave : undefined;
  return wave !== undefined && isWatched(wave) && (wave.nextLook ?? 0) <= now;
}

function isWatched({ state }: RolloutWave): boolean {
  return state === "running" || state === "soaking" || state === "inconclusive";
}

function watchedWave(live: LiveRollout): RolloutWave | undefined {
  const wave = live.openWave;
  return wave && isWatched(wave) ? wave : undefined;
}

function startOnTime(live: LiveRollout, now: number): void {
  const { startAt } = live.record.request.schedule;
  if (startAt === null || now >= startAt) live.moveRollout("running", null, ENGINE, now);
}

function runWaves(
  live: LiveRollout,
  context: StepContext,
  source: EvidenceSource,
  budget: OfferBudget,
): void {
  const wave = live.openWave;
  if (!wave) {
    if (isDeserted(live)) live.moveRollout("aborted", "no device is left in it", ENGINE, context.now);
    else live.moveRollout("succeeded", null, ENGINE, context.now);
    return;
  }
  if (isWatched(wave) && isEmpty(live, wave)) {
    live.moveWave(wave, "passed", ENGINE, context.now);
    return;
  }
  switch (wave.state) {
    case "pending":
      if (wave.plan?.approvalBefore && !wave.approved) return;
      beginWave(live, wave, context);
      runWave(live, wave, context, source, budget);
      return;
    case "running":
      runWave(live, wave, context, source, budget);
      return;
    case "soaking":
    case "inconclusive":
      watchWave(live, wave, context, source);
      return;
    case "failed":
    case "passed":
      return;
  }
}

/** Newer rollouts have all of its devices, or they left the target. */
function isEmpty(live: LiveRollout, wave: RolloutWave): boolean {
  const { total, skipped } = live.tallies[wave.wave - 1]!;
  return total === skipped;
}

function isDeserted(live: LiveRollout): boolean {
  return live.devices.size > 0 && live.waves.every((wave) => isEmpty(live, wave));
}

function beginWave(live: LiveRollout, wave: RolloutWave, context: StepContext): void {
  live.moveWave(wave, "running", ENGINE, context.now);
  fillWave(live, wave, context);
  const compared = chooseCompared(live, wave, (id) => context.fleet.get(id));
  live.compared.clear();
  for (const entry of compared) live.compared.add(entry);
  live.journal.compared.push(...compared);
}

function runWave(
  live: LiveRollout,
  wave: RolloutWave,
  context: StepContext,
  source: EvidenceSource,
  budget: OfferBudget,
): void {
  if (isUnhealthy(live, wave, context, source)) return;
  const tally = live.tallies[wave.wave - 1]!;
  const asked = tally.active + tally.updating + tally.lost + tally.silent;
  // Nobody of it could be asked so far: others may have come within reach meanwhile.
  if (asked === 0) fillWave(live, wave, context);
  const waits = offerWave(live, wave, context, budget);
  if (waits || tally.updating > 0) return;
  if (tally.active + tally.lost + tally.silent === 0) passOver(live, wave, context.now);
  else live.moveWave(wave, "soaking", ENGINE, context.now);
}

/**
 * All of its devices are out of reach (offline, not compatible, another rollout's). A first wave waits for one of them, since there
 * is no evidence yet; a later one is passed over after its patience, and its devices are asked when they return.
 */
function passOver(live: LiveRollout, wave: RolloutWave, now: number): void {
  const proven = live.waves.some((one) => one.state === "passed" && one.verdict !== null);
  const patienceMs = live.record.request.gate.waveTimeoutSeconds * 1000;
  if (proven && now - (wave.watchedSince ?? now) > patienceMs) live.moveWave(wave, "passed", ENGINE, now);
}

/** The tests that end a wave at once; looked at when a look is due or a device has failed since. */
function isUnhealthy(
  live: LiveRollout,
  wave: RolloutWave,
  context: StepContext,
  source: EvidenceSource,
): boolean {
  const { gate } = live.record.request;
  const due = isDue(live, wave, source, context.now);
  if (!due && !hasFailedLately(live, wave, context.now)) return false;
  Object.assign(live.lately, { look: context.now, failed: false });
  const evidence = gatherEvidence(live, wave, source, (id) => context.fleet.get(id), context.now);
  const health = judgeHealth(gate, evidence, context.now);
  const nextLook = context.now + lookMs(live, wave, context.now);
  if (health.verdict === "fail") {
    live.judged(wave, health, nextLook);
    failWave(live, wave, health, context.now);
    return true;
  }
  if (due && wave.state === "running") live.setWave(wave, { nextLook });
  return false;
}

/** A look waits until what it looks at was read. */
function isDue(live: LiveRollout, wave: RolloutWave, source: EvidenceSource, now: number): boolean {
  return (wave.nextLook ?? 0) <= now && (source.isFresh?.(live) ?? true);
}

/** Since the last look; in a wave of thousands, where some fail all the time, not more than once a second. */
function hasFailedLately({ lately, tallies }: LiveRollout, wave: RolloutWave, now: number): boolean {
  const pauseMs = Math.min(LOOK_MS_MIN, tallies[wave.wave - 1]!.total);
  return lately.failed && now - lately.look >= pauseMs;
}

function watchWave(live: LiveRollout, wave: RolloutWave, context: StepContext, source: EvidenceSource): void {
  const { now } = context;
  const due = isDue(live, wave, source, now);
  if (isUnhealthy(live, wave, context, source) || !due) return;
  const nextLook = now + lookMs(live, wave, now);
  const ends = soakEnds(live, wave)!;
  if (now < ends) {
    live.setWave(wave, { nextLook: Math.min(nextLook, ends) });
    return;
  }
  const evidence = gatherEvidence(live, wave, source, (id) => context.fleet.get(id), now);
  const verdict = judgeGate(live.record.request.gate, evidence, now);
  live.judged(wave, verdict, nextLook);
  if (verdict.verdict === "pass") live.moveWave(wave, "passed", GATE, now);
  else if (verdict.verdict === "fail") failWave(live, wave, verdict, now);
  else waitOrPause(live, wave, verdict, now);
}

/** No verdict before this time; null before the soak. */
export function soakEnds(live: LiveRollout, wave: RolloutWave): number | null {
  return wave.soakStarted === null ? null : wave.soakStarted + soakMs(live, wave);
}

function soakMs(live: LiveRollout, wave: RolloutWave): number {
  return Math.max(live.record.request.gate.soakSeconds, wave.plan?.soakSecondsMin ?? 0) * 1000;
}

function lookMs(live: LiveRollout, wave: RolloutWave, now: number): number {
  const waited = now - (wave.soakStarted ?? wave.started ?? now);
  // A wave of thousands is looked at less often: each look reads thousands of devices.
  const sizeMs = Math.min(live.tallies[wave.wave - 1]!.total, LARGE_WAVE_LOOK_MS);
  return Math.max(
    LOOK_MS_MIN,
    sizeMs,
    Math.max(soakMs(live, wave) / LOOKS_PER_SOAK, waited / LOOK_SHARE_OF_WAIT),
  );
}

/** Undecided: wait as long as a wave may take, then ask a person. */
function waitOrPause(live: LiveRollout, wave: RolloutWave, verdict: GateVerdict, now: number): void {
  if (wave.state === "soaking") live.moveWave(wave, "inconclusive", GATE, now);
  const waitedMs = now - (wave.watchedSince ?? now);
  if (waitedMs <= soakMs(live, wave) + live.record.request.gate.waveTimeoutSeconds * 1000) return;
  live.moveRollout("paused", `wave ${wave.wave} is inconclusive: ${explain(verdict)}`, GATE, now);
}

function failWave(live: LiveRollout, wave: RolloutWave, verdict: GateVerdict, now: number): void {
  live.moveWave(wave, "failed", GATE, now);
  const reason = `wave ${wave.wave} failed: ${explain(verdict)}`;
  const { onFailure } = live.record.request;
  const state = ({ pause: "paused", abort: "aborted", roll_back: "rolling_back" } as const)[onFailure];
  live.moveRollout(state, reason, GATE, now);
  if (state === "aborted") withdrawOffers(live, GATE, now);
}

/** The tests that gave a verdict its word. */
export function explain(verdict: GateVerdict): string {
  return verdict.tests
    .filter((test) => test.verdict === verdict.verdict)
    .map((test) => `${test.test}: ${test.detail}`)
    .join("; ");
}
