import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "../clock.js";
import type { HostMessage, LaneBeat, StartMessage } from "../ipc.js";
import { parseLaneSpecs } from "../lane-spec.js";
import { until } from "../testing/fleet.test.kit.js";
import { scratchFolder, writeSumPackage } from "../testing/package.test.kit.js";
import { Inference } from "./inference.js";

let folder: Awaited<ReturnType<typeof scratchFolder>>;
let inference: Inference | undefined;
let said: HostMessage[];
beforeEach(async () => {
  folder = await scratchFolder();
  said = [];
});
afterEach(async () => {
  await inference?.stop();
  inference = undefined;
  await folder.remove();
});

async function run(rows: readonly object[], options: string): Promise<void> {
  const path = join(folder.path, "rows.ndjson");
  await writeFile(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  const pkg = await writeSumPackage(join(folder.path, "package"));
  const [spec] = parseLaneSpecs([`ndjson:${path}?columns=x&time=t&hz=10&${options}`]);
  const start: StartMessage = {
    kind: "start",
    device: "cam-1",
    boot: 1,
    lanes: [
      {
        spec: spec!,
        package: { directory: pkg.dir, packageSha256: pkg.packageSha256 },
        numbers: { next: 0, end: 0 },
        frameMarkPath: join(folder.path, "frame.mark"),
      },
    ],
    nextBlock: 0,
    sampling: { bytesPerHour: 0, randomShare: 0, worthMin: 1, worthPerMinute: 0 },
    profileIntervalSeconds: 60,
    quarantined: [],
    suspects: [],
    threadCount: 1,
    thermalPath: undefined,
    governorTimes: undefined,
  };
  const send = (message: HostMessage): Promise<void> => {
    said.push(message);
    return Promise.resolve();
  };
  const onDead = (error: Error): void => {
    throw error;
  };
  inference = new Inference({ start, send, clock: systemClock, random: Math.random, onDead });
  await inference.start();
}

/** 0 as long as the carried sum is small. */
function classes(): number[] {
  return said.flatMap((message) =>
    message.kind === "predictions" ? message.rows.map((row) => row.class) : [],
  );
}

function lastBeat(): LaneBeat | undefined {
  return said.findLast((message) => message.kind === "heartbeat")?.lanes[0];
}

/** One a tenth of a second. */
function ones(from: number, count: number): { t: number; x: number }[] {
  return Array.from({ length: count }, (_, index) => ({ t: from + index / 10, x: 1 }));
}

describe("a lane whose model carries a state", () => {
  it.each([1, 4])("begins anew behind a gap, with up to %i frames at once", async (batch) => {
    await run([...ones(0, 4), ...ones(60, 4)], `pace=none&batch=${batch}`);
    await until(() => classes().length === 8, "all rows are predicted");
    expect(classes()).toEqual([0, 0, 1, 1, 0, 0, 1, 1]);
    await until(() => lastBeat()?.sourceCounts["gaps"] === 1, "the gap is counted");
    expect(lastBeat()?.sourceCounts).toMatchObject({ rows: 8, malformedRows: 0 });
  });

  it("goes on over a row that is none", async () => {
    await run([...ones(0, 2), { t: 0.2, x: "?" }, ...ones(0.3, 2)], "pace=none");
    await until(() => classes().length === 4, "the other rows are predicted");
    expect(classes()).toEqual([0, 0, 1, 1]);
    await until(() => lastBeat()?.sourceCounts["malformedRows"] === 1, "it is counted");
    expect(
      said.some((message) => message.kind === "warning" && message.failure.code === "row_malformed"),
    ).toBe(true);
  });
});
