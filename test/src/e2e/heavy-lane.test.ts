import { join } from "node:path";
import type { LaneState } from "@fieldloop/protocol";
import { openPackage, type ModelPackage } from "@fieldloop/runtime/node";
import { afterAll, describe, expect, it } from "vitest";
import { MODEL_CASES } from "../bench/models-cases.js";
import { ModelCommands, publicData } from "../bench/models-commands.js";
import { writeBrightnessPackage } from "../kit/brightness-package.js";
import { AgentProgram, endPrograms, scratchFolder, ServerProgram, type LocalState } from "../kit/fleet.js";
import { writeHeavyPackage } from "../kit/heavy-package.js";
import { until } from "../kit/wait.js";

const data = publicData(process.env["FIELDLOOP_TEST_DATA"]);
const scratch = scratchFolder("heavy-lane");
const lines: string[] = [];
const TIMEOUT_MS = 240_000;
const DEVICE = "cam-1";
const LIGHT_FPS = 15;
/** Frames of the light lane that are watched: five seconds of them. */
const WATCHED = 75;
/** The light lane may lose a few where the machine is busy with other things. */
const LIGHT_SHARE_MIN = 0.8;

afterAll(async () => {
  await endPrograms();
  if (lines.length > 0) console.log(lines.join("\n"));
  scratch.remove();
});

interface Heavy {
  readonly pkg: ModelPackage;
  readonly source: string;
}

/** A network of public fame where it is at hand, on video; else one that we make, on simulated pictures. */
async function heavyModel(folder: string): Promise<Heavy> {
  const mosaic = MODEL_CASES.find(({ id }) => id === "mosaic");
  if (data === undefined || mosaic === undefined) {
    const pkg = await writeHeavyPackage(join(folder, "heavy"));
    return { pkg, source: "simulator:parts?seed=2&fps=15&feedback=0" };
  }
  const { dir } = await new ModelCommands(data, folder).import(mosaic);
  return { pkg: await openPackage(dir), source: `video:${join(data, "sets/videos/book.mkv")}?loop=1&fps=15` };
}

/** Frames of a lane that became predictions. */
function predicted({ framesSeen, framesDropped, framesFailed, framesSkipped }: LaneState): number {
  return framesSeen - framesDropped - framesFailed - framesSkipped;
}

function laneOf({ lanes }: LocalState, name: string): LaneState {
  const lane = lanes.find((candidate) => candidate.name === name);
  if (lane === undefined)
    throw new Error(`no lane "${name}", there are ${lanes.map((each) => each.name).join(", ")}`);
  return lane;
}

describe(`a heavy model beside a light one (${data === undefined ? "convolutions" : "mosaic"})`, () => {
  it("blocks neither the light lane nor the agent, and its late frames are dropped and counted", {
    timeout: TIMEOUT_MS,
  }, async () => {
    const folder = scratch.path;
    const server = await ServerProgram.start({ folder });
    const light = await server.publish(await writeBrightnessPackage(join(folder, "light"), { version: 1 }));
    const heavy = await heavyModel(folder);
    const slow = await server.publish(heavy.pkg);
    const agent = new AgentProgram({
      folder,
      device: DEVICE,
      source: `parts=simulator:parts?fps=${LIGHT_FPS}&feedback=0&model=${light.model}&priority=80`,
      args: [
        ...["--source", `heavy=${heavy.source}&model=${slow.model}&priority=20`],
        ...["--threads", "2", "--provider", "cpu"],
      ],
    });
    await agent.start({ server: server.url, token: await server.enrolmentToken() });
    for (const version of [light, slow]) {
      const { rollout } = await server.rollOut(version, [DEVICE], { seconds: 0, predictions: 1 });
      expect((await server.settled(rollout, TIMEOUT_MS / 2)).state).toBe("succeeded");
    }

    const before = await agent.state();
    const hostPid = before.hostPid;
    const beats = new Set<number>();
    const after = await until(
      `${WATCHED} frames of the light lane are seen`,
      async () => {
        const state = await agent.state();
        beats.add(laneOf(state, "parts").framesSeen);
        const enough = laneOf(state, "parts").framesSeen >= laneOf(before, "parts").framesSeen + WATCHED;
        const late = laneOf(state, "heavy").framesDropped > laneOf(before, "heavy").framesDropped;
        const done = predicted(laneOf(state, "heavy")) > predicted(laneOf(before, "heavy"));
        return enough && late && done ? state : undefined;
      },
      { timeoutMs: TIMEOUT_MS / 2, everyMs: 100 },
    );

    const seen = laneOf(after, "parts").framesSeen - laneOf(before, "parts").framesSeen;
    const share = (predicted(laneOf(after, "parts")) - predicted(laneOf(before, "parts"))) / seen;
    const dropped = laneOf(after, "heavy").framesDropped - laneOf(before, "heavy").framesDropped;
    const slowed = predicted(laneOf(after, "heavy")) - predicted(laneOf(before, "heavy"));
    lines.push(
      `light: ${(100 * share).toFixed(1)} % of ${seen} frames; ${slow.model}: ${slowed} predictions, ${dropped} frames dropped; ${beats.size} reports of the host`,
    );
    expect(share).toBeGreaterThanOrEqual(LIGHT_SHARE_MIN);
    expect(laneOf(after, "parts").running).toMatchObject({ model: light.model });
    expect(laneOf(after, "heavy").running).toMatchObject({ model: slow.model });
    // The host went on telling how far it is, and was never started anew.
    expect(beats.size).toBeGreaterThan(5);
    expect(after.counters.hostRestarts).toBe(0);
    expect(after.hostPid).toBe(hostPid);
    await agent.stop();
    await server.stop();
  });
});
