import { readdir } from "node:fs/promises";
import { join } from "node:path";
import {
  FieldloopError,
  MAIN_LANE,
  type Assignment,
  type Desired,
  type EventData,
} from "@fieldloop/protocol";
import type { Activation, PackageToRun } from "../ipc.js";
import type { LaneSpec } from "../lane-spec.js";
import { loadDeploymentFile } from "./deployment-file.js";
import { laneOfDeploymentFile } from "./lane-files.js";
import { PackageCleaner } from "./package-cleaner.js";
import { Updater } from "./updater.js";
import type { RunningPackage, ShadowOutcome, ShadowRequest, UpdaterOptions } from "./updater-options.js";

type OfOneLane = "lane" | "laneModel" | "cleaner" | "activate" | "running" | "shadow";
export type LaneUpdatersOptions = Omit<UpdaterOptions, OfOneLane> & {
  readonly lanes: readonly LaneSpec[];
  readonly activate: (
    lane: string,
    target: PackageToRun | undefined,
    signal: AbortSignal,
  ) => Promise<Activation | undefined>;
  readonly running: (lane: string) => RunningPackage | undefined;
  readonly shadow?:
    | ((lane: string, request: ShadowRequest, signal: AbortSignal) => Promise<ShadowOutcome>)
    | undefined;
};

/** One updater a lane, over one store of packages. */
export class LaneUpdaters {
  readonly #options: LaneUpdatersOptions;
  readonly #cleaner: PackageCleaner;
  readonly #updaters: ReadonlyMap<string, Updater>;
  /** Deployments that no lane could take, and that the fleet was told so. */
  readonly #refused = new Set<string>();

  constructor(options: LaneUpdatersOptions) {
    const { lanes, activate, running, shadow, ...shared } = options;
    this.#options = options;
    const cleaner = new PackageCleaner(options.packages);
    this.#cleaner = cleaner;
    this.#updaters = new Map(
      lanes.map(({ name, model }) => [
        name,
        new Updater({
          ...shared,
          lane: name,
          laneModel: model,
          cleaner,
          activate: (target, signal) => activate(name, target, signal),
          running: () => running(name),
          shadow: shadow && ((request, signal) => shadow(name, request, signal)),
        }),
      ]),
    );
  }

  of(lane: string): Updater {
    return this.#updaters.get(lane)!;
  }
  /** The first lane's: what a device with one source runs. */
  get first(): Updater {
    return this.of(this.#options.lanes[0]!.name);
  }
  get revisionFloor(): number {
    return Math.max(...[...this.#updaters.values()].map(({ revisionFloor }) => revisionFloor));
  }

  /** @throws FieldloopError `lane_unknown`, and as {@link Updater.returnPrevious} */
  async returnPrevious(lane: string): Promise<void> {
    const updater = this.#updaters.get(lane);
    if (!updater) {
      const lanes = [...this.#updaters.keys()].join(", ");
      throw new FieldloopError(
        "lane_unknown",
        `Return to the version before: no lane "${lane}", there are ${lanes}`,
      );
    }
    await updater.returnPrevious();
  }

  /** Packages that somebody else needs stay on this device. */
  keep(needs: (packageSha256: string) => boolean): void {
    this.#cleaner.register(needs);
  }

  async load(): Promise<void> {
    for (const updater of this.#updaters.values()) await updater.load();
    await this.#keepAbsentLanes();
  }

  async resume(): Promise<void> {
    for (const updater of this.#updaters.values()) await updater.resume();
  }

  async follow({ assignments, revision }: Desired): Promise<void> {
    const byLane = new Map<string, Assignment>();
    const wanted = new Set(assignments.map(({ deployment }) => deployment));
    for (const deployment of this.#refused) if (!wanted.has(deployment)) this.#refused.delete(deployment);
    for (const assignment of assignments) {
      const lane = routeAssignment(assignment, this.#options.lanes);
      if (lane === undefined) this.#refuse(assignment);
      // One that names the lane goes before one that is there for want of its own.
      else if (!byLane.has(lane) || assignment.lane === lane) byLane.set(lane, assignment);
    }
    for (const [lane, updater] of this.#updaters) {
      const assignment = byLane.get(lane);
      await updater.follow(assignment ? [assignment] : [], revision);
    }
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#updaters.values()].map((updater) => updater.stop()));
  }

  /** A lane that is not there in this start may be back in the next: its packages stay. */
  async #keepAbsentLanes(): Promise<void> {
    const { directory, packages, onCorrupt } = this.#options;
    for (const name of await readdir(directory)) {
      const lane = laneOfDeploymentFile(name);
      if (lane === undefined || this.#updaters.has(lane)) continue;
      const { file, lost } = await loadDeploymentFile(join(directory, name), packages.durable, onCorrupt);
      const kept = new Set([file.active?.packageSha256, file.previous?.packageSha256]);
      this.#cleaner.register((packageSha256) => lost || kept.has(packageSha256));
    }
  }

  #refuse({ deployment, lane, model, version, packageSha256 }: Assignment): void {
    if (this.#refused.has(deployment)) return;
    this.#refused.add(deployment);
    const lanes = this.#options.lanes.map(({ name }) => name).join(", ");
    const message = `Follow desired state: there is no lane "${lane}" for "${model}", there are ${lanes}`;
    this.#options.log.warn({ code: "lane_unknown", deployment }, message);
    const error = { code: "lane_unknown", message } as const;
    const event = {
      deployment,
      model,
      version,
      packageSha256,
      state: "rejected",
      error,
      measured: {},
    } as const;
    this.#options.emit({ type: "deployment", ...event } satisfies EventData);
  }
}

/**
 * The lane of this device that an assignment is for: the one it names; where it names none that is here (`main`, before the fleet
 * knew the lanes), the lane for its model, else the first that takes any. A lane for one model takes no other.
 */
export function routeAssignment(
  { lane, model }: Pick<Assignment, "lane" | "model">,
  lanes: readonly Pick<LaneSpec, "name" | "model">[],
): string | undefined {
  const open = lanes.filter((candidate) => candidate.model === null || candidate.model === model);
  const named = open.find(({ name }) => name === lane);
  if (named) return named.name;
  if (lane !== MAIN_LANE) return undefined;
  return (open.find((candidate) => candidate.model === model) ?? open[0])?.name;
}
