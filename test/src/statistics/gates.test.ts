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
const SMALL_SIZES = { canary: 150, control: 450 };
const EXPECTED = {
  crashing: ["crashed_devices", "crash_rate"],
  slower: ["latency"],
  inaccurate: ["accuracy"],
  silent: ["silence"],
} as const;

const RUNS = 3;

describe("a first wave in a fleet whose devices differ", () => {
  it.each(Object.entries(BAD_VERSIONS))(
    "stops the %s version, and says why",
    (name, effect) => {
      let stops = 0;
      for (let run = 0; run < RUNS; run++) {
        const [wave] = runWave([41, run], SIZES, effect, [judgeByEvidence(GATE_SETTINGS)]);
        if (wave!.verdict === "fail") stops++;
        for (const test of wave!.failed) expect(EXPECTED[name as keyof typeof EXPECTED]).toContain(test);
      }
      // Of so few canaries, too few may be hit.
      expect(stops).toBeGreaterThanOrEqual(RUNS - 1);
    },
    60_000,
  );

  it(`lets a good one pass after ${LOOKS} looks, where plain limits stop it`, () => {
    for (let run = 0; run < 2; run++) {
      const judges = [judgeByEvidence(GATE_SETTINGS), judgePlainly(PLAIN_LIMITS)];
      const [ours, plain] = runWave([42, run], SMALL_SIZES, NO_EFFECT, judges);
      expect(ours!.verdict).toBe("pass");
      expect(plain!.verdict).toBe("fail");
    }
  }, 60_000);
});
