import { readdirSync, readFileSync, rmSync } from "node:fs";
import { join, relative } from "node:path";
import { PERSIST_POINTS, type PersistPoint } from "@fieldloop/device-agent";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { randomOf, testSeed } from "../kit/random.js";
import type { FaultDevice } from "./fault-device.js";
import { PowerCutFiles, REMAINS, type Remains } from "./power-cut-files.js";
import { type Scenario, SCENARIOS } from "./scenarios.js";
import { namesIn, Stage, Table } from "./stage.js";

/**
 * The crash table, first part: the power goes at every operation by which an update changes the disk.
 *
 * Real: updater, trust of the desired state, package store, downloads, budget, providers, their files in a folder of this machine, the
 * packages, and ONNX Runtime, which opens what should run after each cut and is held to the golden cases of the version.
 * Simulated: the disk's memory of what was not synced (`power-cut-files.ts`), the network (answers without sockets), the host process (the
 * package is opened in this one), the package's signature (another test's matter). The real process is killed in `kill-points.test.ts`.
 */
const seed = testSeed();
const stage = new Stage();
const table = new Table();

beforeAll(async () => {
  console.log(`FIELDLOOP_TEST_SEED=${seed}`);
  await stage.open();
});
afterAll(() => {
  stage.close();
  console.log(`\n${table.toString()}\n`);
});

/** A start after which the power goes at operation `cutAt`; undefined where it came to its end before. */
async function run(scenario: Scenario, cutAt?: number): Promise<PowerCutFiles> {
  const root = await scenario.prepare(stage);
  const files = new PowerCutFiles({ root, ...(cutAt === undefined ? {} : { cutAt }) });
  const device = await makeDevice(scenario, root, files);
  const driven = drive(scenario, device).catch((error: unknown) => {
    if (!files.isGone) throw error;
  });
  await Promise.race([driven, files.gone]);
  await device.device.stop().catch(() => undefined);
  await driven.catch(() => undefined);
  return files;
}

interface Driven {
  readonly device: FaultDevice;
  readonly clock: ReturnType<NonNullable<Scenario["clock"]>> | undefined;
}

async function makeDevice(scenario: Scenario, directory: string, files?: PowerCutFiles): Promise<Driven> {
  const server = await stage.server();
  scenario.serve?.(server);
  const clock = scenario.clock?.();
  const device = stage.device(server, directory, {
    ...(files ? { files } : {}),
    ...(clock ? { clock } : {}),
    ...(scenario.updater ? { updater: scenario.updater } : {}),
    onPersist: (point: PersistPoint) => void table.points.add(point),
  });
  return { device, clock };
}

async function drive(scenario: Scenario, { device, clock }: Driven): Promise<void> {
  scenario.setUp?.(device, stage);
  await device.start();
  await scenario.drive(device, stage, clock);
}

/** The power is back: what runs at once, what it comes to, and that nothing is left of the way there. */
async function recover(scenario: Scenario, directory: string, context: string): Promise<number> {
  const driven = await makeDevice(scenario, directory);
  const { device } = driven;
  try {
    scenario.setUp?.(device, stage);
    await device.start();
    const atStart = versionOf(device.running);
    expect(scenario.atStart, `${context}: at its start`).toContain(atStart);
    if (atStart >= 0) await device.predicts();
    await scenario.drive(device, stage, driven.clock);
    const atEnd = versionOf(device.running);
    expect({ context, atEnd, state: device.state }).toEqual({
      context,
      atEnd: scenario.atEnd[0],
      state: scenario.state,
    });
    await device.predicts();
  } finally {
    await device.stop();
  }
  const needed = [device.updater.toRun!.packageSha256, device.updater.previous?.packageSha256];
  const stray = namesIn(directory, "packages").filter((name) => !needed.includes(name));
  expect({ context, stray, staging: namesIn(directory, "staging") }).toEqual({
    context,
    stray: [],
    staging: [],
  });
  return versionOf(device.running ?? needed[0]);
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

function versionOf(packageSha256: string | undefined): number {
  return stage.packages.findIndex((made) => made.packageSha256 === packageSha256);
}

async function inject(scenario: Scenario, cutAt: number, remains: Remains): Promise<void> {
  const files = await run(scenario, cutAt);
  const after = stage.folder();
  const context = `${scenario.name}, cut at ${cutAt} (${files.operations[cutAt] ?? "the end"}), ${remains}`;
  try {
    files.leave(after, files.isGone ? remains : "kept", randomOf(seed, cutAt));
    const version = await recover(scenario, after, context);
    table.count(scenario.name, `version ${version}`);
  } finally {
    rmSync(files.root, { recursive: true, force: true });
    rmSync(after, { recursive: true, force: true });
  }
}

describe("a power cut at every write of the disk", { timeout: 120_000 }, () => {
  it.each(SCENARIOS)("$name: ends on a whole version that predicts, by itself", async (scenario) => {
    const whole = await run(scenario);
    const count = whole.operations.length;
    expect(whole.contents()).toEqual(readBack(whole.root));
    rmSync(whole.root, { recursive: true, force: true });
    for (let cutAt = 0; cutAt < count; cutAt++) {
      const all = scenario.name === "update" ? REMAINS : [REMAINS[cutAt % REMAINS.length]!];
      for (const remains of all) await inject(scenario, cutAt, remains);
    }
  });

  it("was at every persist point that the code names", () => {
    expect([...PERSIST_POINTS].filter((point) => !table.points.has(point))).toEqual([]);
  });
});
