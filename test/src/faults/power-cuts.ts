import { readdirSync, readFileSync, rmSync } from "node:fs";
import { join, relative } from "node:path";
import type { Clock, PersistPoint } from "@fieldloop/device-agent";
import { expect } from "vitest";
import { randomOf } from "../kit/random.js";
import { drawn } from "../kit/thorough.js";
import type { FaultDevice } from "./fault-device.js";
import { PowerCutFiles, REMAINS, type Remains } from "./power-cut-files.js";
import type { Scenario } from "./scenarios.js";
import { namesIn, type Stage, type Table } from "./stage.js";

/** Of the cuts, where tests are not thorough. */
const SHARE = 0.5;

interface Run {
  readonly files: PowerCutFiles;
  /** The persist point of each operation. */
  readonly points: readonly PersistPoint[];
}

/** Runs scenarios into power cuts, and sees what becomes of the device. */
export class PowerCuts {
  readonly #stage: Stage;
  readonly #table: Table;
  readonly #seed: number;

  constructor(stage: Stage, table: Table, seed: number) {
    this.#stage = stage;
    this.#table = table;
    this.#seed = seed;
  }

  /** Cuts at every operation, each with so many kinds of remains, one after the other. */
  async everywhere(scenario: Scenario, remainsEach: number): Promise<void> {
    const count = (await this.#whole(scenario)).points.length;
    const all = Array.from({ length: count }, (_, cutAt) => cutAt);
    for (const cutAt of drawn(all, SHARE, randomOf(this.#seed, count))) {
      for (let kind = 0; kind < remainsEach; kind++) {
        await this.#inject(scenario, cutAt, REMAINS[(cutAt * remainsEach + kind) % REMAINS.length]!);
      }
    }
  }

  /** Cuts where each persist point of the scenario begins for the first time, in its midst, and where it is over for the last time. */
  async atPoints(scenario: Scenario): Promise<void> {
    const { points } = await this.#whole(scenario);
    const cuts = new Set<number>();
    for (const point of new Set(points)) {
      const begin = points.indexOf(point);
      const end = points.lastIndexOf(point) + 1;
      for (const cutAt of [begin, begin + 1, end]) cuts.add(Math.min(cutAt, points.length - 1));
    }
    for (const [index, cutAt] of drawn([...cuts], SHARE, randomOf(this.#seed, points.length)).entries()) {
      await this.#inject(scenario, cutAt, REMAINS[index % REMAINS.length]!);
    }
  }

  /** Without a cut. What the disk noted is what is really there: nothing was written past it. */
  async #whole(scenario: Scenario): Promise<Run> {
    const run = await this.#run(scenario);
    expect(run.files.contents()).toEqual(readBack(run.files.root));
    rmSync(run.files.root, { recursive: true, force: true });
    return run;
  }

  async #inject(scenario: Scenario, cutAt: number, remains: Remains): Promise<void> {
    const { files } = await this.#run(scenario, cutAt);
    const after = this.#stage.folder();
    const context = `${scenario.name}, cut at ${cutAt} (${files.operations[cutAt] ?? "its end"}), ${remains}`;
    try {
      files.leave(after, files.isGone ? remains : "kept", randomOf(this.#seed, cutAt));
      const version = await this.#recover(scenario, after, context);
      this.#table.count(`power cut: ${scenario.name}`, `version ${version}`);
    } finally {
      rmSync(files.root, { recursive: true, force: true });
      rmSync(after, { recursive: true, force: true });
    }
  }

  async #run(scenario: Scenario, cutAt?: number): Promise<Run> {
    const root = await scenario.prepare(this.#stage);
    const files = new PowerCutFiles({ root, ...(cutAt === undefined ? {} : { cutAt }) });
    const points: PersistPoint[] = [];
    const { device, clock } = await this.#device(scenario, root, files, (point) => {
      while (points.length < files.operations.length) points.push(point);
    });
    const driven = (async () => {
      await device.start();
      await scenario.drive(device, this.#stage, clock);
    })().catch((error: unknown) => {
      if (!files.isGone) throw error;
    });
    await Promise.race([driven, files.gone]);
    await device.stop().catch(() => undefined);
    await driven;
    return { files, points };
  }

  async #device(
    scenario: Scenario,
    directory: string,
    files?: PowerCutFiles,
    onOperations?: (point: PersistPoint) => void,
  ): Promise<{ device: FaultDevice; clock: Clock | undefined }> {
    const server = await this.#stage.server();
    scenario.serve?.(server);
    const clock = scenario.clock?.();
    const device = this.#stage.device(server, directory, {
      ...(files ? { files } : {}),
      ...(clock ? { clock } : {}),
      ...(scenario.updater ? { updater: scenario.updater } : {}),
      onPersist: (point, phase) => {
        this.#table.points.add(point);
        if (phase === "after") onOperations?.(point);
      },
    });
    scenario.setUp?.(device, this.#stage);
    return { device, clock };
  }

  /** The power is back: what runs at once, what it comes to, and that nothing is left of the way there. */
  async #recover(scenario: Scenario, directory: string, context: string): Promise<number> {
    const stage = this.#stage;
    const { device, clock } = await this.#device(scenario, directory);
    let atEnd: number;
    try {
      await device.start();
      const atStart = stage.versionOf(device.running);
      expect(scenario.atStart, `${context}: at its start`).toContain(atStart);
      if (atStart >= 0) await device.predicts();
      await scenario.drive(device, stage, clock);
      atEnd = stage.versionOf(device.running);
      const { state } = device;
      expect({ context, atEnd, state }).toEqual({ context, atEnd: scenario.atEnd, state: scenario.state });
      await device.predicts();
      // A deployment has ended before what it leaves is removed.
      await device.until(
        `${context}: nothing is left on its way in`,
        () => namesIn(directory, "staging").length === 0,
      );
    } finally {
      await device.stop();
    }
    const needed = [device.updater.toRun?.packageSha256, device.updater.previous?.packageSha256];
    const stray = namesIn(directory, "packages").filter((name) => !needed.includes(name));
    expect({ context, stray }).toEqual({ context, stray: [] });
    return atEnd;
  }
}

/** Every file of a folder, as {@link PowerCutFiles.contents} has them. */
function readBack(root: string): Map<string, string> {
  const files = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return new Map(
    files.map(({ parentPath, name }) => {
      const path = join(parentPath, name);
      return [relative(root, path), readFileSync(path).toString("base64")];
    }),
  );
}
