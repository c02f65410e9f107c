import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { UP_FILTER, type Overview } from "@fieldloop/protocol";
import { createAdaptorServer } from "@hono/node-server";
import { AuthService } from "./auth/auth.js";
import { loadSigningKey, readAdminToken, writeAdminToken } from "./auth/files.js";
import { FileBlobStore } from "./blob/files.js";
import { Broker } from "./broker/broker.js";
import type { GuardSettings } from "./broker/connection.js";
import { systemClock, type Clock, type Logger } from "./context.js";
import { createApp } from "./http/app.js";
import { registerConsole } from "./http/console.js";
import type { App } from "./http/env.js";
import { registerMetrics } from "./http/metrics.js";
import { registerOpenApi } from "./http/openapi.js";
import { registerArtifactRoutes } from "./http/routes/artifacts.js";
import { registerDeviceRoutes } from "./http/routes/devices.js";
import { registerEnrolmentRoutes } from "./http/routes/enrolment.js";
import { registerGroupRoutes } from "./http/routes/groups.js";
import { registerLiveRoute } from "./http/routes/live.js";
import { registerOverviewRoutes } from "./http/routes/overview.js";
import { registerSessionRoutes } from "./http/routes/session.js";
import { registerTapRoute } from "./http/routes/tap.js";
import { settleVersion } from "./ingest/feedback.js";
import { Ingest } from "./ingest/ingest.js";
import { SERVER_LIMITS } from "./limits.js";
import { createLoop, type Loop } from "./loop.js";
import { DesiredService } from "./services/desired.js";
import { DeviceService } from "./services/devices.js";
import { EnrolmentService } from "./services/enrolment.js";
import { randomIds } from "./services/ids.js";
import { LabelService } from "./services/labels.js";
import { LiveHub } from "./services/live.js";
import type { DevicePolicy } from "./services/policy.js";
import { RateMeter } from "./services/rates.js";
import { TelemetryService } from "./services/telemetry.js";
import { AuthStore } from "./store/auth.js";
import type { Database } from "./store/database.js";
import { DeploymentStore } from "./store/deployments.js";
import { DesiredStore } from "./store/desired.js";
import { DeviceStore } from "./store/devices.js";
import { EventStore } from "./store/events.js";
import { SqlIdempotencyStore } from "./store/idempotency.js";
import { LabelStore } from "./store/labels.js";
import { migrate } from "./store/migrate.js";
import { MIGRATIONS } from "./store/migrations.js";
import { openDatabase } from "./store/open.js";
import { SampleIngestStore } from "./store/samples.js";
import { TelemetryStore } from "./store/telemetry.js";

export interface ServerOptions {
  /** Everything that the server keeps is in this folder, but for a database elsewhere. */
  readonly dataDir: string;
  /** 0 takes any free port. */
  readonly httpPort: number;
  readonly mqttPort: number;
  /** Address to listen on; loopback where absent: there is no TLS in this process. */
  readonly host?: string;
  /** `postgres://…`; SQLite in the data folder where absent. */
  readonly databaseUrl?: string;
  /** An open database instead; the server closes it. */
  readonly database?: Database;
  /** What devices connect to, where it is not the host that they enrolled at. */
  readonly publicMqttUrl?: string;
  readonly logger: Logger;
  readonly clock?: Clock;
  /** Nothing heard for this long from a device: `silent`. */
  readonly silenceMs?: number;
  readonly policy?: Partial<DevicePolicy>;
  readonly guard?: Partial<GuardSettings>;
  /** Folder of the built console. */
  readonly consoleDir?: string;
}

export interface ServerHandle {
  readonly httpUrl: string;
  readonly mqttUrl: string;
  readonly httpPort: number;
  readonly mqttPort: number;
  /** The first administrator's token, where its file still is. */
  readonly adminToken: string | undefined;
  /** True at the very first start: the token was made just now. */
  readonly adminTokenIsNew: boolean;
  readonly database: Database;
  readonly broker: Broker;
  readonly ingest: Ingest;
  readonly loop: Loop;
  /** Ends everything in order: devices are disconnected, what arrived is committed, the database is closed. */
  stop(): Promise<void>;
}

const SILENCE_MS = 60_000;
const ACCURACY_WINDOW_MS = 600_000;

/** The version of this package. */
export const SERVER_VERSION = (
  JSON.parse(readFileSync(fileURLToPath(new URL("../package.json", import.meta.url)), "utf8")) as { version: string }
).version;

/** Starts a fleet server in this process: broker, ingest, HTTP API and console. */
export async function startServer(options: ServerOptions): Promise<ServerHandle> {
  const { dataDir, logger, clock = systemClock, host = "127.0.0.1" } = options;
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  const database = options.database ?? openDatabase(dataDir, options.databaseUrl);
  try {
    const applied = await migrate(database, MIGRATIONS, () => clock.now());
    if (applied.length > 0) logger.info({ applied }, "database migrated");
    const parts = await createParts(options, database, clock, host);
    const { token, isNew } = await bootstrapAdmin(parts.auth, parts.authStore, dataDir);
    const http = await listen(parts.app, options.httpPort, host);
    const httpPort = (http.address() as AddressInfo).port;
    await parts.loop.start();
    return {
      httpUrl: `http://${urlHost(host)}:${httpPort}`,
      mqttUrl: `mqtt://${urlHost(host)}:${parts.mqttPort}`,
      httpPort,
      mqttPort: parts.mqttPort,
      adminToken: token,
      adminTokenIsNew: isNew,
      database,
      broker: parts.broker,
      ingest: parts.ingest,
      loop: parts.loop,
      stop: () => stopServer(parts, http, database),
    };
  } catch (error) {
    await database.close();
    throw error;
  }
}

interface Parts {
  readonly app: App;
  readonly auth: AuthService;
  readonly authStore: AuthStore;
  readonly broker: Broker;
  readonly mqttPort: number;
  readonly ingest: Ingest;
  readonly live: LiveHub;
  readonly loop: Loop;
}

/** Makes every part and gives each only what it uses. */
async function createParts(options: ServerOptions, database: Database, clock: Clock, host: string): Promise<Parts> {
  const { dataDir, logger } = options;
  const newId = randomIds((length) => randomBytes(length));
  const signingKey = await loadSigningKey(dataDir);
  const blobs = new FileBlobStore(join(dataDir, "blobs"));
  await blobs.open();
  const stores = {
    auth: new AuthStore(database),
    devices: new DeviceStore(database),
    deployments: new DeploymentStore(database),
    desired: new DesiredStore(database),
    events: new EventStore(database),
    samples: new SampleIngestStore(),
    telemetry: new TelemetryStore(database),
  };
  const live = new LiveHub();
  const rates = new RateMeter();
  const labels = new LabelService(new LabelStore(database));
  labels.onKnown((model, version) => settleVersion(database, stores.telemetry, labels, model, version));
  const auth = new AuthService({ store: stores.auth, devices: stores.devices, clock });
  const broker = new Broker({
    authorize: { kind: "devices", authenticate: (device, credential) => auth.connect(device, credential) },
    logger,
    ...(options.guard ? { guard: options.guard } : {}),
  });
  const desired = new DesiredService({
    database,
    desired: stores.desired,
    devices: stores.devices,
    deployments: stores.deployments,
    downlink: broker,
    signingKey,
    clock,
    live,
    ...(options.policy ? { policy: options.policy } : {}),
  });
  const telemetry = new TelemetryService(stores.telemetry, labels);
  const devices = new DeviceService({
    devices: stores.devices,
    deployments: stores.deployments,
    desired,
    telemetry,
    rates,
    live,
    clock,
    silenceMs: options.silenceMs ?? SILENCE_MS,
    disconnect: (device) => broker.disconnect(device),
  });
  const ingest = new Ingest({
    database,
    stores: { ...stores, labels, blobs },
    downlink: broker,
    live,
    rates,
    clock,
    logger,
  });
  const workDir = join(dataDir, "work");
  await mkdir(workDir, { recursive: true, mode: 0o700 });
  const { deployments } = stores;
  const loop = await createLoop({
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
    signingKey,
    workDir,
  });

  await stores.devices.setAllOffline();
  const mqttPort = await broker.start(options.mqttPort, host);
  await broker.subscribe(UP_FILTER, (message) => ingest.offer(message));
  await desired.publishAll();

  const app = createApp({ logger, authenticator: auth, idempotency: new SqlIdempotencyStore(database, clock) });
  const enrolment = new EnrolmentService({
    database,
    auth: stores.auth,
    devices: stores.devices,
    desired,
    signingKey,
    clock,
    live,
  });
  const overview = overviewOf({ devices, telemetry, rates, clock, broker, ingest, loop });
  app.get("/healthz", (c) => c.json({ status: "ok", version: SERVER_VERSION }));
  registerSessionRoutes(app, auth);
  registerEnrolmentRoutes(app, enrolment, (hostname) => options.publicMqttUrl ?? `mqtt://${hostname}:${mqttPort}`);
  registerDeviceRoutes(app, { devices, deployments, desired, telemetry, events: stores.events, clock, newId });
  registerGroupRoutes(app, devices, desired);
  registerOverviewRoutes(app, overview, telemetry);
  registerLiveRoute(app, live);
  registerTapRoute(app, broker, clock);
  registerArtifactRoutes(app, blobs);
  loop.registerRoutes(app);
  registerMetrics(app, { broker, ingest, live });
  registerOpenApi(app, SERVER_VERSION);
  registerConsole(app, options.consoleDir ?? fileURLToPath(new URL("./console", import.meta.url)));
  return { app, auth, authStore: stores.auth, broker, mqttPort, ingest, live, loop };
}

function overviewOf(parts: {
  devices: DeviceService;
  telemetry: TelemetryService;
  rates: RateMeter;
  clock: Clock;
  broker: Broker;
  ingest: Ingest;
  loop: Loop;
}): () => Promise<Overview> {
  const { devices, telemetry, rates, clock, broker, ingest, loop } = parts;
  return async () => {
    const now = clock.now();
    const [counts, predictionsTotal, accuracy, loopCounts] = await Promise.all([
      devices.counts(),
      telemetry.total(),
      telemetry.accuracy({ from: now - ACCURACY_WINDOW_MS }),
      loop.counts(),
    ]);
    const { predictions } = ingest.counters;
    return {
      serverVersion: SERVER_VERSION,
      devices: counts,
      predictionsTotal,
      predictionsPerSecond: rates.total(now),
      accuracy,
      ...loopCounts,
      bytesPerPrediction: predictions === 0 ? null : broker.meter.predictionBytes / predictions,
    };
  };
}

async function bootstrapAdmin(
  auth: AuthService,
  store: AuthStore,
  dataDir: string,
): Promise<{ token: string | undefined; isNew: boolean }> {
  if ((await store.countTokens()) > 0) return { token: await readAdminToken(dataDir), isNew: false };
  const token = await auth.createToken("admin", "admin");
  await writeAdminToken(dataDir, token);
  return { token, isNew: true };
}

async function listen(app: App, port: number, host: string): Promise<Server> {
  const server = createAdaptorServer({
    fetch: app.fetch as Parameters<typeof createAdaptorServer>[0]["fetch"],
    serverOptions: {
      maxHeaderSize: SERVER_LIMITS.httpHeaderBytesMax,
      headersTimeout: SERVER_LIMITS.httpHeadersTimeoutMs,
      requestTimeout: SERVER_LIMITS.httpRequestTimeoutMs,
    },
  }) as Server;
  server.maxConnections = SERVER_LIMITS.httpSocketsMax;
  server.maxRequestsPerSocket = SERVER_LIMITS.httpRequestsPerSocketMax;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => {
      server.off("error", reject);
      resolve();
    });
  });
  return server;
}

async function stopServer(parts: Parts, http: Server, database: Database): Promise<void> {
  const closed = new Promise<void>((resolve) => http.close(() => resolve()));
  parts.live.close();
  await parts.loop.stop();
  // Last wills of the devices still reach ingest.
  await parts.broker.stop();
  await parts.ingest.stop();
  http.closeAllConnections();
  await closed;
  await database.close();
}

/** An address as it stands in a URL: the wildcard is reached by loopback, IPv6 needs brackets (RFC 3986 section 3.2.2). */
function urlHost(host: string): string {
  if (host === "0.0.0.0" || host === "::") return "127.0.0.1";
  return host.includes(":") ? `[${host}]` : host;
}
