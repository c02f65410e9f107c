import { randomBytes } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { AuthService } from "./auth/auth.js";
import { SecretBox } from "./auth/secret-box.js";
import type { BlobStore } from "./blob/blob.js";
import { FileBlobStore } from "./blob/files.js";
import { Broker } from "./broker/broker.js";
import type { Clock } from "./context.js";
import { settleVersion } from "./ingest/feedback.js";
import { Ingest } from "./ingest/ingest.js";
import { createLoop, type Loop } from "./loop.js";
import type { ServerOptions } from "./server.js";
import { DesiredService } from "./services/desired.js";
import { DeviceService } from "./services/devices.js";
import { EnrolmentService } from "./services/enrolment.js";
import { randomIds, type NewId } from "./services/ids.js";
import { LabelService } from "./services/labels.js";
import { LiveHub } from "./services/live.js";
import { RateMeter } from "./services/rates.js";
import { TelemetryService } from "./services/telemetry.js";
import { AuthStore } from "./store/auth.js";
import type { Database } from "./store/database.js";
import { DeploymentStore } from "./store/deployments.js";
import { DesiredStore } from "./store/desired.js";
import { DeviceStore } from "./store/devices.js";
import { EventStore } from "./store/events.js";
import { LabelStore } from "./store/labels.js";
import { SampleIngestStore } from "./store/samples.js";
import { ShadowStore } from "./store/shadow.js";
import { TelemetryStore } from "./store/telemetry.js";
import { KeyCeremony } from "./trust/ceremony.js";
import { DirectorKeys } from "./trust/director.js";
import { KeyRing } from "./trust/key-ring.js";
import { TrustService } from "./trust/service.js";

export interface Stores {
  readonly auth: AuthStore;
  readonly devices: DeviceStore;
  readonly deployments: DeploymentStore;
  readonly desired: DesiredStore;
  readonly events: EventStore;
  readonly samples: SampleIngestStore;
  readonly shadow: ShadowStore;
  readonly telemetry: TelemetryStore;
}

/** Everything that runs, made but not started. */
export interface Parts {
  readonly database: Database;
  readonly clock: Clock;
  readonly newId: NewId;
  readonly stores: Stores;
  readonly blobs: BlobStore;
  readonly live: LiveHub;
  readonly rates: RateMeter;
  readonly auth: AuthService;
  readonly enrolment: EnrolmentService;
  readonly broker: Broker;
  readonly desired: DesiredService;
  readonly devices: DeviceService;
  readonly telemetry: TelemetryService;
  readonly ingest: Ingest;
  readonly loop: Loop;
  readonly trust: TrustService;
  readonly ceremony: KeyCeremony;
  readonly secretBox: SecretBox;
}

const SILENCE_MS = 60_000;

/** Makes every part and gives each only what it uses. @param mayDecide false while another server may have the database */
export async function assemble(
  options: ServerOptions,
  database: Database,
  clock: Clock,
  mayDecide: () => boolean,
): Promise<Parts> {
  const { dataDir, logger, policy, guard, silenceMs = SILENCE_MS } = options;
  const stores = createStores(database);
  const newId = randomIds((length) => randomBytes(length));
  const blobs = new FileBlobStore(join(dataDir, "blobs"));
  await blobs.open();
  const { trust, ceremony } = await openTrust(options, { database, blobs, clock, newId });
  const secretBox = new SecretBox({ folder: join(dataDir, "secret-keys"), now: () => clock.now() });
  await secretBox.open();
  if (options.rotateSecretKey) await secretBox.rotate();
  const live = new LiveHub();
  const rates = new RateMeter();
  const labels = new LabelService(new LabelStore(database));
  labels.onKnown((model, version) => settleVersion(database, stores.telemetry, labels, model, version));
  const telemetry = new TelemetryService(stores.telemetry, labels);
  const auth = new AuthService({ database, newId, store: stores.auth, devices: stores.devices, clock });
  const broker = new Broker({
    authorize: { kind: "devices", authenticate: (device, credential) => auth.connect(device, credential) },
    logger,
    ...(guard ? { guard } : {}),
  });
  // The loop is made of parts that are made before it.
  const started: { loop?: Loop } = {};
  const ingest = new Ingest({
    database,
    stores: { ...stores, labels, blobs },
    downlink: broker,
    live,
    rates,
    clock,
    logger,
    committed: (effects) => started.loop?.committed(effects),
  });
  const fleet = createFleet({
    onGroups: () => started.loop?.groupsChanged(),
    database,
    stores,
    broker,
    trust,
    clock,
    live,
    rates,
    telemetry,
    silenceMs,
    policy,
  });
  const { desired, devices } = fleet;
  const { deployments } = stores;
  const workDir = join(dataDir, "work");
  await mkdir(workDir, { recursive: true, mode: 0o700 });
  const loop = (started.loop = await createLoop({
    database,
    blobs,
    clock,
    logger,
    live,
    devices,
    deployments,
    desired,
    telemetry,
    labels,
    trust,
    workDir,
    secretBox,
    mayDecide,
    ...(options.webhooks ? { webhooks: options.webhooks } : {}),
  }));
  return {
    database,
    clock,
    newId,
    stores,
    blobs,
    live,
    rates,
    auth,
    broker,
    telemetry,
    ingest,
    loop,
    trust,
    ceremony,
    secretBox,
    ...fleet,
  };
}

/** The trust repository: made at the first start, brought up to date at others, before anything is signed or served. */
async function openTrust(
  { dataDir, logger, keyPassphrase }: ServerOptions,
  parts: { database: Database; blobs: BlobStore; clock: Clock; newId: NewId },
): Promise<{ trust: TrustService; ceremony: KeyCeremony }> {
  const director = new DirectorKeys(dataDir);
  const ring = new KeyRing({
    folder: join(dataDir, "trust", "keys"),
    randomBytes: (length) => new Uint8Array(randomBytes(length)),
    ...(keyPassphrase === undefined ? {} : { passphrase: keyPassphrase }),
  });
  const trust = new TrustService({ ...parts, ring, director, logger });
  await trust.open();
  return { trust, ceremony: new KeyCeremony({ ...parts, trust, ring, director }) };
}

function createStores(database: Database): Stores {
  return {
    auth: new AuthStore(database),
    devices: new DeviceStore(database),
    deployments: new DeploymentStore(database),
    desired: new DesiredStore(database),
    events: new EventStore(database),
    samples: new SampleIngestStore(),
    shadow: new ShadowStore(database),
    telemetry: new TelemetryStore(database),
  };
}

/** The services about devices: what they are told, what they are, how they come to be. */
function createFleet(given: {
  database: Database;
  stores: Stores;
  broker: Broker;
  trust: TrustService;
  clock: Clock;
  live: LiveHub;
  rates: RateMeter;
  telemetry: TelemetryService;
  silenceMs: number;
  policy: ServerOptions["policy"];
  onGroups: () => void;
}): { desired: DesiredService; devices: DeviceService; enrolment: EnrolmentService } {
  const { database, stores, broker, trust, clock, live, rates, telemetry, silenceMs, policy, onGroups } =
    given;
  const desired = new DesiredService({
    database,
    desired: stores.desired,
    devices: stores.devices,
    deployments: stores.deployments,
    downlink: broker,
    director: trust,
    clock,
    live,
    ...(policy ? { policy } : {}),
  });
  const devices = new DeviceService({
    devices: stores.devices,
    deployments: stores.deployments,
    desired,
    telemetry,
    rates,
    live,
    clock,
    silenceMs,
    disconnect: (device) => broker.disconnect(device),
    onGroups,
  });
  const enrolment = new EnrolmentService({
    database,
    auth: stores.auth,
    devices: stores.devices,
    desired,
    trust,
    clock,
    live,
  });
  return { desired, devices, enrolment };
}
