import type { DeviceState, Facts } from "@fieldloop/protocol";
import { AGENT_VERSION } from "../limits.js";
import type { HostLink } from "./host-link.js";
import type { Spool } from "./spool/spool.js";
import type { Warnings } from "./warnings.js";

export interface DeviceStateParts {
  readonly time: number;
  readonly boot: number;
  readonly facts: Facts;
  readonly host: HostLink;
  readonly previous: DeviceState["previous"];
  readonly desiredRevision: number;
  /** Of the desired state that is on disk and followed. */
  readonly configId: string | null;
  readonly warnings: Warnings;
  readonly spool: Spool;
}

/** What a device reports of itself. What is said without a lane is that of the first one. */
export function deviceState(parts: DeviceStateParts): DeviceState {
  const { host, spool, warnings, facts, time, boot, previous, desiredRevision, configId } = parts;
  const { states: lanes, batches, frames, samplesTaken, supervisor } = host;
  const { framesDropped, framesFailed } = frames.total;
  const first = lanes[0]!;
  return {
    time,
    boot,
    agentVersion: AGENT_VERSION,
    facts,
    running: first.running,
    previous,
    deployment: first.deployment,
    lanes,
    desiredRevision,
    configId,
    warnings: warnings.list(),
    counters: {
      predictions: batches.numbers.count,
      framesDropped,
      framesFailed,
      samplesTaken,
      recordsEvicted: spool.recordsEvicted,
      hostRestarts: supervisor.restarts,
    },
    spool: { records: spool.records, bytes: spool.bytes, bytesMax: spool.bytesMax },
    source: first.source,
  };
}
