import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { testSeed } from "../kit/random.js";
import { isThorough } from "../kit/thorough.js";
import { PowerCuts } from "./power-cuts.js";
import { UPDATE } from "./scenarios.js";
import { Stage, Table } from "./stage.js";

/**
 * The crash table, second part: the power goes at every single operation of the disk that a plain update takes. What is real and what is
 * simulated: see `power-cut.test.ts`.
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

describe("a power cut", { timeout: 240_000 }, () => {
  it("at every operation of an update ends on a whole version that predicts, by itself", async () => {
    await new PowerCuts(stage, table, seed).everywhere(UPDATE, isThorough ? 4 : 2);
    expect(table.total).toBeGreaterThan(isThorough ? 400 : 60);
  });
});
