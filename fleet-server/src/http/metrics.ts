import { Gauge, Registry, collectDefaultMetrics } from "prom-client";
import type { Broker } from "../broker/broker.js";
import type { Ingest } from "../ingest/ingest.js";
import type { LiveHub } from "../services/live.js";
import type { Clock } from "../context.js";
import type { TrustService } from "../trust/service.js";
import type { App } from "./env.js";
import { requireRole } from "./guards.js";

export interface MetricSources {
  readonly broker: Broker;
  readonly ingest: Ingest;
  readonly live: LiveHub;
  readonly trust: TrustService;
  readonly clock: Clock;
  readonly rolloutTicks: () => { readonly count: number; readonly p50: number; readonly p99: number };
}

type Values = Record<string, number>;

/** Counters of this process in Prometheus' text form; its scraper needs a viewer's token. */
export function registerMetrics(app: App, sources: MetricSources): void {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const read = (name: string, help: string, values: () => Values | Promise<Values>): void => {
    const gauge = new Gauge({
      name,
      help,
      labelNames: ["kind"],
      registers: [registry],
      collect: async () => {
        for (const [kind, value] of Object.entries(await values())) gauge.set({ kind }, value);
      },
    });
  };
  const { broker, ingest, live, rolloutTicks, trust, clock } = sources;
  read(
    "fieldloop_rollout_tick_ms",
    "Milliseconds of the last thousand steps of the rollout engine, commits included",
    () => ({
      ...rolloutTicks(),
    }),
  );
  read("fieldloop_broker", "MQTT broker: connections, refusals, takeovers, retained messages", () => ({
    ...broker.counters(),
  }));
  read("fieldloop_wire_bytes", "Bytes on the wire by kind of topic, MQTT headers included", () =>
    Object.fromEntries([...broker.meter.byKind].map(([kind, traffic]) => [kind, traffic.bytes])),
  );
  read("fieldloop_wire_packets", "Packets on the wire by kind of topic", () =>
    Object.fromEntries([...broker.meter.byKind].map(([kind, traffic]) => [kind, traffic.packets])),
  );
  read("fieldloop_ingest", "Messages taken in, refused, set aside", () => ({
    ...ingest.counters,
    queued: ingest.queued,
  }));
  read("fieldloop_live", "Live streams and events that slow readers lost", () => ({
    streams: live.streams,
    dropped: live.dropped,
  }));
  read("fieldloop_trust_expires_seconds", "Seconds until trust metadata of a role expire", async () =>
    Object.fromEntries(
      Object.entries(await trust.expiries()).map(([role, time]) => [role, (time - clock.now()) / 1_000]),
    ),
  );
  app.get("/metrics", requireRole("viewer"), async (c) =>
    c.body(await registry.metrics(), 200, { "Content-Type": registry.contentType }),
  );
}
