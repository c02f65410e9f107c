import type { Command } from "@fieldloop/protocol";
import type { HostLink } from "./host-link.js";
import type { LaneUpdaters } from "./lane-updaters.js";

export interface CommandTargets {
  readonly host: Pick<HostLink, "supervisor" | "restart">;
  readonly updaters: Pick<LaneUpdaters, "returnPrevious">;
  readonly reportState: () => void;
}

/** Does what a command of the fleet says. @throws FieldloopError why it could not be done */
export async function runCommand(
  action: Command["action"],
  { host, updaters, reportState }: CommandTargets,
): Promise<void> {
  switch (action.kind) {
    case "capture":
      await host.supervisor.request({ kind: "capture", count: action.count });
      return;
    case "restart_host":
      await host.restart();
      return;
    case "report_state":
      reportState();
      return;
    case "return_previous":
      await updaters.returnPrevious(action.lane);
      return;
  }
}
