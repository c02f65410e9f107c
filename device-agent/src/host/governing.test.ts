import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { systemClock } from "../clock.js";
import type { HostMessage } from "../ipc.js";
import { scratchFolder, writeTestPackage } from "../testing/package.test.kit.js";
import { Governing, type GovernedSource } from "./governing.js";
import { HostModel } from "./model.js";

const WAIT = { timeout: 20_000 };

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
    useVariant: () => Promise.resolve(undefined),
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

describe("Governing, of a lane that its provider left", () => {
  let folder: Awaited<ReturnType<typeof scratchFolder>>;
  const models: HostModel[] = [];
  beforeEach(async () => {
    folder = await scratchFolder();
  });
  afterEach(async () => {
    for (const model of models.splice(0)) await model.close();
    await folder.remove();
  });

  it("takes the cheaper variant of what runs now, and goes back to that alone", async () => {
    const pkg = await writeTestPackage(join(folder.path, "package"), { version: 1, withInt8: true });
    const open = async (variant: string): Promise<HostModel> => {
      const target = { directory: pkg.dir, packageSha256: pkg.packageSha256 };
      const options = { threadCount: 1, isBusy: false, runMsMax: 1_000 };
      const model = await HostModel.load(target, options, { executionProvider: "cpu", variant });
      models.push(model);
      return model;
    };
    const zone = join(folder.path, "thermal_zone0");
    await mkdir(zone);
    const temperature = (celsius: number): Promise<void> => writeFile(join(zone, "temp"), `${celsius}000`);
    await temperature(95);
    const asked: string[] = [];
    let model = await open("fp32");
    const hot: GovernedSource = {
      ...lane("camera", 50, () => 1),
      get model() {
        return model;
      },
      useVariant: async (variant, of) => {
        if (of !== model) return undefined;
        asked.push(variant);
        model = await open(variant);
        return model;
      },
    };
    const governing = new Governing({
      lanes: [hot],
      thermalPath: folder.path,
      times: { holdMs: 1, restoreMs: 1, intervalMs: 5 },
      clock: systemClock,
      send: () => Promise.resolve(),
      busy: { read: () => 0 },
    });
    governing.start();
    try {
      await vi.waitFor(() => expect(model.variant).toBe("int8"), WAIT);
      // Its provider is there again: the lane was given the best variant, and the device is hot still.
      model = await open("fp32");
      await vi.waitFor(() => expect(model.variant).toBe("int8"), WAIT);
      // It was left for the next one, on which 8 bits are the best.
      model = await open("int8");
      await temperature(40);
      await vi.waitFor(() => expect(governing.isRestricting).toBe(false), WAIT);
      expect(asked).toEqual(["int8", "int8"]);
    } finally {
      governing.stop();
    }
  });
});
