import type { Evaluation, Page, Snapshot, TrainingRun } from "@fieldloop/protocol";
import { CHANGED_CAMERAS, DEMO_DEVICES, type DemoFleet } from "./fleet.js";
import { percent } from "./measure.js";
import type { Narrator } from "./narrator.js";
import { DEMO_TIMES } from "./options.js";
import { until } from "./until.js";

export async function retrain(
  fleet: DemoFleet,
  narrator: Narrator,
): Promise<{ run: TrainingRun; evaluation: Evaluation }> {
  const { client } = fleet;
  const dataset = await client.post<{ dataset: string }>("/api/v1/datasets", {
    name: "dim light, oily lens",
    model: "parts",
    query: { labelled: true, devices: CHANGED_CAMERAS },
  });
  const snapshot = await client.post<Snapshot>(`/api/v1/datasets/${dataset.dataset}/snapshots`);
  narrator.say(`snapshot ${snapshot.snapshot.slice(0, 12)} froze ${snapshot.sampleCount} labelled samples`);
  const { run: id } = await client.post<TrainingRun>("/api/v1/training-runs", {
    model: "parts",
    baseVersion: 1,
    snapshot: snapshot.snapshot,
    settings: { rate: 0.003 },
  });
  const run = await until("the training run ends", DEMO_TIMES.trainingS * 1000, async () => {
    fleet.assertRunning();
    const current = await client.get<TrainingRun>(`/api/v1/training-runs/${id}`);
    const { step, steps, loss, message } = current.progress;
    narrator.progress(
      `${current.state}: step ${step} of ${steps}${loss === null ? "" : `, loss ${loss.toFixed(3)}`} ${message}`,
    );
    return ["succeeded", "failed", "cancelled"].includes(current.state) ? current : undefined;
  });
  if (run.state !== "succeeded" || run.candidate === null)
    throw new Error(`Training run ${id} ${run.state}: ${run.errorCode} ${run.errorMessage}`);
  const { items } = await client.get<Page<Evaluation>>("/api/v1/evaluations?model=parts");
  const evaluation = items.find((candidate) => candidate.run === id);
  if (!evaluation) throw new Error(`Training run ${id} has no evaluation`);
  for (const slice of evaluation.slices) {
    narrator.say(
      `${slice.slice === "old" ? "old data" : "new data, kept out of training"}: ${percent(slice.base.accuracy.value ?? Number.NaN)} → ${percent(slice.candidate.accuracy.value ?? Number.NaN)} (${slice.candidate.accuracy.count} inputs)`,
    );
  }
  narrator.say(`evaluation ${evaluation.verdict}: ${evaluation.reasons.join("; ")}`);
  return { run, evaluation };
}

/** What the devices measured while they swapped: the sum of dropped frames and the longest gap between two predictions. */
export async function swapFigures(
  fleet: DemoFleet,
  version: number,
): Promise<{ framesDropped: number; gapMs: number }> {
  let framesDropped = 0;
  let gapMs = 0;
  for (const { device } of DEMO_DEVICES.filter((candidate) => candidate.model === "parts")) {
    const { items } = await fleet.client.get<Page<{ version: number; measured: Record<string, number> }>>(
      `/api/v1/devices/${device}/deployments`,
    );
    for (const deployment of items.filter((candidate) => candidate.version === version)) {
      framesDropped += deployment.measured.framesDroppedDuringSwap ?? Number.NaN;
      gapMs = Math.max(gapMs, deployment.measured.swapGapMs ?? Number.NaN);
    }
  }
  return { framesDropped, gapMs };
}
