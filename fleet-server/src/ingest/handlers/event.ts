import {
  DEPLOYMENT,
  canTransition,
  decodeMessage,
  decodePredictions,
  isFinal,
  type EventData,
  type EventMessage,
} from "@fieldloop/protocol";
import type { Database } from "../../store/database.js";
import type { FeedbackRow, Segment } from "../../store/telemetry.js";
import type { CommitEffects, IngestStores, Origin } from "../context.js";
import { settle } from "../feedback.js";

export function decodeEvent(payload: Uint8Array): EventMessage {
  return decodeMessage("event", payload);
}

export async function applyEvent(
  tx: Database,
  stores: IngestStores,
  origin: Origin,
  message: EventMessage,
  effects: CommitEffects,
): Promise<void> {
  const { device, received } = origin;
  const { boot, seq, time, data } = message;
  // Feedback has a table of its own; everything else is kept as it was said.
  if (data.type !== "feedback") await stores.events.insert(tx, { device, boot, seq, time, received, data });
  switch (data.type) {
    case "deployment":
      return applyDeployment(tx, stores, origin, data, effects);
    case "warning":
      await applyWarning(tx, stores, origin, time, data);
      return effects.live({ type: "device", id: device, device });
    case "feedback":
      await applyFeedback(tx, stores, origin, data);
      return effects.live({ type: "predictions", id: device, device });
    case "shadow":
      return applyShadow(tx, stores, origin, data, effects);
    case "crash":
    case "command_result":
    case "eviction":
      return effects.live({ type: "device", id: device, device });
  }
}

type Data<Type extends EventData["type"]> = Extract<EventData, { type: Type }>;

/** A deployment that has ended stays ended; what a device reports about another's deployment is not believed. */
async function applyDeployment(
  tx: Database,
  stores: IngestStores,
  { device, received }: Origin,
  data: Data<"deployment">,
  effects: CommitEffects,
): Promise<void> {
  effects.live({ type: "device", id: device, device });
  const deployment = await stores.deployments.get(data.deployment, tx);
  if (!deployment || deployment.device !== device || deployment.packageSha256 !== data.packageSha256) return;
  const ended = isFinal(DEPLOYMENT, deployment.state) || deployment.state === "active";
  if (ended && !canTransition(DEPLOYMENT, deployment.state, data.state)) return;
  const change = {
    state: data.state,
    errorCode: data.error?.code ?? null,
    errorMessage: data.error?.message ?? null,
    measured: { ...deployment.measured, ...data.measured },
  };
  await stores.deployments.setState(tx, deployment.deployment, change, received);
  const { rollout } = deployment;
  if (rollout === null) return;
  const { state, errorCode, errorMessage } = change;
  effects.words.push({ rollout, deployment: data.deployment, device, state, errorCode, errorMessage });
  effects.live({ type: "rollout", id: rollout, device });
}

/** Every event replaces the one before it; what a device reports about another's deployment is not believed. */
async function applyShadow(
  tx: Database,
  stores: IngestStores,
  { device, received }: Origin,
  data: Data<"shadow">,
  effects: CommitEffects,
): Promise<void> {
  effects.live({ type: "device", id: device, device });
  const deployment = await stores.deployments.get(data.deployment, tx);
  if (!deployment || deployment.device !== device || deployment.packageSha256 !== data.packageSha256) return;
  await stores.shadow.put(tx, data, received);
  if (deployment.rollout !== null) effects.live({ type: "rollout", id: deployment.rollout, device });
}

/** Between two reported states a warning event adds or ends one of the active warnings. */
async function applyWarning(
  tx: Database,
  stores: IngestStores,
  { device }: Origin,
  time: number,
  data: Data<"warning">,
): Promise<void> {
  const before = await stores.devices.warnings(tx, device);
  const since = before.find((warning) => warning.code === data.code)?.since ?? time;
  const others = before.filter((warning) => warning.code !== data.code);
  const { code, severity, message } = data;
  const now = data.active ? [...others, { code, severity, message: message.slice(0, 500), since }] : others;
  await stores.devices.setWarnings(tx, device, now.slice(-32));
}

async function applyFeedback(
  tx: Database,
  stores: IngestStores,
  { device, received }: Origin,
  data: Data<"feedback">,
): Promise<void> {
  const boot = data.predictionBoot;
  const bySegment = new Map<number, { segment: Segment; rows: FeedbackRow[] }>();
  let last: Segment | undefined;
  for (const item of [...data.items].sort((a, b) => a.n - b.n)) {
    const correct = item.correct === undefined ? null : Number(item.correct);
    const row: FeedbackRow = { device, boot, n: item.n, label: item.label ?? null, correct };
    if (!(await stores.telemetry.insertFeedback(tx, { ...row, received }))) continue;
    if (!last || item.n >= last.firstN + last.count)
      last = await stores.telemetry.segmentAt(device, boot, item.n, tx);
    if (!last) continue;
    const entry = bySegment.get(last.seq) ?? { segment: last, rows: [] };
    entry.rows.push(row);
    bySegment.set(last.seq, entry);
  }
  for (const { segment, rows } of bySegment.values()) {
    await settle(tx, stores.telemetry, stores.labels, segment, decodePredictions(segment.payload), rows);
  }
}
