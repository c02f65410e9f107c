import { STREAMS, type DeviceState, type LaneState } from "@fieldloop/protocol";
import { Counter, Gauge, Registry } from "prom-client";

/** What `/metrics` reads, at the moment it is asked. */
export interface MetricsSource {
  readonly predictions: () => number;
  readonly framesDropped: () => number;
  readonly framesFailed: () => number;
  readonly samplesTaken: () => number;
  readonly hostRestarts: () => number;
  readonly hostReady: () => boolean;
  readonly hostResidentBytes: () => number;
  readonly lanes: () => readonly LaneState[];
  readonly warnings: () => DeviceState["warnings"];
  /** What a run of the lane usually takes, milliseconds. */
  readonly runMs: (lane: string) => number;
  readonly linkUp: () => boolean;
  readonly uplinkBytes: () => number;
  readonly uplinkResends: () => number;
  readonly recordsEvicted: () => number;
  readonly spoolBytes: () => number;
  readonly spoolRecords: (stream: (typeof STREAMS)[number]) => number;
  readonly acknowledged: (stream: (typeof STREAMS)[number]) => number;
}

/** Prometheus metrics in a registry of their own: two agents in one process do not meet. */
export function createMetrics(source: MetricsSource): Registry {
  const registry = new Registry();
  const registers = [registry];
  const counter = (name: string, help: string, read: () => number): void => {
    new Counter({
      name: `fieldloop_${name}_total`,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(read());
      },
    });
  };
  const gauge = (name: string, help: string, read: () => number): void => {
    new Gauge({
      name: `fieldloop_${name}`,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  };
  const laneCounter = (name: string, help: string, read: (lane: LaneState) => number): void => {
    new Counter({
      name: `fieldloop_lane_${name}_total`,
      help,
      labelNames: ["lane"],
      registers,
      collect() {
        this.reset();
        for (const lane of source.lanes()) this.inc({ lane: lane.name }, read(lane));
      },
    });
  };
  counter("predictions", "Predictions numbered in this boot", source.predictions);
  counter("frames_dropped", "Frames that found no place in the queue", source.framesDropped);
  counter("frames_failed", "Frames on which the model failed", source.framesFailed);
  counter("samples_taken", "Samples that the sampler took", source.samplesTaken);
  counter("host_restarts", "Restarts of the inference host", source.hostRestarts);
  counter("uplink_bytes", "Bytes published from the spool", source.uplinkBytes);
  counter("uplink_resends", "Records sent again without an acknowledgement", source.uplinkResends);
  counter("records_evicted", "Records dropped for want of space", source.recordsEvicted);
  gauge("host_ready", "1 while the inference host answers", () => (source.hostReady() ? 1 : 0));
  gauge("link_up", "1 while connected to the broker", () => (source.linkUp() ? 1 : 0));
  gauge("spool_bytes", "Bytes of the spool on disk", source.spoolBytes);
  gauge("control_resident_bytes", "Resident memory of the control process", () => process.memoryUsage.rss());
  gauge("host_resident_bytes", "Resident memory of the inference host", source.hostResidentBytes);
  new Gauge({
    name: "fieldloop_spool_records",
    help: "Records waiting for the server",
    labelNames: ["stream"],
    registers,
    collect() {
      for (const stream of STREAMS) this.set({ stream }, source.spoolRecords(stream));
    },
  });
  new Counter({
    name: "fieldloop_acknowledged_records_total",
    help: "Records of this boot that the server acknowledged",
    labelNames: ["stream"],
    registers,
    collect() {
      this.reset();
      for (const stream of STREAMS) this.inc({ stream }, source.acknowledged(stream));
    },
  });
  laneCounter(
    "frames",
    "Frames that the source gave, lost and skipped ones with it",
    (lane) => lane.framesSeen,
  );
  laneCounter("frames_dropped", "Frames that found no place in the queue", (lane) => lane.framesDropped);
  laneCounter("frames_skipped", "Frames beyond the rate", (lane) => lane.framesSkipped);
  laneCounter("frames_failed", "Frames on which the model failed", (lane) => lane.framesFailed);
  new Gauge({
    name: "fieldloop_lane_run_seconds",
    help: "Running mean of the time of one run",
    labelNames: ["lane"],
    registers,
    collect() {
      this.reset();
      for (const { name: lane } of source.lanes()) this.set({ lane }, source.runMs(lane) / 1000);
    },
  });
  new Gauge({
    name: "fieldloop_lane_rate_max",
    help: "Frames a second that the governor allows, where it slows the lane down",
    labelNames: ["lane"],
    registers,
    collect() {
      this.reset();
      for (const { name: lane, rateMax } of source.lanes()) {
        if (rateMax !== null) this.set({ lane }, rateMax);
      }
    },
  });
  new Counter({
    name: "fieldloop_source_total",
    help: "What the source of a lane counted: rows, malformedRows, gaps, restarts and the like",
    labelNames: ["lane", "what"],
    registers,
    collect() {
      this.reset();
      for (const { name: lane, sourceCounts = {} } of source.lanes()) {
        for (const [what, count] of Object.entries(sourceCounts)) this.inc({ lane, what }, count);
      }
    },
  });
  new Gauge({
    name: "fieldloop_warning",
    help: "1 for each trouble that the device has now",
    labelNames: ["code", "severity"],
    registers,
    collect() {
      this.reset();
      for (const { code, severity } of source.warnings()) this.set({ code, severity }, 1);
    },
  });
  new Gauge({
    name: "fieldloop_running",
    help: "1 for the version whose session answers",
    labelNames: ["lane", "model", "version", "variant", "provider"],
    registers,
    collect() {
      this.reset();
      for (const { name: lane, running } of source.lanes()) {
        if (!running) continue;
        const { model, version, variant, executionProvider: provider } = running;
        this.set({ lane, model, version, variant, provider }, 1);
      }
    },
  });
  return registry;
}
