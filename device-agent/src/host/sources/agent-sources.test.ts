import { execFileSync } from "node:child_process";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type AgentHandle, startAgent } from "../../control/agent.js";
import { createAgentLog } from "../../log.js";
import { TestFleet, until } from "../../testing/fleet.test.kit.js";
import { scratchFolder, writeTestPackage, writeWindowPackage } from "../../testing/package.test.kit.js";
import { hasProgram } from "./sources.test.kit.js";

let folder: Awaited<ReturnType<typeof scratchFolder>>;
let fleet: TestFleet;
let agent: AgentHandle | undefined;

beforeEach(async () => {
  folder = await scratchFolder();
  fleet = new TestFleet();
  await fleet.start();
});
afterEach(async () => {
  await agent?.stop();
  agent = undefined;
  await fleet.stop();
  await folder.remove();
});

async function start(source: string): Promise<AgentHandle> {
  return startAgent({
    directory: join(folder.path, "state"),
    server: fleet.serverUrl,
    token: "fle_once",
    source,
    env: {},
    log: createAgentLog({ level: "error", write: (line) => void process.stderr.write(line) }),
  });
}

/** The class of every prediction that reached the fleet, in order. */
function classes(): number[] {
  return fleet.predictions.flatMap((batch) => Array.from(batch.class));
}

const LOUD = "1\n-1\n".repeat(128);
const QUIET = "0\n".repeat(256);

describe("an agent on a stream of samples", () => {
  it("predicts on every window, and tells the fleet of rows that are no use", async () => {
    fleet.desire([
      await fleet.publish(await writeWindowPackage(join(folder.path, "v1"), { version: 1 }), "d1"),
    ]);
    const sockets: Socket[] = [];
    const sensor = createServer((socket) => void sockets.push(socket));
    await new Promise<void>((resolve) => sensor.listen(0, "127.0.0.1", resolve));
    const { port } = sensor.address() as AddressInfo;
    try {
      agent = await start(`tcp:127.0.0.1:${port}?format=csv&columns=v&header=0&drop=wait`);
      await until(() => sockets.length === 1, "it connects with the first model");
      sockets[0]!.write(`${LOUD}${LOUD}${QUIET}${QUIET}no number\n`);
      // 1,024 samples in windows of 256, each 128 behind the one before; one in the middle is half of both.
      await until(() => classes().length >= 7, "all windows are predicted on");
      expect(classes().filter((_, at) => at !== 3)).toEqual([1, 1, 1, 0, 0, 0]);
      await until(
        () => agent!.state().warnings.some(({ code }) => code === "row_malformed"),
        "the warning is there",
      );
      expect(agent.state().counters.framesDropped).toBe(0);
    } finally {
      await agent?.stop();
      for (const socket of sockets) socket.destroy();
      sensor.close();
    }
  }, 60_000);
});

describe.skipIf(!hasProgram("ffmpeg", ["-version"], "an agent on a video"))("an agent on a video", () => {
  it("predicts on every frame of it", async () => {
    const path = join(folder.path, "white.mp4");
    execFileSync("ffmpeg", [
      ...["-loglevel", "error", "-f", "lavfi", "-i", "color=white:size=64x48:rate=10:duration=2"],
      ...["-c:v", "mpeg4", path],
    ]);
    fleet.desire([
      await fleet.publish(await writeTestPackage(join(folder.path, "v1"), { version: 1 }), "d1"),
    ]);
    agent = await start(`video:${path}?pace=none&width=32`);
    await until(() => classes().length >= 20, "all frames are predicted on");
    expect(classes()).toEqual(Array.from({ length: 20 }, () => 1));
  }, 60_000);
});
