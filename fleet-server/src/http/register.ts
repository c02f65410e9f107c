import { fileURLToPath } from "node:url";
import type { Parts } from "../assemble.js";
import type { Logger } from "../context.js";
import { OverviewService } from "../services/overview.js";
import { ShadowService } from "../services/shadow.js";
import { SqlIdempotencyStore } from "../store/idempotency.js";
import { createApp } from "./app.js";
import { registerConsole } from "./console.js";
import type { App } from "./env.js";
import { registerMetrics } from "./metrics.js";
import { registerOpenApi } from "./openapi.js";
import { registerArtifactRoutes } from "./routes/artifacts.js";
import { registerDeviceRoutes } from "./routes/devices.js";
import { registerEnrolmentRoutes } from "./routes/enrolment.js";
import { registerGroupRoutes } from "./routes/groups.js";
import { registerLiveRoute } from "./routes/live.js";
import { registerOverviewRoutes } from "./routes/overview.js";
import { registerSessionRoutes } from "./routes/session.js";
import { registerShadowRoute } from "./routes/shadow.js";
import { registerTapRoute } from "./routes/tap.js";
import { registerTrustRoutes } from "./routes/trust.js";
import { registerTufRoutes } from "./routes/tuf.js";

export interface RegisterOptions {
  readonly logger: Logger;
  readonly version: string;
  /** What devices are told to connect to, given the host name that they enrolled at. */
  readonly mqttUrl: (hostname: string) => string;
  readonly consoleDir: string | undefined;
}

/** The whole HTTP application: every route over its services. */
export function registerRoutes(parts: Parts, options: RegisterOptions): App {
  const { database, clock, auth, broker, ingest, live, telemetry, devices, desired, stores, newId } = parts;
  const { logger, version } = options;
  const { deployments, events } = stores;
  const app = createApp({
    logger,
    authenticator: auth,
    idempotency: new SqlIdempotencyStore(database, clock, parts.secretBox),
  });
  const overview = new OverviewService({
    serverVersion: version,
    devices,
    telemetry,
    rates: parts.rates,
    clock,
    wire: () => ({ bytes: broker.meter.predictionBytes, predictions: ingest.counters.predictions }),
    loopCounts: () => parts.loop.counts(),
  });
  app.get("/healthz", (c) => c.json({ status: "ok", version }));
  registerSessionRoutes(app, auth);
  registerEnrolmentRoutes(app, parts.enrolment, options.mqttUrl);
  registerDeviceRoutes(app, { devices, deployments, desired, telemetry, events, clock, newId });
  registerGroupRoutes(app, devices, desired);
  registerOverviewRoutes(app, () => overview.read(), telemetry);
  registerLiveRoute(app, live);
  registerShadowRoute(app, new ShadowService({ deployments, shadow: stores.shadow }));
  registerTapRoute(app, broker, clock);
  registerArtifactRoutes(app, parts.blobs);
  registerTufRoutes(app, parts.trust, parts.blobs);
  registerTrustRoutes(app, parts.trust, parts.ceremony);
  parts.loop.registerRoutes(app);
  registerMetrics(app, {
    broker,
    ingest,
    live,
    trust: parts.trust,
    clock,
    rolloutTicks: () => parts.loop.rolloutTicks(),
  });
  registerOpenApi(app, version);
  registerConsole(app, options.consoleDir ?? fileURLToPath(new URL("../console", import.meta.url)));
  return app;
}
