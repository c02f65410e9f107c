import {
  createSigningKey,
  DESIRED_TYPE,
  type Desired,
  encodeMessage,
  type PublicKey,
  sign,
  type SigningKey,
  UNLIMITED,
} from "@fieldloop/protocol";
import pino from "pino";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { until } from "../testing/fleet.test.kit.js";
import { scratchFolder } from "../testing/package.test.kit.js";
import { AGENT_LIMITS } from "../limits.js";
import { type DeviceFiles, nodeFiles } from "./device-files.js";
import { Durable } from "./durable.js";
import { DesiredFollower } from "./desired-follower.js";
import { DesiredStore } from "./desired-store.js";
import { TrustFollower } from "./trust-follower.js";
import { Warnings } from "./warnings.js";

const keyOf = (filler: number): SigningKey =>
  createSigningKey((length) => new Uint8Array(length).fill(filler));
const FIRST = keyOf(1);
const SECOND = keyOf(2);

function signed(revision: number, key: SigningKey): Uint8Array {
  const desired: Desired = {
    device: "cam-1",
    revision,
    issued: 0,
    assignments: [],
    sampling: { bytesPerHour: 0, randomShare: 0, worthMin: 0, worthPerMinute: 0 },
    predictionsIntervalSeconds: 5,
    profileIntervalSeconds: 60,
    limits: UNLIMITED,
    configId: null,
  };
  return sign(DESIRED_TYPE, encodeMessage("desired", desired), key);
}

let folder: Awaited<ReturnType<typeof scratchFolder>>;
let nowMs: number;
/** Whom the fleet names, and whom the device knows. */
let named: readonly PublicKey[];
let known: readonly PublicKey[];
/** Lets the refresh that runs end. */
let answers: (() => void)[];
let refreshes: number;
/** A disk without space, and how often it said so. */
let isFull: boolean;
let refusals: number;
let followed: number;
let trust: TrustFollower;
let desired: DesiredFollower;

beforeEach(async () => {
  folder = await scratchFolder();
  nowMs = 1_000_000;
  named = known = [FIRST];
  answers = [];
  refreshes = refusals = followed = 0;
  isFull = false;
  const clock = { now: () => nowMs, monotonic: () => nowMs };
  const log = pino({ level: "silent" });
  const warnings = new Warnings(clock, log, () => undefined);
  const client = {
    directorKeys: () => known,
    // What it brings was published before it began.
    refresh: async () => {
      refreshes++;
      const read = named;
      await new Promise<void>((resolve) => answers.push(resolve));
      known = read;
    },
  };
  const onRefreshed = (): void => desired.retry();
  trust = new TrustFollower({ client, clock, random: () => 0.5, log, warnings, onRefreshed });
  desired = new DesiredFollower({
    store: new DesiredStore(folder.path, "cam-1", trust.keys, new Durable(disk)),
    warnings,
    floor: () => 0,
    follow: () => Promise.resolve(void followed++),
    onRefused: () => undefined,
    onUnknownKey: () => trust.unknownKey(),
    retryMinMs: 2,
  });
});
afterEach(async () => {
  for (const answer of answers) answer();
  await trust.stop();
  await desired.stop();
  await folder.remove();
});

const disk: DeviceFiles = {
  ...nodeFiles,
  open: (path, how) => {
    if (!isFull) return nodeFiles.open(path, how);
    refusals++;
    return Promise.reject(Object.assign(new Error("no space left on device"), { code: "ENOSPC" }));
  },
};

async function answer(): Promise<void> {
  await until(() => answers.length > 0, "a refresh runs");
  answers.shift()!();
}

describe("a director that the fleet names while its keys are being read", () => {
  it("is followed after the next reading, which does not wait for hours", async () => {
    desired.receive(signed(1, SECOND));
    await until(() => answers.length > 0, "the keys are read");
    named = [SECOND];
    nowMs += AGENT_LIMITS.trustRefreshMinMs;
    desired.receive(signed(2, SECOND));
    // Past the timer of the second one, which came while the first reading was not over.
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(refreshes).toBe(1);
    await answer();
    await answer();
    await until(() => desired.revision === 2, "the new director is followed");
    expect(refreshes).toBe(2);
  });

  it("is followed although another reading ends in between", async () => {
    await desired.load();
    desired.receive(signed(3, SECOND));
    await answer();
    await until(() => refreshes === 1 && known === named, "the first reading is over");
    named = [SECOND];
    nowMs += AGENT_LIMITS.trustRefreshMinMs;
    desired.receive(signed(1, keyOf(3)));
    await answer();
    await until(() => known === named, "the keys are there");
    // The last that came is the one that is looked at again.
    desired.receive(signed(4, SECOND));
    await until(() => desired.revision === 4, "the new director is followed");
    expect(refreshes).toBe(2);
  });
});

describe("a stranger's desired states", () => {
  it("have the keys read once in ten seconds, however many there are", async () => {
    for (let revision = 1; revision <= 50; revision++) desired.receive(signed(revision, SECOND));
    await answer();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(refreshes).toBe(1);
    expect(desired.revision).toBe(0);
  });
});

describe("a desired state that waits for the disk", () => {
  it("is not given up for one of before that is looked at again", async () => {
    desired.receive(signed(1, SECOND));
    await until(() => answers.length > 0, "the keys are read");
    isFull = true;
    desired.receive(signed(2, FIRST));
    await until(() => refusals > 0, "the disk is full");
    await answer();
    const before = refusals;
    await until(() => refusals > before + 1, "it is tried on and on", 4_000);
    isFull = false;
    await until(() => desired.revision === 2, "it is followed", 10_000);
  });
});

describe("a desired state that comes while the agent stops", () => {
  it("is left to the next start", async () => {
    await desired.stop();
    desired.receive(signed(1, FIRST));
    await desired.stop();
    expect([desired.revision, followed]).toEqual([0, 0]);
  });
});
