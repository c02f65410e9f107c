import { describe, expect, it } from "vitest";
import { runEngineWave } from "../kit/engine-wave.js";
import { NO_EFFECT } from "../kit/simulated-fleet.js";
import { BAD_VERSIONS, FIRST_WAVE, GATE_SETTINGS, judgeByEvidence, runWave } from "../kit/simulated-gate.js";

describe("the engine, on a simulated first wave", () => {
  it.each(Object.entries(BAD_VERSIONS))(
    "stops the %s version, by the test and at the look at which the gate alone does",
    (_name, effect) => {
      const [alone] = runWave([7, 2], FIRST_WAVE, effect, [judgeByEvidence(GATE_SETTINGS)]);
      const { look, failed } = alone!;
      expect(runEngineWave([7, 2], FIRST_WAVE, effect, GATE_SETTINGS)).toEqual({
        state: "failed",
        look,
        failed,
      });
    },
    60_000,
  );

  it("lets a good one pass", () => {
    expect(runEngineWave([7, 2], FIRST_WAVE, NO_EFFECT, GATE_SETTINGS).state).toBe("passed");
  }, 60_000);
});
