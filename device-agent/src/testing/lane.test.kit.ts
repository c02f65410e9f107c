import { join } from "node:path";
import { type Clock, systemClock } from "../clock.js";
import { Lane } from "../host/lane.js";
import { ModelPool } from "../host/model-pool.js";
import { NumberBlocks } from "../host/numbers.js";
import type { HostMessage, StartMessage } from "../ipc.js";
import { parseLaneSpecs } from "../lane-spec.js";

export interface TestLaneOptions {
  /** Where it notes the frame in hand. */
  readonly folder: string;
  readonly source: string;
  readonly send: (message: HostMessage) => void;
  readonly clock?: Clock;
  readonly onWaiting?: () => void;
}

/** One lane of an inference host, without the host: it samples nothing. */
export function makeTestLane({ folder, source, send, clock, onWaiting }: TestLaneOptions): Lane {
  const [spec] = parseLaneSpecs([source]);
  const lane = {
    spec: spec!,
    package: undefined,
    numbers: { next: 0, end: 0 },
    frameMarkPath: join(folder, "frame.mark"),
  };
  const sampling = { bytesPerHour: 0, randomShare: 0, worthMin: 1, worthPerMinute: 0 };
  const start: StartMessage = {
    ...{ kind: "start", device: "cam-1", boot: 1, lanes: [lane], nextBlock: 0, sampling },
    ...{ profileIntervalSeconds: 60, quarantined: [], suspects: [], threadCount: 1 },
    ...{ thermalPath: undefined, governorTimes: undefined },
  };
  return new Lane({
    ...{ start, lane, sampling, blocks: new NumberBlocks(0), random: Math.random },
    pool: new ModelPool({ threadCount: 1, isShared: false, onProviderFailed: () => undefined }),
    send: (message) => Promise.resolve(send(message)),
    clock: clock ?? systemClock,
    onWaiting: onWaiting ?? (() => undefined),
    onDead: (error) => {
      throw error;
    },
  });
}
