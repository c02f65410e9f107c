import {
  formatModelVersion,
  type HoldReason,
  type RolloutDeviceView,
  type RolloutEvent,
  type RolloutProgress,
  type RolloutSubject,
  type RolloutView,
  type WaveView,
} from "@fieldloop/protocol";
import { explain, soakEnds } from "../domain/rollout-step.js";
import type { LiveRollout } from "../domain/rollout-live.js";
import { sumDeviceCounts, supersedersOf } from "../domain/rollout-tally.js";
import { deploymentId, type RolloutDevice, type RolloutWave } from "../domain/rollout.js";
import type { StoredEvent } from "../store/rollouts.js";

/** `parts@7`, or `config cfg_…`. */
export function titleOf(subject: RolloutSubject): string {
  return subject.kind === "package"
    ? formatModelVersion(subject.model, subject.version)
    : `config ${subject.configId}`;
}

/** What a view holds that is not the rollout's own. */
export interface ViewSources {
  readonly accuracy: RolloutView["accuracy"];
  /** Titles of the rollouts that took devices of it, by id. */
  readonly titles: ReadonlyMap<string, string>;
}

/** A rollout as the API shows it. */
export function viewRollout(live: LiveRollout, { accuracy, titles }: ViewSources): RolloutView {
  const { record } = live;
  const { request } = record;
  const waves = live.waves.map((wave) => viewWave(live, wave));
  return {
    rollout: record.rollout,
    name: request.name,
    title: titleOf(record.subject),
    subject: record.subject,
    from: record.from,
    state: record.state,
    reason: record.reason,
    waitsFor: waitsFor(live),
    created: record.created,
    createdBy: record.createdBy,
    started: record.started,
    finished: record.finished,
    approval: request.approval.required ? { given: record.approved } : null,
    request,
    counts: sumDeviceCounts(waves.map(({ counts }) => counts)),
    waves,
    controlCount: live.waves.reduce((sum, { plan }, at) => sum + (plan ? 0 : live.members[at]!.size), 0),
    current: record.current,
    supersededBy: record.supersededBy,
    superseders: supersedersOf(live.tallies).map(([rollout, devices]) => ({
      rollout,
      title: titles.get(rollout) ?? rollout,
      devices,
    })),
    accuracy,
    revision: record.revision,
  };
}

function viewWave(live: LiveRollout, wave: RolloutWave): WaveView {
  return {
    wave: wave.wave,
    name: wave.plan ? (wave.plan.name ?? "") : "control",
    plan: wave.plan,
    state: wave.state,
    counts: live.tallies[wave.wave - 1]!.view(unheldReason(live, wave)),
    approval: wave.plan?.approvalBefore ? { given: wave.approved } : null,
    forced: wave.forced,
    started: wave.started,
    soakStarted: wave.soakStarted,
    soakEnds: soakEnds(live, wave),
    finished: wave.finished,
    gate: wave.verdict,
    looks: wave.looks,
  };
}

/** Why a device that nothing was found against is not asked. */
function unheldReason(live: LiveRollout, wave: RolloutWave): HoldReason | null {
  if (live.state === "awaiting_approval") return "approval";
  if (live.state === "draft" || live.state === "scheduled") return "schedule";
  if (live.state === "paused") return "paused";
  if (wave.state !== "pending") return "rate";
  return wave.plan === null ? "control" : "wave";
}

/** What it waits for now, in words. */
export function waitsFor(live: LiveRollout): string | null {
  if (live.state === "awaiting_approval") return "the approval of a second person";
  if (live.state === "scheduled")
    return `its start at ${new Date(live.record.request.schedule.startAt ?? 0).toISOString()}`;
  if (live.state === "paused") return "a person";
  const wave = live.state === "running" ? live.openWave : undefined;
  if (!wave) return null;
  if (wave.state === "pending" && wave.plan?.approvalBefore && !wave.approved)
    return `a person to let wave ${wave.wave} begin`;
  if (wave.state === "soaking")
    return `the end of wave ${wave.wave}'s soak at ${new Date(soakEnds(live, wave)!).toISOString()}`;
  if (wave.state === "inconclusive" && wave.verdict) return `evidence: ${explain(wave.verdict)}`;
  const { updating, holds } = live.tallies[wave.wave - 1]!;
  if (wave.state !== "running" || updating > 0) return null;
  const held = [...holds].filter(([, count]) => count > 0).map(([reason, count]) => `${count} ${reason}`);
  return held.length > 0 ? `devices that can be asked: ${held.join(", ")}` : null;
}

export function viewProgress(live: LiveRollout, time: number): RolloutProgress {
  const waves = live.waves.map((wave) => {
    const { state, counts, looks } = viewWave(live, wave);
    return { wave: wave.wave, state, counts, looks };
  });
  const counts = sumDeviceCounts(waves.map((wave) => wave.counts));
  return { rollout: live.id, time, state: live.state, waitsFor: waitsFor(live), counts, waves };
}

export function viewDevice(live: LiveRollout, entry: RolloutDevice): RolloutDeviceView {
  const wave = live.waves[entry.wave - 1]!;
  const unheld = entry.state === "waiting" && !entry.hold ? unheldReason(live, wave) : null;
  const { device, control, joined, state, attempt, errorCode, errorMessage, offered, updated } = entry;
  const { restore, restoreDetail } = entry;
  const deployment = attempt === 0 ? null : deploymentId(live.id, device, "offer", attempt);
  return {
    device,
    wave: entry.wave,
    control,
    joined,
    state,
    hold: entry.hold
      ? { reason: entry.hold.reason, detail: entry.hold.detail }
      : unheld && { reason: unheld, detail: "" },
    attempt,
    deployment,
    errorCode,
    errorMessage,
    offered,
    updated,
    previous: entry.previous && {
      ...{ model: null, version: null, packageSha256: null, configId: null },
      ...withoutKind(entry.previous),
    },
    restore,
    restoreDetail,
  };
}

function withoutKind<Value extends { kind: string }>({ kind: _kind, ...rest }: Value): Omit<Value, "kind"> {
  return rest;
}

export function viewEvent({ seq, time, entry }: StoredEvent): RolloutEvent {
  return { ...entry, seq, time } as RolloutEvent;
}
