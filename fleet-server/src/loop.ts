import { randomBytes } from "node:crypto";
import { join } from "node:path";
import type { BlobStore } from "./blob/blob.js";
import type { Clock, Logger } from "./context.js";
import type { App } from "./http/env.js";
import { registerAuditRoutes } from "./http/routes/audit.js";
import { registerDatasetRoutes } from "./http/routes/datasets.js";
import { registerDeltaRoutes } from "./http/routes/deltas.js";
import { registerEvaluationRoutes } from "./http/routes/evaluations.js";
import { registerModelRoutes } from "./http/routes/models.js";
import { registerRolloutRoutes } from "./http/routes/rollouts.js";
import { registerSampleRoutes } from "./http/routes/samples.js";
import { registerTrainingRoutes } from "./http/routes/training.js";
import { registerWebhookRoutes } from "./http/routes/webhooks.js";
import type { SecretBox } from "./auth/secret-box.js";
import type { CommitEffects } from "./ingest/context.js";
import { FleetFeed } from "./services/fleet-feed.js";
import { DesiredStore } from "./store/desired.js";
import { DatasetService } from "./services/datasets.js";
import { DeltaService } from "./services/deltas.js";
import type { DesiredService } from "./services/desired.js";
import type { DeviceService } from "./services/devices.js";
import { EvaluationService } from "./services/evaluation.js";
import { randomIds } from "./services/ids.js";
import type { LabelService } from "./services/labels.js";
import type { LiveHub } from "./services/live.js";
import { RegistryService } from "./services/registry.js";
import { RolloutService } from "./services/rollouts.js";
import { SampleService } from "./services/samples.js";
import type { TelemetryService } from "./services/telemetry.js";
import { TrainingService } from "./services/training.js";
import { WebhookOutbox } from "./services/webhook-outbox.js";
import { WEBHOOK_SETTINGS, WebhookSender, type WebhookSettings } from "./services/webhook-sender.js";
import { WebhookSecrets } from "./services/webhook-secrets.js";
import { WebhookService } from "./services/webhooks.js";
import { AuditStore } from "./store/audit.js";
import type { Database } from "./store/database.js";
import type { DeploymentStore } from "./store/deployments.js";
import { DeviceStore } from "./store/devices.js";
import { SampleStore } from "./store/samples-annotations.js";
import { DeviceStatsStore } from "./store/device-stats.js";
import { FleetStore } from "./store/fleet.js";
import { ShadowStore } from "./store/shadow.js";
import { ShadowService } from "./services/shadow.js";
import type { TrustService } from "./trust/service.js";

/** What the improvement loop (registry, rollouts, samples, datasets, training, evaluation) gets from the rest of the server. */
export interface LoopDependencies {
  readonly database: Database;
  readonly blobs: BlobStore;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly live: LiveHub;
  readonly devices: DeviceService;
  readonly deployments: DeploymentStore;
  readonly desired: DesiredService;
  readonly telemetry: TelemetryService;
  readonly labels: LabelService;
  readonly trust: TrustService;
  /** A folder of the loop's own, for work in progress. */
  readonly workDir: string;
  readonly webhooks?: Partial<WebhookSettings>;
  readonly secretBox: SecretBox;
  /** False while another server may have the database. */
  readonly mayDecide: () => boolean;
}

export interface LoopCounts {
  readonly samplesTotal: number;
  readonly samplesUnlabelled: number;
  readonly rolloutsRunning: number;
  readonly trainingRunning: number;
}

export interface Loop {
  registerRoutes(app: App): void;
  start(): Promise<void>;
  stop(): Promise<void>;
  /** What ingest made durable, and that groups changed. */
  committed(effects: CommitEffects): void;
  groupsChanged(): void;
  /** Of the last rollout ticks, milliseconds. */
  rolloutTicks(): { readonly count: number; readonly p50: number; readonly p99: number };
  /** For the overview. */
  counts(): Promise<LoopCounts>;
}

export async function createLoop(dependencies: LoopDependencies): Promise<Loop> {
  const { database, blobs, clock, logger, live, labels, deployments, desired, trust } = dependencies;
  const newId = randomIds((length) => randomBytes(length));
  const deviceStore = new DeviceStore(database);
  const registry = new RegistryService({
    database,
    blobs,
    clock,
    newId,
    trust,
    labels,
    live,
    running: deviceStore,
  });
  const samples = new SampleService({ database, blobs, clock, newId, labels, live });
  const datasets = new DatasetService({ database, clock, newId });
  const shadows = new ShadowService({ deployments, shadow: new ShadowStore(database) });
  const settings = { ...WEBHOOK_SETTINGS, ...dependencies.webhooks };
  const secrets = new WebhookSecrets({ database, box: dependencies.secretBox, logger });
  const sender = new WebhookSender({ database, clock, logger, settings, random: Math.random, secrets });
  const outbox = new WebhookOutbox(newId);
  outbox.wake = () => sender.wake();
  const { allowPrivate } = settings;
  const webhooks = new WebhookService({ database, clock, newId, outbox, sender, allowPrivate, secrets });
  const feed = new FleetFeed({ store: new FleetStore(database), groups: deviceStore });
  const rollouts = new RolloutService({
    database,
    clock,
    logger,
    newId,
    mayDecide: dependencies.mayDecide,
    feed,
    deployments,
    configs: new DesiredStore(database),
    shadowOf: (deployment) => shadows.shadowOf(deployment),
    stats: new DeviceStatsStore(database, (model, version) => labels.get(model, version)),
    registry,
    desired,
    outbox,
    live,
    onSucceeded: (rollout) => closeFailures(rollout, registry, new SampleStore(database)),
  });
  const work = {
    database,
    blobs,
    clock,
    logger,
    newId,
    live,
    registry,
    datasets,
    workDir: dependencies.workDir,
  };
  const evaluations = new EvaluationService(work);
  const training = new TrainingService({ ...work, evaluations });
  const deltas = new DeltaService({
    database,
    blobs,
    clock,
    logger,
    live,
    workDir: join(dependencies.workDir, "deltas"),
  });
  let stopListening = (): void => undefined;
  return {
    registerRoutes: (app) => {
      registerModelRoutes(app, registry);
      registerDeltaRoutes(app, deltas, blobs);
      registerRolloutRoutes(app, rollouts, live);
      registerSampleRoutes(app, samples);
      registerDatasetRoutes(app, datasets);
      registerTrainingRoutes(app, training);
      registerEvaluationRoutes(app, evaluations);
      registerWebhookRoutes(app, webhooks);
      registerAuditRoutes(app, new AuditStore(database));
    },
    start: async () => {
      await registry.start();
      await deltas.start();
      stopListening = live.listen((event) => {
        rollouts.note(event);
        // The evidence of a version is part of its target.
        if (event.type === "evaluation") trust.wake();
      });
      await secrets.settle();
      sender.start();
      await rollouts.start();
      await training.start();
    },
    stop: async () => {
      stopListening();
      await Promise.all([rollouts.stop(), training.stop(), evaluations.stop(), deltas.stop()]);
      await sender.stop();
    },
    committed: (effects) => rollouts.committed(effects),
    groupsChanged: () => feed.noteGroups(),
    rolloutTicks: () => ({
      count: rollouts.timer.ticks,
      p50: rollouts.timer.quantile(0.5),
      p99: rollouts.timer.quantile(0.99),
    }),
    counts: async () => {
      const { total, unlabelled } = await samples.count();
      return {
        samplesTotal: total,
        samplesUnlabelled: unlabelled,
        rolloutsRunning: rollouts.countRunning(),
        trainingRunning: await training.countRunning(),
      };
    },
  };
}

/** A version that reached its whole target closes the failures that it was trained on. */
async function closeFailures(
  { model, version }: { model: string; version: number },
  registry: RegistryService,
  samples: SampleStore,
): Promise<void> {
  const { snapshot } = (await registry.require(model, version)).manifest.lineage;
  if (snapshot !== null) await samples.setSnapshotStatus(snapshot, ["in_training"], "fixed");
}
