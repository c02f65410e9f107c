import type { HostLink } from "./host-link.js";
import type { MetricsSource } from "./metrics.js";
import type { Sender } from "./sender.js";
import type { Spool } from "./spool/spool.js";
import type { Warnings } from "./warnings.js";

/** Where `/metrics` finds what it reads in a running agent. */
export function agentMetrics(
  host: HostLink,
  spool: Spool,
  sender: Sender,
  warnings: Warnings,
  linkUp: () => boolean,
): MetricsSource {
  const { supervisor, batches, frames } = host;
  return {
    predictions: () => batches.numbers.count,
    framesDropped: () => frames.total.framesDropped,
    framesFailed: () => frames.total.framesFailed,
    samplesTaken: () => host.samplesTaken,
    hostRestarts: () => supervisor.restarts,
    hostReady: () => supervisor.ready,
    hostResidentBytes: () => supervisor.heartbeat?.residentBytes ?? 0,
    lanes: () => host.states,
    warnings: () => warnings.list(),
    runMs: (lane) => supervisor.heartbeat?.lanes.find(({ name }) => name === lane)?.expectedMs ?? 0,
    linkUp,
    uplinkBytes: () => sender.bytesSent,
    uplinkResends: () => sender.resends,
    recordsEvicted: () => spool.recordsEvicted,
    spoolBytes: () => spool.bytes,
    spoolRecords: (stream) => spool.waiting(stream),
    acknowledged: (stream) => spool.acknowledged(stream),
  };
}
