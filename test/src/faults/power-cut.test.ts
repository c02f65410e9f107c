import { PERSIST_POINTS } from "@fieldloop/device-agent";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testSeed } from "../kit/random.js";
import { PowerCuts } from "./power-cuts.js";
import { SCENARIOS, UPDATE } from "./scenarios.js";
import { Stage, Table } from "./stage.js";

/**
 * The crash table, first part: the power goes at every persist point of every way through an update, the plain update left out (which has
 * a file of its own, and is cut at every operation).
 *
 * Real: updater, desired state with its signature, package store, downloads, budget, providers, their files in a folder of this machine,
 * the packages, and ONNX Runtime, which opens what should run after each cut and is held to the golden cases of the version.
 * Simulated: the disk's memory of what was not synced (`power-cut-files.ts`), the network (answers without sockets), the host process (the
 * package is opened in this one), the package's signature (another test's matter). Real processes are killed in `kill-points.test.ts`.
 */
const seed = testSeed();
const stage = new Stage();
const table = new Table();
const cuts = new PowerCuts(stage, table, seed);

beforeAll(async () => {
  console.log(`FIELDLOOP_TEST_SEED=${seed}`);
  await stage.open();
});
afterAll(() => {
  stage.close();
  console.log(`\n${table.toString()}\n`);
});

describe("a power cut", { timeout: 120_000 }, () => {
  it.each(SCENARIOS.filter((scenario) => scenario !== UPDATE))(
    "at every persist point of: $name",
    async (scenario) => {
      await cuts.atPoints(scenario);
    },
  );

  it("was at every persist point that the code names", () => {
    expect(PERSIST_POINTS.filter((point) => !table.points.has(point))).toEqual([]);
  });
});
