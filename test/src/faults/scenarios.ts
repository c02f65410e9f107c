import { readFileSync, truncateSync, writeFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Clock, UpdaterOptions } from "@fieldloop/device-agent";
import type { Assignment } from "@fieldloop/protocol";
import { BY_DELTA } from "./by-delta.js";
import { assignmentOf, desiredOf, type FaultDevice } from "./fault-device.js";
import type { MemoryServer } from "./memory-server.js";
import type { Stage } from "./stage.js";

/** One way through an update. What it does is done again after the power is back: nothing but the fleet's word and time. */
export interface Scenario {
  readonly name: string;
  /** A state folder of its own. */
  readonly prepare: (stage: Stage) => Promise<string>;
  /** What the server does to its answers. */
  readonly serve?: (server: MemoryServer) => void;
  readonly updater?: Partial<UpdaterOptions>;
  readonly clock?: () => Clock;
  /** Before the device starts. */
  readonly setUp?: (device: FaultDevice, stage: Stage) => void;
  /** Until the deployment is settled. */
  readonly drive: (device: FaultDevice, stage: Stage, clock: Clock | undefined) => Promise<void>;
  /** Versions that may run at a start, `-1` for none; and in the end. */
  readonly atStart: readonly number[];
  readonly atEnd: number;
  /** Where nothing went wrong. */
  readonly state: string;
}

const NONE = -1;
const REVISION = 10;

/** Version `version` as deployment `d9`. */
function wanted(stage: Stage, version: number, change: Partial<Assignment> = {}): Uint8Array {
  return desiredOf(REVISION, [assignmentOf(stage.packages[version]!, "d9", change)]);
}

async function toTheEnd(device: FaultDevice, envelope: Uint8Array): Promise<void> {
  device.receive(envelope);
  await device.settled("d9");
}

/** A body that never comes to an end. */
function hang(server: MemoryServer): void {
  server.answerAll((bytes, from) =>
    bytes.length > 1_000 && bytes[0] !== 0x7b
      ? new Response(new ReadableStream({ pull: () => new Promise(() => undefined) }), {
          status: from === 0 ? 200 : 206,
          headers: { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` },
        })
      : undefined,
  );
}

/** A clock that stands on a Monday at noon (UTC) until it is moved. */
class StandingClock implements Clock {
  #now = Date.parse("2026-11-23T12:00:00Z");
  now = (): number => this.#now;
  monotonic = (): number => performance.now();
  move(ms: number): void {
    this.#now += ms;
  }
}

const HOUR_MS = 3_600_000;
const NIGHT = { days: [], start: "02:00", minutes: 120 };

/** The plain way: version 1 runs, version 2 comes, and version 0 goes. */
export const UPDATE: Scenario = {
  name: "update",
  prepare: (stage) => stage.updated(),
  drive: (device, stage) => toTheEnd(device, wanted(stage, 2)),
  atStart: [1, 2],
  atEnd: 2,
  state: "active",
};

export const SCENARIOS: readonly Scenario[] = [
  {
    name: "first install",
    prepare: (stage) => stage.empty(),
    drive: (device, stage) => toTheEnd(device, wanted(stage, 2)),
    atStart: [NONE, 2],
    atEnd: 2,
    state: "active",
  },
  UPDATE,
  {
    name: "update by delta",
    prepare: (stage) => stage.updated(),
    serve: (server) => {
      server.deltas = "honest";
    },
    updater: BY_DELTA,
    drive: (device, stage) => toTheEnd(device, wanted(stage, 2)),
    atStart: [1, 2],
    atEnd: 2,
    state: "active",
  },
  {
    name: "rolled back in probation",
    prepare: (stage) => stage.updated(),
    setUp: (device) => {
      device.isSilent = true;
    },
    drive: async (device, stage) => {
      device.receive(wanted(stage, 2));
      const crash = setInterval(() => device.updater.noteHostCrash(), 1);
      await device.settled("d9").finally(() => clearInterval(crash));
    },
    atStart: [1, 2],
    atEnd: 1,
    state: "rolled_back",
  },
  {
    name: "activation fails",
    prepare: (stage) => stage.updated(),
    setUp: (device, stage) => void device.unloadable.add(stage.packages[2]!.packageSha256),
    drive: (device, stage) => toTheEnd(device, wanted(stage, 2)),
    atStart: [1],
    atEnd: 1,
    state: "failed",
  },
  {
    name: "cancelled in its download",
    prepare: (stage) => stage.updated(),
    serve: hang,
    drive: async (device, stage) => {
      device.receive(wanted(stage, 2));
      await device.until(
        "it downloads",
        () => device.updater.deployment?.deployment === "d9" && device.state !== "offered",
      );
      device.receive(desiredOf(REVISION + 1, []));
      await device.settled("d9");
    },
    atStart: [1],
    atEnd: 1,
    state: "cancelled",
  },
  {
    name: "a newer one takes its place",
    prepare: (stage) => stage.updated(),
    serve: hang,
    drive: async (device, stage) => {
      device.receive(wanted(stage, 2));
      // Version 3 needs no large file: the device has those of version 0.
      device.receive(desiredOf(REVISION + 1, [assignmentOf(stage.packages[3]!, "d10")]));
      await device.settled("d10");
    },
    atStart: [1, 3],
    atEnd: 3,
    state: "active",
  },
  {
    name: "rejected for its bytes",
    prepare: (stage) => stage.updated(),
    serve: (server) =>
      server.answerAll((bytes) =>
        bytes[0] === 0x7b ? undefined : new Response(new Uint8Array(bytes.length)),
      ),
    drive: (device, stage) => toTheEnd(device, wanted(stage, 2)),
    atStart: [1],
    atEnd: 1,
    state: "rejected",
  },
  {
    name: "offered too late",
    prepare: (stage) => stage.updated(),
    drive: (device, stage) => toTheEnd(device, wanted(stage, 2, { expires: 1_000 })),
    atStart: [1],
    atEnd: 1,
    state: "timed_out",
  },
  {
    name: "shadowed, then waits for the night",
    prepare: (stage) => stage.updated(),
    clock: () => new StandingClock(),
    updater: {
      timeZone: () => "UTC",
      shadow: () =>
        Promise.resolve({
          frames: 9,
          compared: 9,
          disagreements: 0,
          skipped: 0,
          candidateMeanMs: 1,
          activeMeanMs: 1,
        }),
    },
    drive: async (device, stage, clock) => {
      const shadow = { seconds: 0, predictions: 1, cpuShareMax: 0.5 };
      device.receive(wanted(stage, 2, { shadow, window: NIGHT }));
      const isDone = (): boolean =>
        device.updater.deployment?.waiting?.reason === "window" || device.state === "active";
      await device.until("it waits for its window", isDone);
      (clock as StandingClock).move(14 * HOUR_MS + 1);
      await device.settled("d9");
    },
    atStart: [1, 2],
    atEnd: 2,
    state: "active",
  },
  {
    name: "somebody returns to the version before",
    prepare: (stage) => stage.updated(),
    drive: async (device, stage) => {
      await toTheEnd(device, wanted(stage, 2));
      if (device.updater.previous && device.state === "active") await device.updater.returnPrevious();
    },
    atStart: [1, 2],
    atEnd: 1,
    state: "rolled_back",
  },
  {
    name: "runs it already",
    prepare: (stage) => stage.updated(),
    drive: (device, stage) => toTheEnd(device, wanted(stage, 1)),
    atStart: [1],
    atEnd: 1,
    state: "active",
  },
  {
    name: "copies of files are harmed",
    prepare: async (stage) => {
      const directory = await stage.updated();
      const path = join(directory, "packages", stage.packages[0]!.packageSha256, "fp32.onnx");
      const bytes = readFileSync(path);
      bytes[bytes.length >> 1]! ^= 1;
      writeFileSync(path, bytes);
      return directory;
    },
    drive: (device, stage) => toTheEnd(device, wanted(stage, 3)),
    atStart: [1, 3],
    atEnd: 3,
    state: "active",
  },
  {
    name: "the lane's file is harmed",
    prepare: async (stage) => {
      const directory = await stage.updated();
      truncateSync(join(directory, "deployment.json"), 100);
      return directory;
    },
    drive: (device, stage) => toTheEnd(device, wanted(stage, 2)),
    atStart: [NONE, 1, 2],
    atEnd: 2,
    state: "active",
  },
  {
    name: "half a package is in its place",
    prepare: async (stage) => {
      const directory = await stage.updated();
      leaveHalf(stage, directory);
      return directory;
    },
    drive: (device, stage) => toTheEnd(device, wanted(stage, 2)),
    atStart: [1, 2],
    atEnd: 2,
    state: "active",
  },
  {
    name: "half a package is in the place of the one on its way",
    prepare: async (stage) => {
      const directory = await stage.updated();
      const server = await stage.server();
      hang(server);
      const device = stage.device(server, directory);
      await device.start();
      device.receive(wanted(stage, 2));
      await device.until("it downloads", () => device.state === "downloading");
      await device.stop();
      leaveHalf(stage, directory);
      return directory;
    },
    drive: (device, stage) => toTheEnd(device, wanted(stage, 2)),
    atStart: [1, 2],
    atEnd: 2,
    state: "active",
  },
];

/** As no rename leaves it: a file system that lost names does. */
function leaveHalf(stage: Stage, directory: string): void {
  const half = join(directory, "packages", stage.packages[2]!.packageSha256);
  mkdirSync(half);
  writeFileSync(join(half, "fp32.onnx"), "half");
}
