import { readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { FieldloopError, UP_FILTER } from "@fieldloop/protocol";
import { createAdaptorServer } from "@hono/node-server";
import { assemble, type Parts } from "./assemble.js";
import type { AuthService } from "./auth/auth.js";
import { readAdminToken, writeAdminToken } from "./auth/files.js";
import type { Broker } from "./broker/broker.js";
import type { GuardSettings } from "./broker/connection.js";
import { systemClock, type Clock, type Logger } from "./context.js";
import { lockDataDir } from "./data-lock.js";
import type { App } from "./http/env.js";
import { registerRoutes } from "./http/register.js";
import type { Ingest } from "./ingest/ingest.js";
import { SERVER_LIMITS } from "./limits.js";
import { listenOn } from "./listen.js";
import type { Loop } from "./loop.js";
import type { DevicePolicy } from "./services/policy.js";
import type { WebhookSettings } from "./services/webhook-sender.js";
import type { AuthStore } from "./store/auth.js";
import type { Database } from "./store/database.js";
import { migrate } from "./store/migrate.js";
import { MIGRATIONS } from "./store/migrations.js";
import { isPostgresUrl, openDatabase } from "./store/open.js";
import { ServerLease } from "./store/server-lease.js";

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
  readonly webhooks?: Partial<WebhookSettings>;
  /** Opens signing keys of the data folder that are behind a passphrase. */
  readonly keyPassphrase?: string;
  /** A new key for the secrets of the database: what the older ones encrypt is encrypted anew. */
  readonly rotateSecretKey?: boolean;
  /** How long to wait for another server on the same PostgreSQL database to end; 20 s where absent. */
  readonly leaseWaitMs?: number;
  /** Another server took the database over: whoever started this one must stop it. It decides nothing any longer. */
  readonly onLost?: (error: FieldloopError) => void;
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

/** The version of this package. */
export const SERVER_VERSION = (
  JSON.parse(readFileSync(fileURLToPath(new URL("../package.json", import.meta.url)), "utf8")) as {
    version: string;
  }
).version;

/**
 * Starts a fleet server in this process: broker, ingest, HTTP API and console.
 * @throws FieldloopError `database_in_use` where another server works in the folder or on the database, `storage_failed` where it cannot be used
 */
export async function startServer(options: ServerOptions): Promise<ServerHandle> {
  const { dataDir } = options;
  await makeDataDir(dataDir);
  const unlock = await lockDataDir(dataDir);
  const undo: (() => Promise<void>)[] = [unlock];
  try {
    return await start(options, undo);
  } catch (error) {
    for (const step of undo.reverse()) await step();
    throw error;
  }
}

/** @param undo gets what must be undone, last first, where a later step fails; afterwards it is what `stop` does */
async function start(options: ServerOptions, undo: (() => Promise<void>)[]): Promise<ServerHandle> {
  const { dataDir, logger, clock = systemClock, host = "127.0.0.1" } = options;
  const database = options.database ?? openDatabase(dataDir, options.databaseUrl);
  undo.push(() => database.close());
  const lease = await leaseOf(options, undo);
  const applied = await migrate(database, MIGRATIONS, () => clock.now());
  if (applied.length > 0) logger.info({ applied }, "database migrated");
  const parts = await assemble(options, database, clock, () => lease?.held ?? true);
  const { token, isNew } = await bootstrapAdmin(parts.auth, parts.stores.auth, dataDir);
  undo.push(() => parts.ingest.stop());
  // Pushed first: the last wills of the devices still reach ingest.
  undo.push(() => parts.broker.stop());
  const mqttPort = await startBroker(parts, options.mqttPort, host);
  undo.push(() => parts.trust.stop());
  // What is missed here is found at the next start.
  parts.trust.onDirectorChanged(async () => {
    logger.info(
      { devices: await parts.desired.publishAll() },
      "desired states signed by the new director key",
    );
  });
  parts.trust.start();
  undo.push(() => parts.loop.stop());
  await parts.loop.start();
  const app = registerRoutes(parts, {
    logger,
    version: SERVER_VERSION,
    mqttUrl: (hostname) => options.publicMqttUrl ?? `mqtt://${hostname}:${mqttPort}`,
    consoleDir: options.consoleDir,
  });
  const http = await listen(app, options.httpPort, host);
  undo.push(() => closeHttp(http, parts));
  const httpPort = (http.address() as AddressInfo).port;
  return {
    httpUrl: `http://${urlHost(host)}:${httpPort}`,
    mqttUrl: `mqtt://${urlHost(host)}:${mqttPort}`,
    httpPort,
    mqttPort,
    adminToken: token,
    adminTokenIsNew: isNew,
    database,
    broker: parts.broker,
    ingest: parts.ingest,
    loop: parts.loop,
    stop: async () => {
      for (const step of undo.reverse()) await step();
      undo.length = 0;
    },
  };
}

/** The right to a PostgreSQL server's database; a file of SQLite is guarded by the lock of its folder. */
async function leaseOf(
  { databaseUrl, database, logger, leaseWaitMs = SERVER_LIMITS.leaseWaitMs, onLost }: ServerOptions,
  undo: (() => Promise<void>)[],
): Promise<ServerLease | undefined> {
  if (database || databaseUrl === undefined || !isPostgresUrl(databaseUrl)) return undefined;
  const lease = new ServerLease({
    ...{ url: databaseUrl, logger, waitMs: leaseWaitMs },
    onLost: (error) => {
      logger.error({ err: error }, "another server has the database: this one must stop");
      onLost?.(error);
    },
  });
  undo.push(() => lease.release());
  await lease.acquire();
  return lease;
}

/** Ingest listens and every desired state is retained before the first device can connect. */
async function startBroker(parts: Parts, port: number, host: string): Promise<number> {
  const { broker, ingest, desired, stores } = parts;
  await stores.devices.setAllOffline();
  await broker.open();
  await broker.subscribe(UP_FILTER, (message) => ingest.offer(message));
  await desired.publishAll();
  return broker.listen(port, host);
}

/** @throws FieldloopError `storage_failed` */
async function makeDataDir(dataDir: string): Promise<void> {
  try {
    await mkdir(dataDir, { recursive: true, mode: 0o700 });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FieldloopError("storage_failed", `Open data folder "${dataDir}": ${reason}`, { cause });
  }
}

async function bootstrapAdmin(
  auth: AuthService,
  store: AuthStore,
  dataDir: string,
): Promise<{ token: string | undefined; isNew: boolean }> {
  if ((await store.countTokens()) > 0) return { token: await readAdminToken(dataDir), isNew: false };
  const token = await auth.createToken({ name: "admin", role: "admin", person: "admin" }, undefined);
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
  await listenOn(server, port, host, "HTTP");
  return server;
}

/** Live streams end first: an open one would keep its connection. */
async function closeHttp(http: Server, parts: Parts): Promise<void> {
  const closed = new Promise<void>((resolve) => http.close(() => resolve()));
  parts.live.close();
  http.closeAllConnections();
  await closed;
}

/** An address as it stands in a URL: the wildcard is reached by loopback, IPv6 needs brackets (RFC 3986 section 3.2.2). */
function urlHost(host: string): string {
  if (host === "0.0.0.0" || host === "::") return "127.0.0.1";
  return host.includes(":") ? `[${host}]` : host;
}
