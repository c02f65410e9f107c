import { describe, expect, it } from "vitest";
import { NO_EFFECT } from "../kit/simulated-fleet.js";
import {
  BAD_VERSIONS,
  GATE_SETTINGS,
  judgeByEvidence,
  judgePlainly,
  LOOKS,
  PLAIN_LIMITS,
  runWave,
} from "../kit/simulated-gate.js";

/** The small form of `npm run bench -- statistics`: fewer devices, fewer runs. */
const SIZES = { canary: 400, control: 1600 };
const EXPECTED = {
  crashing: ["crashed_devices", "crash_rate"],
  slower: ["latency"],
  inaccurate: ["accuracy"],
  silent: ["silence"],
} as const;

describe("a first wave in a fleet whose devices differ", () => {
  it.each(Object.entries(BAD_VERSIONS))("stops the %s version, and says why", (name, effect) => {
    for (let run = 0; run < 3; run++) {
      const { verdict, look, failed } = runWave([41, run], SIZES, effect, judgeByEvidence(GATE_SETTINGS));
      expect(verdict).toBe("fail");
      expect(look).toBeLessThan(LOOKS);
      for (const test of failed) expect(EXPECTED[name as keyof typeof EXPECTED]).toContain(test);
    }
  });

  it(`lets a good one pass after ${LOOKS} looks, where plain limits stop it`, () => {
    for (let run = 0; run < 2; run++) {
      const seed = [42, run];
      expect(runWave(seed, SIZES, NO_EFFECT, judgeByEvidence(GATE_SETTINGS)).verdict).toBe("pass");
      expect(runWave(seed, SIZES, NO_EFFECT, judgePlainly(PLAIN_LIMITS)).verdict).toBe("fail");
    }
  });
});
