import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import pino from "pino";
import { type Desired, UNLIMITED } from "@fieldloop/protocol";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "../clock.js";
import type { PackageToRun } from "../ipc.js";
import { parseLaneSpecs } from "../lane-spec.js";
import { until } from "../testing/fleet.test.kit.js";
import { scratchFolder, writeTestPackage } from "../testing/package.test.kit.js";
import { Durable } from "./durable.js";
import { FeedbackGatherer } from "./feedback.js";
import { HostLink } from "./host-link.js";
import type { LaneUpdater } from "./host-link-options.js";
import { HostProcess } from "./host-process.js";
import { PackageStore } from "./package-store.js";
import { ProviderPlans } from "./provider-plans.js";
import { Quarantine } from "./quarantine.js";
import { Spool } from "./spool/spool.js";
import { Warnings } from "./warnings.js";

const STUCK = new URL("../testing/stuck-host.test.entry.js", import.meta.url);
const log = pino({ level: "silent" });
const IDLE: LaneUpdater = {
  ...{ toRun: undefined, previous: null, deployment: null },
  ...{ notePredictions: () => undefined, noteFramesFailed: () => undefined },
  ...{ noteHostCrash: () => undefined, noteMemoryExceeded: () => undefined },
};

const DESIRED: Desired = {
  ...{ device: "cam-1", revision: 1, issued: 0, assignments: [], limits: UNLIMITED, configId: null },
  sampling: { bytesPerHour: 0, randomShare: 0, worthMin: 0, worthPerMinute: 0 },
  ...{ predictionsIntervalSeconds: 5, profileIntervalSeconds: 60 },
};

let folder: Awaited<ReturnType<typeof scratchFolder>>;
let spool: Spool;
let warnings: Warnings;
let link: HostLink;
let desired: Desired | undefined;
/** The first host answers nothing; those after it are real ones. */
beforeEach(async () => {
  folder = await scratchFolder();
  desired = undefined;
  const directory = folder.path;
  const workingDirectory = join(directory, "empty");
  await mkdir(workingDirectory);
  const host = { workingDirectory, env: process.env, log };
  const nothing = (): undefined => undefined;
  warnings = new Warnings(systemClock, log, nothing);
  spool = await Spool.open({
    ...{ directory: join(directory, "spool"), boot: 1, bytesMax: 1 << 20 },
    ...{ onDurable: nothing, onEvicted: nothing, onStorage: nothing },
  });
  const durable = new Durable();
  const terms = { option: "cpu", threadCount: 1, machine: [] };
  link = new HostLink({
    ...{
      directory,
      device: "cam-1",
      boot: 1,
      host,
      threadCount: 1,
      hostBytesMax: 2 ** 40,
      spool,
      warnings,
      log,
    },
    lanes: parseLaneSpecs(["http:0"]),
    firstHost: new HostProcess({ ...host, entry: STUCK }),
    ...{ thermalPath: undefined, governorTimes: undefined, runTimes: undefined, clock: systemClock },
    feedback: new FeedbackGatherer(spool, nothing),
    quarantine: await Quarantine.load(directory, nothing),
    packages: new PackageStore(directory, durable),
    providers: await ProviderPlans.load(directory, terms, durable, nothing),
    ...{ desired: () => desired, updater: () => IDLE, onPredictions: nothing, onHostEnded: nothing },
    ...{ emit: nothing, onChange: nothing },
  });
  link.start();
  await until(() => link.supervisor.ready, "the first host is ready");
});
afterEach(async () => {
  await link.stop();
  await spool.close();
  await folder.remove();
});

async function target(): Promise<PackageToRun> {
  const pkg = await writeTestPackage(join(folder.path, "package"), { version: 1 });
  return { directory: pkg.dir, packageSha256: pkg.packageSha256 };
}

describe("a host that is told to end", () => {
  it("leaves what it was asked to load to the next one, which loads it", async () => {
    const toRun = await target();
    const activated = link.activate("main", toRun);
    activated.catch(() => undefined);
    await link.restart();
    expect((await activated)?.origin.packageSha256).toBe(toRun.packageSha256);
    expect(link.running("main")?.packageSha256).toBe(toRun.packageSha256);
  }, 30_000);

  it("is asked nothing more: the next one answers", async () => {
    const ending = link.restart();
    expect(await link.supervisor.request({ kind: "loaded_models" })).toEqual([]);
    await ending;
  }, 30_000);

  it("takes with it what it said of itself, to its last word", async () => {
    await link.restart();
    await until(() => link.supervisor.ready, "the next one is ready");
    expect(warnings.list()).toEqual([]);
  }, 30_000);
});

describe("desired states that come often", () => {
  it("do not put off what lanes predicted", async () => {
    desired = { ...DESIRED, predictionsIntervalSeconds: 0.2 };
    link.applyPolicy();
    const origin = { model: "m", version: 1, packageSha256: "a".repeat(64), signalNames: [] };
    const row = { time: 1, class: 0, confidence: 1, latencyMs: 1, signals: [] };
    // The first of a version travel at once.
    for (let n = 0; n < 2; n++) link.batches.add("main", origin, n, [row]);
    expect(spool.waiting("predictions")).toBe(1);
    const often = setInterval(() => link.applyPolicy(), 10);
    try {
      await until(() => spool.waiting("predictions") === 2, "it travels", 30_000);
    } finally {
      clearInterval(often);
    }
  });
});

describe("what is asked of a host that is not there", () => {
  it("is given up with who asked it", async () => {
    const toRun = await target();
    const ending = link.restart();
    const gone = new AbortController();
    const activated = link.activate("main", toRun, gone.signal);
    gone.abort();
    await expect(activated).rejects.toMatchObject({ code: "cancelled" });
    await ending;
  }, 30_000);

  it("is refused once there is none any more", async () => {
    await link.stop();
    // Far longer than the test may take: it is not what ends the waiting.
    const asked = link.supervisor.request({ kind: "loaded_models" }, 600_000);
    await expect(asked).rejects.toMatchObject({ code: "unavailable" });
  }, 30_000);
});
