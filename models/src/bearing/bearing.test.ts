import { openModel, openPackage, type LoadedModel } from "@fieldloop/runtime/node";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { packagePath } from "../index.js";
import { areaUnderRoc } from "../recipe.js";
import { bearingSampling, type BearingCondition } from "@fieldloop/runtime/simulate";
import { drawWindows, realFaults, sound } from "./data.js";

/** Machines that no recipe draws. */
const draw = { seed: 42_000, machines: 5, perMachine: 40 };

describe.each(["fp32", "int8-u8s8"])("bearing %s", (variant) => {
  let model: LoadedModel;
  beforeAll(async () => {
    model = await openModel(await openPackage(packagePath("bearing")), { variant, threadCount: 1 });
  });
  afterAll(() => model.release());

  /** Score of each window by the head that a device runs: error over threshold. */
  async function scores(condition: BearingCondition): Promise<number[]> {
    const windows = drawWindows({ ...draw, condition });
    const { windowLength } = bearingSampling;
    const found: number[] = [];
    for (let at = 0; at < windows.length; at += windowLength) {
      const samples = windows.subarray(at, at + windowLength);
      found.push((await model.predict({ kind: "window", samples })).signals.reconstruction!);
    }
    return found;
  }

  test("tells faulty windows from sound ones", async () => {
    const normal = await scores(sound);
    const faulty: number[] = [];
    for (const fault of realFaults) {
      for (const severity of [0.5, 0.8]) faulty.push(...(await scores({ fault, severity })));
    }
    const auroc = areaUnderRoc(faulty, normal);
    const falseAlarms = normal.filter((score) => score > 1).length / normal.length;
    console.log(`bearing ${variant}: AUROC ${auroc}, false alarms ${falseAlarms}`);
    expect(auroc).toBeGreaterThan(0.98);
    expect(falseAlarms).toBeLessThan(0.03);
  });
});
