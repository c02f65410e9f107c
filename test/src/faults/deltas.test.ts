import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { rebuildInProcess, type Rebuild } from "@fieldloop/device-agent";
import { FieldloopError } from "@fieldloop/protocol";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BY_DELTA } from "./by-delta.js";
import { assignmentOf, desiredOf } from "./fault-device.js";
import { type MemoryServer, partOf } from "./memory-server.js";
import { namesIn, Stage } from "./stage.js";

/**
 * Updates by delta as the agent makes them: the real updater, store and downloads over a folder of this machine, and the process that
 * rebuilds a file. The network is simulated (answers without sockets); the server's side is held in `fleet-server/src/deltas.test.ts`.
 */
const HIDDEN = 4_000;
const stage = new Stage();

beforeAll(() => stage.open(HIDDEN, { alike: true }));
afterAll(() => stage.close());

interface Way {
  readonly serve?: (server: MemoryServer) => void;
  readonly prepare?: (directory: string) => void;
  readonly rebuild?: Rebuild;
}

interface Outcome {
  readonly measured: Readonly<Record<string, number>>;
  readonly bytesSent: number;
}

/** From version 1 to version 2; whatever happens to the delta, version 2 runs in the end and nothing is left over. */
async function update({ serve, prepare, rebuild = rebuildInProcess }: Way): Promise<Outcome> {
  const directory = await stage.updated();
  const server = await stage.server();
  server.deltas = "honest";
  serve?.(server);
  const device = stage.device(server, directory, { updater: { ...BY_DELTA, rebuild } });
  try {
    await device.start();
    // What runs is in memory.
    prepare?.(directory);
    device.receive(desiredOf(10, [assignmentOf(stage.packages[2]!, "d9")]));
    await device.settled("d9");
    expect(device.state).toBe("active");
    await device.predicts();
    await device.until("it is tidy", () => namesIn(directory, "staging").length === 0);
    const { measured } = device.events.find(
      ({ state, deployment }) => deployment === "d9" && state === "verifying",
    )!;
    return { measured, bytesSent: server.bytesSent };
  } finally {
    await device.stop();
  }
}

const target = () => stage.packages[2]!.manifest.variants[0]!;
const basePath = (directory: string): string =>
  join(
    directory,
    "packages",
    stage.packages[1]!.packageSha256,
    stage.packages[1]!.manifest.variants[0]!.file,
  );

describe("an update by delta", { timeout: 30_000 }, () => {
  it("takes a part of the bytes, and says so", async () => {
    const { measured } = await update({});
    expect(measured["bytesRebuilt"]).toBe(target().bytes);
    expect(measured["deltaBytes"]).toBeLessThan(target().bytes / 2);
    expect(measured["bytesDownloaded"]).toBeLessThan(target().bytes);
  });

  it("goes on with a delta that was cut", async () => {
    let cuts = 0;
    const { measured } = await update({
      serve: (server) => {
        server.deltas = (delta) => {
          server.answerLater((bytes, from) =>
            bytes === delta && cuts++ < 2
              ? partOf(bytes, from, from + ((bytes.length - from) >> 1))
              : undefined,
          );
          return delta;
        };
      },
    });
    expect(cuts).toBeGreaterThan(2);
    expect(measured["bytesRebuilt"]).toBe(target().bytes);
  });

  const whole: readonly (readonly [string, Way])[] = [
    ["the server has none", { serve: (server) => void (server.deltas = "none") }],
    [
      "it is corrupt",
      { serve: (server) => void (server.deltas = (delta) => changed(delta, delta.length >> 1)) },
    ],
    ["it is none", { serve: (server) => void (server.deltas = (delta) => delta.map((_, at) => at & 255)) }],
    [
      "it is cut",
      { serve: (server) => void (server.deltas = (delta) => delta.slice(0, delta.length - 200)) },
    ],
    ["it makes another file", { serve: (server) => void (server.deltas = (delta) => changed(delta, 50)) }],
    ["the base is harmed", { prepare: (directory) => harm(basePath(directory)) }],
    [
      "more comes out than was announced",
      { rebuild: async (_job, _signal, sink) => sink(new Uint8Array(target().bytes + 1)) },
    ],
    ["less comes out", { rebuild: () => Promise.resolve() }],
    [
      "other bytes come out",
      { rebuild: async (_job, _signal, sink) => sink(new Uint8Array(target().bytes)) },
    ],
    [
      "the process takes too long",
      {
        rebuild: () => Promise.reject(new FieldloopError("timed_out", "Rebuild by delta: it takes too long")),
      },
    ],
  ];
  it.each(whole)("brings the whole file where %s", async (_name, way) => {
    const { measured } = await update(way);
    expect(measured["bytesDownloaded"]).toBeGreaterThanOrEqual(target().bytes);
  });
});

function changed(bytes: Uint8Array, at: number): Uint8Array {
  return bytes.map((byte, index) => (index === at ? byte ^ 0x55 : byte));
}

function harm(path: string): void {
  const bytes = readFileSync(path);
  bytes[bytes.length >> 1]! ^= 0x55;
  writeFileSync(path, bytes);
}
