import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";
import { describe, expect, it } from "vitest";
import { POWER_CUTS, PowerCutDisk, PowerWent } from "../../testing/power-cut-disk.test.kit.js";
import { nodeDisk } from "./disk.js";
import { MetadataStore, type TrustFiles } from "./metadata-store.js";
import { TrustClock } from "./trust-clock.js";

const FOLDER = "/state/trust";
const FACTORY = Buffer.from(JSON.stringify({ signed: { version: 1 } }));

function setOf(version: number, extra: Record<string, string> = {}): TrustFiles {
  const files = {
    root: `root ${version}`,
    timestamp: `timestamp ${version}`,
    snapshot: "snapshot",
    ...extra,
  };
  return new Map(Object.entries(files).map(([role, text]) => [`${role}.json`, Buffer.from(text)]));
}

const SETS = [setOf(1), setOf(2, { targets: "more of it" }), setOf(3)];
const FACTORY_SET: TrustFiles = new Map([["root.json", FACTORY]]);

function plain(files: TrustFiles): Record<string, string> {
  return Object.fromEntries([...files].map(([name, bytes]) => [name, bytes.toString("utf8")]));
}

describe("metadata store", () => {
  it("keeps sets on a real disk, two generations of them, and the factory root as it was", async () => {
    const directory = await mkdtemp(join(tmpdir(), "fieldloop-trust-"));
    try {
      const store = new MetadataStore(directory, nodeDisk);
      await expect(store.load()).rejects.toMatchObject({ code: "not_found" });
      await store.initialize(FACTORY);
      expect(plain((await store.load()).files)).toEqual(plain(FACTORY_SET));
      for (const set of SETS) {
        await store.commit(set);
        expect(plain((await new MetadataStore(directory, nodeDisk).load()).files)).toEqual(plain(set));
      }
      expect((await nodeDisk.list(directory)).sort()).toEqual([
        "factory-root.json",
        "generation-0000000002",
        "generation-0000000003",
      ]);
      expect(await store.factoryRoot()).toEqual(FACTORY);
      await expect(store.initialize(Buffer.from("{}"))).rejects.toMatchObject({ code: "already_exists" });
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it("takes a harmed file from the generation before, and a root harmed in both from the factory", async () => {
    const disk = new PowerCutDisk();
    const store = await openStore(disk);
    for (const set of SETS.slice(0, 2)) await store.commit(set);
    const newest = `${FOLDER}/generation-0000000002`;
    for (const bytes of [Buffer.alloc(0), Buffer.from("timestamp"), Buffer.from("timestamp 9")]) {
      disk.harm(`${newest}/timestamp.json`, bytes);
      const { files, harmed } = await store.load();
      expect(plain(files)).toEqual({ ...plain(SETS[1]!), "timestamp.json": "timestamp 1" });
      expect(harmed).toEqual(["generation-0000000002/timestamp.json"]);
    }
    disk.harm(`${newest}/root.json`, Buffer.from("root"));
    expect((await store.load()).files.get("root.json")?.toString()).toBe("root 1");
    disk.harm(`${FOLDER}/generation-0000000001/root.json`, Buffer.alloc(0));
    expect((await store.load()).files.get("root.json")).toEqual(FACTORY);
    disk.harm(`${newest}/index`, Buffer.from("{"));
    const { files } = await store.load();
    expect(files.get("snapshot.json")?.toString()).toBe("snapshot");
    await store.commit(SETS[2]!);
    expect(await store.load()).toEqual({ files: SETS[2], harmed: [] });
  });

  it("writes a harmed factory root anew, from what the identity of the device holds", async () => {
    const disk = new PowerCutDisk();
    const store = await openStore(disk);
    disk.harm(`${FOLDER}/factory-root.json`, FACTORY.subarray(0, 5));
    await store.initialize(FACTORY);
    expect(await store.factoryRoot()).toEqual(FACTORY);
  });

  it("says that the disk is full, and keeps the set before", async () => {
    const disk = new PowerCutDisk();
    const store = await openStore(disk);
    await store.commit(SETS[0]!);
    const full = new Proxy(disk, {
      get: (target, name) =>
        name === "write"
          ? () => Promise.reject(Object.assign(new Error("no space left on device"), { code: "ENOSPC" }))
          : (Reflect.get(target, name) as () => unknown).bind(target),
    });
    await expect(new MetadataStore(FOLDER, full).commit(SETS[1]!)).rejects.toMatchObject({
      code: "storage_full",
    });
    expect(await store.load()).toEqual({ files: SETS[0], harmed: [] });
  });

  it("ends on the whole set before or the whole new one when the power goes, at every byte of every write", async () => {
    const counted = new PowerCutDisk();
    await life(counted);
    const wrong: string[] = [];
    for (let cutAt = 0; cutAt < counted.steps; cutAt++) {
      const disk = new PowerCutDisk(cutAt);
      const lived = await life(disk);
      for (const cut of POWER_CUTS) {
        const trouble = await troubleAfter(disk.after(cut), lived);
        if (trouble) wrong.push(`power cut "${cut}" in step ${cutAt}, after ${lived.done} sets: ${trouble}`);
      }
    }
    expect(wrong).toEqual([]);
    expect(counted.steps * POWER_CUTS.length).toBeGreaterThan(3_000);
  });
});

/** What is not as it should be when the power is back; undefined where all is well. */
async function troubleAfter(disk: PowerCutDisk, lived: Lived): Promise<string | undefined> {
  const store = new MetadataStore(FOLDER, disk);
  // The identity of the device holds the factory root too: its start gives it to the store.
  await store.initialize(FACTORY);
  const { files, harmed } = await store.load();
  const whole = [FACTORY_SET, ...SETS].slice(lived.done, lived.done + 2);
  if (!whole.some((set) => isSame(set, files))) return `the set is ${JSON.stringify(plain(files))}`;
  if (harmed.length > 0) return `harmed: ${harmed.join(", ")}`;
  if ((await store.factoryRoot())?.equals(FACTORY) !== true) return "the factory root is another one";
  const { trusted } = await clockOf(disk);
  if (trusted !== lived.trusted && trusted !== lived.done) return `the trusted time is ${trusted}`;
  await store.commit(SETS[0]!);
  return isSame((await store.load()).files, SETS[0]!) ? undefined : "no further set can be kept";
}

function isSame(a: TrustFiles, b: TrustFiles): boolean {
  return a.size === b.size && [...a].every(([name, bytes]) => b.get(name)?.equals(bytes));
}

async function openStore(disk: PowerCutDisk): Promise<MetadataStore> {
  const store = new MetadataStore(FOLDER, disk);
  await store.initialize(FACTORY);
  return store;
}

async function clockOf(disk: PowerCutDisk, now = 0): Promise<TrustClock> {
  const clock = new TrustClock(FOLDER, disk, { now: () => now, monotonic: () => 0 });
  await clock.load();
  return clock;
}

/** How many sets were kept for sure, and the last trusted time that was. */
interface Lived {
  done: number;
  trusted: number;
}

/** A device gets one set after the other, until the power goes. */
async function life(disk: PowerCutDisk): Promise<Lived> {
  const lived = { done: 0, trusted: 0 };
  try {
    const store = await openStore(disk);
    for (const set of SETS) {
      await store.commit(set);
      lived.done++;
      const clock = await clockOf(disk, lived.done);
      // Marked expired first, so that the next success is worth a write.
      await clock.expired(lived.done, { root: 1, timestamp: lived.done, snapshot: 1, targets: 1 });
      await clock.succeeded(lived.done);
      lived.trusted = lived.done;
    }
  } catch (error) {
    if (
      !(error instanceof PowerWent) &&
      !(error instanceof FieldloopError && error.cause instanceof PowerWent)
    ) {
      throw error;
    }
  }
  return lived;
}
