import { rmSync } from "node:fs";
import { AGENT_LIMITS, type Clock, type DeviceFiles } from "@fieldloop/device-agent";
import type { Assignment, DeploymentState } from "@fieldloop/protocol";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { randomOf, testSeed } from "../kit/random.js";
import { drawn } from "../kit/thorough.js";
import { assignmentOf, desiredOf, type FaultDevice, type FaultDeviceOptions } from "./fault-device.js";
import { type Answer, type MemoryServer, partOf } from "./memory-server.js";
import { type OperationKind, PowerCutFiles } from "./power-cut-files.js";
import { namesIn, Stage, Table } from "./stage.js";

/**
 * The crash table, second part: a disk that is full or breaks, a link that cuts, corrupts, crawls or refuses ranges, a clock that jumps.
 * What is real and what is simulated: see `power-cut.test.ts`. The link carries a file of 1.3 MB, the other two a small one.
 */
const PIECE = 64 * 1024;
/** What a server has of a file that was cut short on its way there. */
const BEGINNING = 100;
/** What a device keeps free, see `AGENT_LIMITS`. */
const RESERVE = AGENT_LIMITS.storageReserveBytes;
/** Of the places where the same goes wrong, where tests are not thorough. */
const SHARE = 0.3;
const seed = testSeed();
let draws = 0;
const placesOf = <Place>(all: readonly Place[]): Place[] => drawn(all, SHARE, randomOf(seed, ++draws));
const small = new Stage();
const wide = new Stage();
const table = new Table();
let large: { readonly sha256: string; readonly bytes: number };

beforeAll(async () => {
  console.log(`FIELDLOOP_TEST_SEED=${seed}`);
  await small.open();
  await wide.open(48_000);
  const variant = wide.packages[2]!.manifest.variants[0]!;
  large = { sha256: variant.sha256, bytes: variant.bytes };
});
afterAll(() => {
  small.close();
  wide.close();
  console.log(`\n${table.toString()}\n`);
});

interface Case {
  readonly row: string;
  readonly answer?: Answer;
  readonly files?: (root: string) => DeviceFiles;
  readonly clock?: Clock;
  readonly updater?: FaultDeviceOptions["updater"];
  readonly assignment?: Partial<Assignment>;
  /** While it goes on. */
  readonly meanwhile?: (device: FaultDevice) => Promise<void>;
}

/** The update to version 2 with something in its way; afterwards a whole version predicts and nothing is left over. */
async function update(
  injected: Case,
  states: readonly DeploymentState[] = ["active"],
): Promise<{ device: FaultDevice; server: MemoryServer; code: string | undefined }> {
  const stage = injected.answer ? wide : small;
  const root = await stage.updated();
  const server = await stage.server();
  if (injected.answer) server.answers.set(large.sha256, injected.answer);
  const device = stage.device(server, root, {
    files: injected.files?.(root) ?? new PowerCutFiles({ root }),
    ...(injected.clock ? { clock: injected.clock } : {}),
    ...(injected.updater ? { updater: injected.updater } : {}),
  });
  try {
    await device.start();
    device.receive(desiredOf(10, [assignmentOf(stage.packages[2]!, "d9", injected.assignment)]));
    await injected.meanwhile?.(device);
    await device.settled("d9");
    const { state, error } = device.updater.deployment!;
    const version = stage.versionOf(device.running);
    expect(states, `${injected.row}: ${error?.code} ${error?.message}`).toContain(state);
    expect({ row: injected.row, version }).toEqual({
      row: injected.row,
      version: state === "active" ? 2 : 1,
    });
    await device.predicts();
    await device.until("it is tidy", () => namesIn(root, "staging").length === 0);
    table.count(injected.row, `${state}${error ? ` (${error.code})` : ""}, version ${version}`);
    return { device, server, code: error?.code };
  } finally {
    await device.stop();
    rmSync(root, { recursive: true, force: true });
  }
}

const WRITES: ReadonlySet<OperationKind> = new Set(["open", "write", "copy", "makeDirectory"]);
const SYNCS: ReadonlySet<OperationKind> = new Set(["sync", "syncFile", "syncDirectory"]);

/** The operations of these kinds that an update takes, numbered. */
async function placesOfKind(kinds: ReadonlySet<OperationKind>): Promise<number[]> {
  let count = 0;
  const refuse = (_: number, kind: OperationKind): undefined => {
    if (kinds.has(kind)) count++;
  };
  await update({ row: "nothing", files: (root) => new PowerCutFiles({ root, refuse }) });
  return Array.from({ length: count }, (_, at) => at);
}

describe("a disk", { timeout: 120_000 }, () => {
  it("that is full at any write, once, or until somebody makes room", async () => {
    const all = await placesOfKind(WRITES);
    for (const at of placesOf(all)) {
      let seen = 0;
      const refuse = (_: number, kind: OperationKind): "ENOSPC" | undefined =>
        WRITES.has(kind) && seen++ === at ? "ENOSPC" : undefined;
      const files = (root: string): DeviceFiles => new PowerCutFiles({ root, refuse });
      await update({ row: "disk full at a write", files }, ["active", "failed"]);
    }
    for (const at of placesOf(all.filter((place) => place % 3 === 0))) {
      let seen = 0;
      let isFull = true;
      const refuse = (_: number, kind: OperationKind): "ENOSPC" | undefined =>
        WRITES.has(kind) && seen++ >= at && isFull ? "ENOSPC" : undefined;
      const files = (root: string): DeviceFiles => new PowerCutFiles({ root, refuse });
      const meanwhile = async (device: FaultDevice): Promise<void> => {
        await new Promise((resolve) => setTimeout(resolve, 30));
        expect(small.versionOf(device.running)).toBeGreaterThan(0);
        await device.predicts();
        isFull = false;
      };
      await update({ row: "disk full from a write on, for a while", files, meanwhile }, ["active", "failed"]);
    }
  });

  it("that fails to sync, anywhere", async () => {
    for (const at of placesOf(await placesOfKind(SYNCS))) {
      let seen = 0;
      const refuse = (_: number, kind: OperationKind): "EIO" | undefined =>
        SYNCS.has(kind) && seen++ === at ? "EIO" : undefined;
      const files = (root: string): DeviceFiles => new PowerCutFiles({ root, refuse });
      await update({ row: "disk fails at a sync", files }, ["active", "failed"]);
    }
  });

  it("that has too little room is found out before a byte of the model travels, and while it does", async () => {
    const files = (root: string): DeviceFiles => new PowerCutFiles({ root, freeBytes: () => RESERVE });
    const { server, code } = await update({ row: "too little room", files }, ["failed"]);
    expect(code).toBe("storage_full");
    // The manifest alone, once.
    expect(server.requests).toBe(1);
  });

  it("that has room without the version before the active one gives that one up", async () => {
    let asked = 0;
    const room = (): number => (asked++ === 0 ? RESERVE + 3_000 : 1e9);
    const files = (root: string): DeviceFiles => new PowerCutFiles({ root, freeBytes: room });
    const { device } = await update({ row: "room without the version before", files });
    expect(small.versionOf(device.updater.previous?.packageSha256)).toBe(1);
    expect(asked).toBeGreaterThan(1);
  });
});

/** One answer that is not honest, then honest ones. */
function once(answer: Answer): Answer {
  let isDone = false;
  return (bytes, from, request) => {
    if (isDone) return undefined;
    isDone = true;
    return answer(bytes, from, request);
  };
}

function flipped(bytes: Uint8Array, at: number): Uint8Array {
  const copy = Uint8Array.from(bytes);
  copy[at]! ^= 0xff;
  return copy;
}

describe("a link", { timeout: 120_000 }, () => {
  const pieces = (): number[] =>
    Array.from({ length: Math.ceil(large.bytes / PIECE) }, (_, index) => index * PIECE);

  it("that is cut at every 64 KiB goes on there, and nothing travels twice", async () => {
    for (const at of placesOf(pieces())) {
      const { server } = await update({
        row: "cut at a piece of 64 KiB",
        answer: once((bytes, from) => partOf(bytes, from, at)),
      });
      expect(server.bytesSent - 2 * large.bytes).toBeLessThanOrEqual(PIECE - at);
    }
    const everywhere: Answer = (bytes, from) => partOf(bytes, from, from + PIECE);
    await update({ row: "cut after every 64 KiB", answer: everywhere });
  });

  it("that corrupts a piece is asked once more", async () => {
    for (const at of placesOf(pieces())) {
      await update({
        row: "corrupt chunk, once",
        answer: once((bytes, from) => partOf(flipped(bytes, at), from)),
      });
    }
  });

  it("that corrupts every time is not believed", async () => {
    const answer: Answer = (bytes, from) => partOf(flipped(bytes, 100), from);
    const { code } = await update({ row: "corrupt chunk, always", answer }, ["rejected"]);
    expect(code).toBe("package_hash_mismatch");
  });

  const refusals: [string, Answer][] = [
    ["answers 416", (_, from) => (from > 0 ? new Response(null, { status: 416 }) : undefined)],
    [
      "gives another range",
      (bytes, from) =>
        from > 0
          ? new Response(bytes.slice(), {
              status: 206,
              headers: { "content-range": `bytes 0-9/${bytes.length}` },
            })
          : undefined,
    ],
    ["gives the whole again", (bytes, from) => (from > 0 ? partOf(bytes, 0) : undefined)],
  ];
  it.each(refusals)("whose server %s for a range is asked for the whole", async (name, refuse) => {
    const cut = once((bytes, from) => partOf(bytes, from, 3 * PIECE));
    await update({
      row: `server ${name}`,
      answer: (bytes, from, n) => cut(bytes, from, n) ?? refuse(bytes, from, n),
    });
  });

  const passing: [string, () => Answer][] = [
    [
      "429 with a time to wait",
      () => once(() => new Response(null, { status: 429, headers: { "retry-after": "1" } })),
    ],
    ["503", () => once(() => new Response(null, { status: 503 }))],
    ["no body", () => once(() => new Response(null, { status: 200 }))],
  ];
  it.each(passing)("whose server answers %s is asked again", async (name, answer) => {
    await update({ row: `server answers ${name}`, answer: answer() });
  });

  const ends: [string, Answer, string][] = [
    ["is gone", () => new Response(null, { status: 503 }), "download_failed"],
    ["does not know the file", () => new Response(null, { status: 404 }), "download_failed"],
    [
      "has but the beginning of the file",
      (bytes, from) =>
        from < BEGINNING ? new Response(bytes.slice(from, BEGINNING)) : new Response(null, { status: 416 }),
      "download_failed",
    ],
    [
      "never comes to an end",
      (bytes) => new Response(new Uint8Array(bytes.length * 2)),
      "download_length_mismatch",
    ],
    [
      "says nothing",
      () => new Response(new ReadableStream({ pull: () => new Promise(() => undefined) })),
      "download_failed",
    ],
    ["gives a byte now and then", () => new Response(trickle()), "download_too_slow"],
  ];
  it.each(ends)("whose server %s is left in the end", async (name, answer, code) => {
    const download = {
      attemptsMax: 2,
      retryMinMs: 1,
      retryMaxMs: 2,
      stallMs: 60,
      windowMs: 40,
      bytesPerSecondMin: 10_000,
    };
    const ended = await update({ row: `server ${name}`, answer, updater: { times: { download } } }, [
      "failed",
    ]);
    expect(ended.code).toBe(code);
  });
});

/** Ten bytes every ten milliseconds. */
function trickle(): ReadableStream<Uint8Array> {
  return new ReadableStream(
    {
      pull: async (controller) => {
        await new Promise((resolve) => setTimeout(resolve, 10));
        controller.enqueue(new Uint8Array(10));
      },
    },
    { highWaterMark: 0 },
  );
}

describe("a clock", { timeout: 120_000 }, () => {
  const STATES = [
    "offered",
    "downloading",
    "verifying",
    "installed",
    "self_testing",
    "activating",
    "probation",
  ] as const;
  const DAY_MS = 24 * 3_600_000;
  const jumps = [-30, 400, -20_000].flatMap((days) => placesOf(STATES).map((state) => ({ state, days })));

  it.each(jumps)("that jumps by $days days in $state changes nothing", async ({ state, days }) => {
    let offset = 0;
    const clock: Clock = { now: () => Math.max(0, Date.now() + offset), monotonic: () => performance.now() };
    const meanwhile = async (device: FaultDevice): Promise<void> => {
      await device.until(`it is ${state} or beyond`, () =>
        device.events.some((event) => event.deployment === "d9" && event.state === state),
      );
      offset = days * DAY_MS;
    };
    await update({ row: "clock jumps", clock, meanwhile });
  });
});
