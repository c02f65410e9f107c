import type { Evaluation, Overview, Page, RolloutView } from "@fieldloop/protocol";
import { shippedModels } from "@fieldloop/models";
import { publishPackage } from "../commands/publish.js";
import { failureCases, foundErrors, label } from "./failures.js";
import { retrain, swapFigures } from "./fix.js";
import { CHANGED_CAMERAS, DEMO_DEVICES, type DemoFleet } from "./fleet.js";
import { fieldAccuracy, percent, round, type Span } from "./measure.js";
import type { Narrator } from "./narrator.js";
import { DEMO_TIMES, type StoryOptions } from "./options.js";
import { unmetBars, type DemoReport } from "./report.js";
import { rollOut } from "./roll-out.js";
import { until } from "./until.js";

/** How eagerly the demo's devices sample: a fleet would take days over what the demo takes half a minute for. */
const DEMO_SAMPLING = {
  bytesPerHour: 200 * 1024 * 1024,
  randomShare: 0.06,
  worthMin: 0.7,
  worthPerMinute: 300,
  predictionsIntervalSeconds: 2,
} as const;

/** Everything that the chapters measure on the way. */
interface Measured {
  healthy: { accuracy: number; count: number };
  degraded: { accuracy: number; count: number };
  recovered: { accuracy: number; count: number };
  collect: Span;
}

/** The main job, told and measured: healthy fleet → the light changes → failure cases → labels → retraining → rollout → recovery. */
export async function tellStory(
  fleet: DemoFleet,
  narrator: Narrator,
  options: StoryOptions,
): Promise<DemoReport> {
  const started = Date.now();
  const measured: Partial<Measured> = {};

  narrator.chapter("1  A healthy fleet");
  await fleet.startServer();
  narrator.say(`fleet server is up; console: ${fleet.consoleUrl}`);
  const firstPredictionS = await startDevices(fleet, narrator, started);
  measured.healthy = await measure(fleet, narrator, "healthy");

  narrator.chapter("2  The light changes, and a new kind of dirt settles on two lenses");
  const collectFrom = Date.now();
  for (const device of CHANGED_CAMERAS) await fleet.local(device, "/simulator", { condition: "degraded" });
  narrator.say(
    `${CHANGED_CAMERAS.join(" and ")} now see warm, dim light through an oil smear; nobody told the server`,
  );
  measured.degraded = await measure(fleet, narrator, "degraded");
  measured.collect = { from: collectFrom, to: Date.now() };

  narrator.chapter("3  Failure cases arrive, ranked by worth");
  const samples = await failureCases(fleet, measured.collect);
  const labels = await label(fleet, narrator, samples, options);
  const found = await foundErrors(fleet, measured.collect);
  narrator.say(
    `of ${found.worthKnown} samples chosen for worth ${percent(found.precision)} were real errors; of ${found.randomKnown} random ones ${percent(found.randomShare)}`,
  );

  narrator.chapter("4  Fix the model, prove the fix");
  const trainingFrom = Date.now();
  const { run, evaluation } = await retrain(fleet, narrator);
  const trainingS = (Date.now() - trainingFrom) / 1000;
  const candidate = run.candidate!;

  narrator.chapter(`5  Ship parts@${candidate}: shadow and canary on one camera, gate, the rest`);
  const { rollout, shadow } = await rollOut(fleet, narrator, candidate);
  const swap = await swapFigures(fleet, candidate);

  narrator.chapter("6  Watch that the failure is gone");
  measured.recovered = await measure(fleet, narrator, "recovered");

  const made = await settle(fleet, narrator);
  const overview = await fleet.client.get<Overview>("/api/v1/overview");
  const figures = {
    devices: DEMO_DEVICES.length,
    fieldAccuracy: {
      healthy: round(measured.healthy.accuracy, 4),
      degraded: round(measured.degraded.accuracy, 4),
      recovered: round(measured.recovered.accuracy, 4),
      judged: {
        healthy: measured.healthy.count,
        degraded: measured.degraded.count,
        recovered: measured.recovered.count,
      },
    },
    oldDataAccuracy: sliceAccuracy(evaluation, "old"),
    newDataAccuracy: {
      ...sliceAccuracy(evaluation, "field"),
      count: evaluation.slices.find((slice) => slice.slice === "field")?.base.accuracy.count ?? 0,
    },
    failurePrecision: round(found.precision, 4),
    randomErrorShare: round(found.randomShare, 4),
    samplesUploaded: overview.samplesTotal,
    labels,
    version: { from: run.baseVersion, to: candidate },
    rollout: rollout.state,
    shadow,
    predictions: { made: made.made, stored: made.stored, lost: made.made - made.stored },
    bytesPerPrediction: round(overview.bytesPerPrediction ?? Number.NaN, 2),
    framesDroppedDuringSwap: swap.framesDropped,
    swapGapMs: round(swap.gapMs, 1),
    firstPredictionS: round(firstPredictionS, 1),
    trainingS: round(trainingS, 1),
    durationS: round((Date.now() - started) / 1000, 1),
  };
  const unmet = unmetBars(figures);
  return { closed: unmet.length === 0, unmet, ...figures };
}

async function startDevices(fleet: DemoFleet, narrator: Narrator, started: number): Promise<number> {
  const { client } = fleet;
  await client.patch("/api/v1/policies/default", DEMO_SAMPLING);
  for (const { name, packageDir } of shippedModels) {
    const version = await publishPackage(client, packageDir);
    narrator.say(`published ${name}@${version.version} (package ${version.packageSha256.slice(0, 12)})`);
  }
  await Promise.all(DEMO_DEVICES.map((device) => fleet.startAgent(device)));
  for (const model of new Set(DEMO_DEVICES.map((device) => device.model))) {
    await client.post("/api/v1/rollouts", {
      change: { kind: "package", model, version: 1 },
      target: {
        devices: DEMO_DEVICES.filter((device) => device.model === model).map((device) => device.device),
      },
      waves: [{ percent: 100 }],
      gate: { soakSeconds: 1, predictionsMin: 10, accuracyDropMax: null, latencyRatioMax: null },
      probation: { seconds: 2, predictions: 10 },
      forceReason: "first version of a new fleet: there is no field data to evaluate it on yet",
    });
  }
  let first = 0;
  await until("every device predicts", DEMO_TIMES.firstPredictionS * 1000, async () => {
    fleet.assertRunning();
    const { items } = await client.get<Page<{ predictionsTotal: number }>>("/api/v1/devices");
    if (first === 0 && items.some((device) => device.predictionsTotal > 0))
      first = (Date.now() - started) / 1000;
    return items.length === DEMO_DEVICES.length && items.every((device) => device.predictionsTotal > 0);
  });
  narrator.say(
    `${DEMO_DEVICES.length} devices predict; the first prediction was stored after ${first.toFixed(1)} s`,
  );
  await until("both first rollouts succeed", DEMO_TIMES.rolloutS * 1000, async () => {
    const { items } = await client.get<Page<RolloutView>>("/api/v1/rollouts");
    return items.every((rollout) => rollout.state === "succeeded");
  });
  return first;
}

/** Lets the changed cameras run and asks the server how often their application said that they were right. */
async function measure(
  fleet: DemoFleet,
  narrator: Narrator,
  name: string,
): Promise<{ accuracy: number; count: number }> {
  // Whole ten-second buckets, the first of them after the change: what was before must not be counted in.
  const from = Math.ceil(Date.now() / 10_000) * 10_000;
  const to = from + Math.round(DEMO_TIMES.measureS / 10) * 10_000;
  await until("the measuring time is over", to - Date.now() + 20_000, async () => {
    fleet.assertRunning();
    const left = to + DEMO_TIMES.feedbackDelayS * 1000 - Date.now();
    narrator.progress(`measuring ${name} accuracy, ${Math.max(0, Math.ceil(left / 1000))} s`);
    return left <= 0;
  });
  const result = await fieldAccuracy(fleet.client, CHANGED_CAMERAS, { from, to });
  narrator.say(
    `${name}: ${percent(result.accuracy)} of ${result.count} predictions of ${CHANGED_CAMERAS.join(" and ")} were right, says the application`,
  );
  return result;
}

/** Stops the devices and waits until the server holds every prediction that they say they made. */
async function settle(fleet: DemoFleet, narrator: Narrator): Promise<{ made: number; stored: number }> {
  await fleet.stopAgents();
  const counts = async (): Promise<{ made: number; stored: number }> => {
    const details = await Promise.all(DEMO_DEVICES.map(({ device }) => fleet.detail(device)));
    return {
      made: details.reduce((sum, detail) => sum + (detail.state?.counters.predictions ?? Number.NaN), 0),
      stored: details.reduce((sum, detail) => sum + detail.predictionsTotal, 0),
    };
  };
  const result = await until("every prediction is stored", 20_000, async () => {
    const now = await counts();
    return now.made === now.stored ? now : undefined;
  }).catch(counts);
  narrator.say(`${result.made} predictions made by the devices, ${result.stored} stored by the server`);
  return result;
}

function sliceAccuracy(evaluation: Evaluation, name: string): { before: number; after: number } {
  const slice = evaluation.slices.find((candidate) => candidate.slice === name);
  return {
    before: round(slice?.base.accuracy.value ?? Number.NaN, 4),
    after: round(slice?.candidate.accuracy.value ?? Number.NaN, 4),
  };
}
