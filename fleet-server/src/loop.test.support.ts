import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import {
  manifestFiles,
  rolloutRequestSchema,
  type DataItem,
  type DeploymentState,
  type ErrorCode,
  type RolloutRequest,
} from "@fieldloop/protocol";
import type { ModelPackage } from "@fieldloop/runtime/node";
import { CommitEffects } from "./ingest/context.js";
import { FileBlobStore } from "./blob/files.js";
import { FACTS, QUIET_STATE, silent } from "./kit.test.support.js";
import { DatasetService } from "./services/datasets.js";
import { DesiredService } from "./services/desired.js";
import { EvaluationService } from "./services/evaluation.js";
import { LabelService } from "./services/labels.js";
import { LiveHub } from "./services/live.js";
import { RegistryService } from "./services/registry.js";
import { FleetFeed } from "./services/fleet-feed.js";
import { RolloutService } from "./services/rollouts.js";
import { SampleService } from "./services/samples.js";
import { WebhookOutbox } from "./services/webhook-outbox.js";
import { TrainingService } from "./services/training.js";
import type { Database } from "./store/database.js";
import { DeploymentStore } from "./store/deployments.js";
import { DesiredStore } from "./store/desired.js";
import { DeviceStore } from "./store/devices.js";
import { LabelStore } from "./store/labels.js";
import { migrate } from "./store/migrate.js";
import { MIGRATIONS } from "./store/migrations.js";
import { SampleIngestStore } from "./store/samples.js";
import { BUCKET_MS, TelemetryStore } from "./store/telemetry.js";
import { DeviceStatsStore } from "./store/device-stats.js";
import { FleetStore } from "./store/fleet.js";
import { DirectorKeys } from "./trust/director.js";
import { KeyRing } from "./trust/key-ring.js";
import { TrustService } from "./trust/service.js";
import { SHAPES } from "./training/tiny-package.test.kit.js";

/** Training and PostgreSQL are real here: seconds on an idle machine, more on a busy one, where training lets all others go first. */
export const WAIT_MS = 120_000;

export const DEVICES = ["cam-a", "cam-b", "cam-c"];

/** The loop's services over real stores and blobs; devices are what this kit writes into the stores for them. */
export class LoopKit {
  now = 1_790_000_000_000;
  readonly clock = { now: () => this.now };
  readonly database: Database;
  readonly pkg: ModelPackage;
  readonly blobs: FileBlobStore;
  readonly devices: DeviceStore;
  readonly deployments: DeploymentStore;
  readonly telemetry: TelemetryStore;
  readonly trust: TrustService;
  readonly registry: RegistryService;
  readonly samples: SampleService;
  readonly datasets: DatasetService;
  readonly evaluations: EvaluationService;
  readonly desired: DesiredService;
  readonly published: string[] = [];
  readonly #live = new LiveHub();
  readonly #workDir: string;
  #ids = 0;
  rollouts: RolloutService;
  training: TrainingService;

  constructor(database: Database, folder: string, pkg: ModelPackage) {
    this.database = database;
    this.pkg = pkg;
    this.blobs = new FileBlobStore(join(folder, "blobs"));
    this.#workDir = join(folder, "work");
    this.devices = new DeviceStore(database);
    this.deployments = new DeploymentStore(database);
    this.telemetry = new TelemetryStore(database);
    const labels = new LabelService(new LabelStore(database));
    const base = {
      database,
      blobs: this.blobs,
      clock: this.clock,
      logger: silent,
      newId: this.newId,
      live: this.#live,
    };
    const ring = new KeyRing({
      folder: join(folder, "keys"),
      randomBytes: (length) => new Uint8Array(randomBytes(length)),
    });
    this.trust = new TrustService({ ...base, ring, director: new DirectorKeys(folder) });
    const { trust } = this;
    this.registry = new RegistryService({ ...base, labels, running: this.devices, trust });
    this.samples = new SampleService({ ...base, labels });
    this.datasets = new DatasetService(base);
    this.desired = new DesiredService({
      ...base,
      desired: new DesiredStore(database),
      devices: this.devices,
      deployments: this.deployments,
      director: trust,
      downlink: { publish: async (device, kind) => void this.published.push(`${device} ${kind}`) },
    });
    this.evaluations = new EvaluationService({
      ...base,
      registry: this.registry,
      datasets: this.datasets,
      workDir: this.#workDir,
    });
    this.rollouts = this.makeRollouts();
    this.training = this.makeTraining();
  }

  readonly newId = (prefix: string): string => `${prefix}_${String(++this.#ids).padStart(6, "0")}`;

  /** What a restarted server has: the same stores, nothing in memory. */
  makeRollouts(
    desired: Pick<DesiredService, "issueMany" | "publish"> = this.desired,
    deployments: Pick<DeploymentStore, "ofRollout"> = this.deployments,
  ): RolloutService {
    const feed = new FleetFeed({ store: new FleetStore(this.database), groups: this.devices });
    const { database, clock, newId, registry } = this;
    const rollouts = new RolloutService({
      database,
      clock,
      logger: silent,
      newId,
      live: this.#live,
      feed,
      deployments,
      configs: new DesiredStore(database),
      stats: new DeviceStatsStore(database, async () => undefined),
      registry,
      desired,
      outbox: new WebhookOutbox(newId),
    });
    this.#live.listen((event) => rollouts.note(event));
    return rollouts;
  }

  makeTraining(): TrainingService {
    const { database, blobs, clock, newId, registry, datasets, evaluations } = this;
    const limits = { progressTimeoutMs: WAIT_MS };
    return new TrainingService({
      database,
      blobs,
      clock,
      logger: silent,
      newId,
      live: this.#live,
      registry,
      datasets,
      evaluations,
      workDir: this.#workDir,
      limits,
    });
  }

  async open(): Promise<void> {
    await this.blobs.open();
    await migrate(this.database, MIGRATIONS, this.clock.now);
    await this.trust.open();
    for (const device of DEVICES) {
      const record = { device, tags: {}, facts: FACTS, enrolled: this.now, credentialSha256: "0" };
      await this.devices.insert(this.database, record);
      await this.devices.setPresence(this.database, device, 1, true);
    }
  }

  async publishBase(): Promise<void> {
    const { pkg } = this;
    for (const { file, sha256 } of manifestFiles(pkg.manifest)) {
      await this.blobs.put(new Uint8Array(await readFile(join(pkg.dir, file))), { sha256 });
    }
    await this.blobs.put(pkg.manifestBytes);
    await this.registry.publish("shapes", pkg.packageSha256, "ann");
  }

  /** A device says what it runs, and is heard. */
  async report(
    device: string,
    version: number,
    packageSha256: string,
    configId: string | null = null,
  ): Promise<void> {
    const { now } = this;
    await this.database.transaction(async (tx) => {
      await this.devices.touch(tx, device, now);
      await this.devices.setPresence(tx, device, 1, true);
      await this.devices.setState(tx, device, {
        ...QUIET_STATE,
        time: now,
        running: {
          model: "shapes",
          version,
          packageSha256,
          variant: "int8-u8s8",
          executionProvider: "cpu",
          since: now,
        },
        configId,
      });
    });
    this.#live.publish({ type: "device", id: device, device });
  }

  async deployment(rollout: string, device: string, state: DeploymentState): Promise<void> {
    const mine = (await this.deployments.ofRollout(rollout)).filter((one) => one.device === device).at(-1)!;
    const error = state === "failed" ? { errorCode: "self_test_failed", errorMessage: "golden case 1" } : {};
    await this.deployments.setState(this.database, mine.deployment, { state, ...error }, this.now);
    const effects = new CommitEffects();
    const { errorCode = null, errorMessage = null } = error as {
      errorCode?: ErrorCode;
      errorMessage?: string;
    };
    effects.words.push({ rollout, deployment: mine.deployment, device, state, errorCode, errorMessage });
    effects.seen.set(device, this.now);
    this.rollouts.committed(effects);
  }

  /** `count` predictions of a version in this moment's bucket, `right` of them called right by feedback. */
  async predictions(device: string, version: number, count: number, right: number): Promise<void> {
    const bucket = Math.floor(this.now / BUCKET_MS) * BUCKET_MS;
    const row = { device, bucket, model: "shapes", version };
    await this.telemetry.addRollup(this.database, {
      ...row,
      class: 0,
      count,
      confidenceSum: count * 0.9,
      latencySum: count * 3,
      confidenceSquares: count * 0.81,
      latencySquares: count * 9,
    });
    for (let n = 0; n < count; n++) {
      const feedback = { device, boot: 1, n: this.#ids++, label: null, correct: n < right ? 1 : 0 };
      await this.telemetry.insertFeedback(this.database, { ...feedback, received: this.now });
      await this.telemetry.foldFeedback(this.database, feedback, row, n < right);
    }
  }

  async sample(
    at: number,
    item: DataItem,
    said: string,
    stratum: "worth" | "random",
    worth: number,
  ): Promise<string> {
    const sample = `smp_${String(at).padStart(8, "0")}`;
    const { sha256 } = await this.blobs.put(new Uint8Array(item.payload));
    await new SampleIngestStore().insert(this.database, {
      sample,
      device: DEVICES[at % 2]!,
      received: this.now,
      metadata: {
        predictionBoot: 1,
        n: at,
        time: this.now + at,
        model: "shapes",
        version: 1,
        packageSha256: this.pkg.packageSha256,
        variant: "int8-u8s8",
        stratum,
        probability: 0.5,
        worth,
        class: SHAPES.findIndex((label) => label === said),
        label: said,
        confidence: 0.6,
        latencyMs: 2,
        signals: { entropy: 0.7 },
        mediaType: item.media,
        bytes: item.payload.length,
        sha256,
        source: "test",
      },
    });
    return sample;
  }
}

export const request = (overrides: Record<string, unknown> = {}): RolloutRequest =>
  rolloutRequestSchema.parse({
    change: { kind: "package", model: "shapes", version: 1 },
    target: { devices: DEVICES },
    waves: [{ devices: ["cam-a"] }, { percent: 100 }],
    gate: { soakSeconds: 10, silenceSeconds: 30, predictionsMin: 20 },
    forceReason: "first version on this fleet",
    ...overrides,
  });

export const ANN = { name: "ann", person: "ann", sponsor: "ann" };
