import type { StartMessage } from "../ipc.js";
import { DEFAULT_PROFILE_SECONDS, DEFAULT_SAMPLING, type HostLinkOptions } from "./host-link-options.js";
import { frameMarkPath } from "./lane-files.js";
import type { LaneLink } from "./lane-link.js";
import type { PredictionNumbers } from "./prediction-numbers.js";

/** What the next host has to run; each lane notes what it was given. */
export function startMessage(
  options: HostLinkOptions,
  links: Iterable<LaneLink>,
  numbers: PredictionNumbers,
): StartMessage {
  const { directory, device, boot, threadCount, quarantine, providers, thermalPath, governorTimes } = options;
  const desired = options.desired();
  return {
    kind: "start",
    device,
    boot,
    lanes: [...links].map((link) => {
      const { name } = link.spec;
      const target = options.updater(name).toRun;
      link.starting = target && providers.planFor(target);
      return {
        spec: link.spec,
        package: link.starting,
        numbers: numbers.rangeOf(name),
        frameMarkPath: frameMarkPath(directory, name),
      };
    }),
    nextBlock: numbers.nextBlock,
    sampling: desired?.sampling ?? DEFAULT_SAMPLING,
    profileIntervalSeconds: desired?.profileIntervalSeconds ?? DEFAULT_PROFILE_SECONDS,
    quarantined: quarantine.frames,
    suspects: quarantine.suspects,
    threadCount,
    thermalPath,
    governorTimes,
  };
}
