import { describe, expect, it, vi } from "vitest";
import { systemClock } from "../clock.js";
import type { HostMessage } from "../ipc.js";
import { Governing, type GovernedSource } from "./governing.js";

/** A lane whose source gives `perTick` frames each time that it is asked, of which the first lane's are lost. */
function lane(name: string, priority: number, perTick: () => number): GovernedSource & { limit?: number } {
  let framesSeen = 0;
  let framesDropped = 0;
  const result: GovernedSource & { limit?: number } = {
    name,
    priority,
    rateOwn: Number.POSITIVE_INFINITY,
    model: undefined,
    providers: undefined,
    beat: () => {
      framesSeen += perTick();
      framesDropped++;
      return {
        ...{ name, runningMs: 0, expectedMs: 0, framesSeen, framesDropped },
        ...{ framesSkipped: 0, framesFailed: 0, sourceCounts: {}, rateMax: null },
      };
    },
    limitRate: (rateMax) => {
      if (rateMax === undefined) delete result.limit;
      else result.limit = rateMax;
    },
    useVariant: () => Promise.resolve(),
  };
  return result;
}

describe("Governing", () => {
  it("slows down a lane that begins only after the restriction did, and names those alone that it slows", async () => {
    let late = 0;
    const lanes = [lane("camera", 80, () => 1), lane("spindle", 20, () => late), lane("spare", 10, () => 0)];
    const said: string[] = [];
    const governing = new Governing({
      lanes,
      thermalPath: undefined,
      times: { holdMs: 1, restoreMs: 60_000, intervalMs: 5 },
      clock: systemClock,
      send: (message: HostMessage) => {
        if (message.kind === "warning") said.push(message.failure.message);
        return Promise.resolve();
      },
      busy: { read: () => 1 },
    });
    governing.start();
    try {
      await vi.waitFor(() => expect(governing.isRestricting).toBe(true));
      await vi.waitFor(() => expect(said.at(-1)).toBe("all cores are busy: nothing is slowed down yet"));
      expect(lanes[1]!.limit).toBeUndefined();
      late = 3;
      await vi.waitFor(() => expect(lanes[1]!.limit).toBeGreaterThan(0));
      await vi.waitFor(() =>
        expect(said.at(-1)).toMatch(/^all cores are busy: spindle at most [\d.]+ a second$/),
      );
      expect(governing.rateMax("camera")).toBeNull();
    } finally {
      governing.stop();
    }
  });
});
