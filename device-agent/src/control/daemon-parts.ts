import type { Facts } from "@fieldloop/protocol";
import type { LaneSpec } from "../lane-spec.js";
import type { AgentOptions } from "./agent.js";
import type { HostProcess, HostProcessOptions } from "./host-process.js";
import type { Identity } from "./identity.js";

/** What an agent has found out before its control process begins. */
export interface DaemonParts {
  readonly options: AgentOptions;
  readonly lanes: readonly LaneSpec[];
  readonly identity: Identity;
  readonly facts: Facts;
  readonly boot: number;
  readonly host: HostProcessOptions;
  /** Loads already, and waits to be told what to run. */
  readonly firstHost: HostProcess;
  /** Files that did not parse and were kept aside. */
  readonly corrupt: readonly string[];
  readonly unlock: () => Promise<void>;
}
