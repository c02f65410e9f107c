import { mkdtemp, readdir, rm, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FieldloopError, packageTargetPath, sha256Hex, toHex, type PublicKey } from "@fieldloop/protocol";
import { createSigningKey } from "@fieldloop/protocol";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { TufRepository } from "../../testing/tuf-repository.test.kit.js";
import { type Mount, TufServer } from "../../testing/tuf-server.test.kit.js";
import { httpFetch } from "../http-fetch.js";
import { TrustClient, type TrustClientOptions } from "./trust-client.js";

const DAY = 86_400_000;
const DIRECTOR = "fieldloop/director.json";
const server = new TufServer();
let directory: string;
let repository: TufRepository;
let mount: Mount;
let enrolledRoot: string;
let now: number;
let harmed: string[];

beforeAll(() => server.start());
afterAll(() => server.stop());
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "fieldloop-trust-"));
  now = Date.parse("2026-11-27T12:00:00Z");
  repository = new TufRepository({ now });
  setDirector(ENROLLED);
  addPackage("parts", 7);
  repository.publishTargets();
  mount = server.mount(repository);
  enrolledRoot = repository.factoryRoot.toString("utf8");
  harmed = [];
});
afterEach(() => rm(directory, { recursive: true }));

function makeKey(seed: number): PublicKey {
  return createSigningKey((length) => new Uint8Array(length).fill(seed));
}
const ENROLLED = makeKey(1);
const NEXT = makeKey(2);

function setDirector(...keys: PublicKey[]): void {
  const entries = keys.map(({ keyId, publicKey }) => ({ keyId, publicKey: toHex(publicKey) }));
  repository.addTarget("targets", DIRECTOR, JSON.stringify({ keys: entries }));
}

function addPackage(model: string, version: number, change: Record<string, string | string[]> = {}): string {
  const manifest = JSON.stringify({ model, version });
  const packageSha256 = sha256Hex(Buffer.from(manifest));
  const evidence = { evaluation: "evl_1", verdict: "passed" };
  const fieldloop = { model, version, packageSha256, deviceClasses: null, evidence, ...change };
  repository.addTarget("targets", packageTargetPath(model, version), manifest, { fieldloop });
  return packageSha256;
}

async function device(change: Partial<TrustClientOptions> = {}): Promise<TrustClient> {
  const client = new TrustClient({
    directory,
    server: mount.metadataUrl.replace(/\/metadata\/$/, ""),
    credential: "fld.test.secret",
    factoryRoot: enrolledRoot,
    enrolledKeys: [ENROLLED],
    fetch: httpFetch,
    clock: { now: () => now, monotonic: () => performance.now() },
    random: () => 0,
    limits: { retryMinMs: 1, retryMaxMs: 2, attemptsMax: 2, stallMs: 500 },
    onHarmed: (message) => harmed.push(message),
    ...change,
  });
  await client.open();
  return client;
}

const signal = AbortSignal.timeout(60_000);

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    if (error instanceof FieldloopError) return error.code;
    throw error;
  }
  return "accepted";
}

describe("trust client", () => {
  it("says what the targets keys vouch for", async () => {
    const client = await device();
    expect(await client.package("parts", 7, signal)).toEqual({
      packageSha256: sha256Hex(Buffer.from('{"model":"parts","version":7}')),
      manifestBytes: 29,
      deviceClasses: null,
      evidence: { evaluation: "evl_1", verdict: "passed" },
    });
    expect(client.status).toMatchObject({
      refreshed: { at: now, expires: now + 30 * DAY },
      versions: { root: 1, timestamp: 2, snapshot: 2, targets: 2 },
      failure: undefined,
      clockBehindMs: 0,
    });
    expect(await codeOf(client.package("parts", 8, signal))).toBe("trust_target_unknown");
    expect(client.status.failure?.code).toBe("trust_target_unknown");
  });

  it("believes no target that contradicts itself", async () => {
    addPackage("parts", 8, { packageSha256: "0".repeat(64) });
    addPackage("parts", 9, { model: "other" });
    addPackage("parts", 10, { evidence: "good" });
    repository.publishTargets();
    const client = await device();
    expect(await codeOf(client.package("parts", 8, signal))).toBe("trust_target_mismatch");
    expect(await codeOf(client.package("parts", 9, signal))).toBe("trust_target_mismatch");
    expect(await codeOf(client.package("parts", 10, signal))).toBe("trust_metadata_malformed");
    expect(await codeOf(client.package("parts", 7, signal))).toBe("accepted");
  });

  it("goes on offline with what it knew, refuses what is new, and is well again with the network", async () => {
    const client = await device();
    await client.refresh(signal);
    const offline = await device({ fetch: () => Promise.reject(new TypeError("fetch failed")) });
    expect(offline.directorKeys()).toEqual([publicOf(ENROLLED)]);
    expect(await codeOf(offline.package("parts", 7, signal))).toBe("trust_unreachable");
    expect(await codeOf((await device()).package("parts", 7, signal))).toBe("accepted");
  });

  it("walks the chain of roots after months off, and takes new keys of every role", async () => {
    await (await device()).refresh(signal);
    now += 200 * DAY;
    repository.root.expires = repository.timestamp.expires = "2027-09-01T00:00:00Z";
    repository.snapshot.expires = repository.targets.expires = "2027-09-01T00:00:00Z";
    for (let rotation = 0; rotation < 2; rotation++) {
      const before = repository.signers.get("root")!;
      for (const role of ["root", "targets", "snapshot", "timestamp"]) repository.rotateKeys(role);
      repository.signers.set("root", [...before, ...repository.signers.get("root")!]);
      repository.publish("root");
      repository.signers.set("root", repository.signers.get("root")!.slice(-1));
    }
    addPackage("parts", 9);
    repository.publishTargets();
    const client = await device();
    expect(await codeOf(client.package("parts", 9, signal))).toBe("accepted");
    expect(client.status.versions).toMatchObject({ root: 3, timestamp: 3 });
    expect(harmed).toEqual([]);
  });

  it("keeps running on expired metadata, and can update again once they are renewed", async () => {
    const client = await device();
    await client.refresh(signal);
    now += 31 * DAY;
    expect(await codeOf(client.package("parts", 7, signal))).toBe("trust_metadata_expired");
    expect(client.directorKeys()).toEqual([publicOf(ENROLLED)]);
    for (const role of ["root", "targets", "snapshot", "timestamp"])
      repository.signed(role).expires = "2027-06-01T00:00:00Z";
    repository.publish("root", "targets", "snapshot", "timestamp");
    expect(await codeOf(client.package("parts", 7, signal))).toBe("accepted");
  });

  it("does not take frozen metadata when its clock is set back, and takes newer ones", async () => {
    const client = await device();
    await client.refresh(signal);
    const good = now;
    now += 31 * DAY;
    expect(await codeOf(client.refresh(signal))).toBe("trust_metadata_expired");
    now = good;
    expect(await codeOf(client.refresh(signal))).toBe("trust_clock_back");
    expect(await codeOf((await device()).refresh(signal))).toBe("trust_clock_back");
    repository.publish("timestamp");
    expect(await codeOf(client.package("parts", 7, signal))).toBe("accepted");
  });

  it("updates with a clock that stands at the beginning of time, and says so", async () => {
    await (await device()).refresh(signal);
    now = 0;
    const client = await device();
    expect(client.status.clockBehindMs).toBeGreaterThan(DAY);
    expect(await codeOf(client.package("parts", 7, signal))).toBe("accepted");
  });

  it("is not stranded by a clock that was decades ahead for a while", async () => {
    const client = await device();
    await client.refresh(signal);
    const real = now;
    now = Date.parse("2099-01-01T00:00:00Z");
    expect(await codeOf(client.refresh(signal))).toBe("trust_metadata_expired");
    now = real + 60_000;
    repository.publish("timestamp");
    expect(await codeOf(client.package("parts", 7, signal))).toBe("accepted");
    expect(client.status.clockBehindMs).toBe(0);
  });

  it("follows the director that the targets keys name, and none that they named before", async () => {
    const client = await device();
    expect(client.directorKeys()).toEqual([ENROLLED]);
    setDirector(ENROLLED, NEXT);
    repository.publishTargets();
    await client.refresh(signal);
    expect(client.directorKeys()).toEqual([publicOf(ENROLLED), publicOf(NEXT)]);
    setDirector(NEXT);
    repository.publishTargets();
    await client.refresh(signal);
    expect(client.directorKeys()).toEqual([publicOf(NEXT)]);
    expect((await device()).directorKeys()).toEqual([publicOf(NEXT)]);
    delete repository.targets.targets[DIRECTOR];
    repository.publishTargets();
    await client.refresh(signal);
    expect(client.directorKeys()).toEqual([]);
    expect((await device()).directorKeys()).toEqual([]);
  });

  it("drops a director that was replaced, even while the new one is held back or swapped", async () => {
    const client = await device();
    await client.refresh(signal);
    setDirector(NEXT);
    repository.publishTargets();
    const honest = repository.contents.get(DIRECTOR)!;
    repository.contents.delete(DIRECTOR);
    expect(await codeOf(client.refresh(signal))).toBe("trust_unreachable");
    expect(client.directorKeys()).toEqual([]);
    expect((await device()).directorKeys()).toEqual([]);
    repository.contents.set(DIRECTOR, Buffer.alloc(honest.length, 0x20));
    expect(await codeOf(client.refresh(signal))).toBe("trust_target_mismatch");
    repository.contents.set(DIRECTOR, honest);
    expect(await codeOf(client.refresh(signal))).toBe("accepted");
    expect(client.directorKeys()).toEqual([publicOf(NEXT)]);
  });

  it("keeps the root that it walked to, though a later step failed", async () => {
    const client = await device();
    repository.rotateKeys("timestamp");
    repository.publish("root");
    expect(await codeOf(client.refresh(signal))).toBe("trust_signature_insufficient");
    mount.forget();
    expect(await codeOf((await device()).refresh(signal))).toBe("trust_signature_insufficient");
    expect(mount.metadata[0]).toEqual(["root", 3]);
  });

  it("heals whatever file of its folder was emptied or cut", async () => {
    await (await device()).refresh(signal);
    repository.publish("timestamp");
    await (await device()).refresh(signal);
    const folder = join(directory, "trust", (await readdir(join(directory, "trust")))[0]!);
    const list = async (): Promise<string[]> =>
      (await readdir(folder, { recursive: true }))
        .filter((name) => /json$|director|index|clock/.test(name))
        .sort();
    const count = (await list()).length;
    expect(count).toBe(14);
    for (let at = 0; at < count; at++) {
      for (const length of [0, 7]) {
        // A harmed generation is replaced at once: the names are others the next time.
        const path = join(folder, (await list())[at]!);
        await truncate(path, length);
        expect(await codeOf((await device()).package("parts", 7, signal)), `${path} of ${length}`).toBe(
          "accepted",
        );
      }
    }
    expect(harmed.length).toBeGreaterThan(4);
    harmed = [];
    await device();
    expect(harmed).toEqual([]);
  });

  it("keeps nothing of another fleet when it is enrolled anew", async () => {
    await (await device()).refresh(signal);
    repository = new TufRepository({ now });
    setDirector(NEXT);
    addPackage("parts", 1);
    repository.publishTargets();
    mount = server.mount(repository);
    enrolledRoot = repository.factoryRoot.toString("utf8");
    const client = await device({ enrolledKeys: [NEXT] });
    expect(client.directorKeys()).toEqual([NEXT]);
    expect(await codeOf(client.package("parts", 1, signal))).toBe("accepted");
  });

  it("serves several lanes at once, one cycle after the other", async () => {
    addPackage("sound", 1);
    repository.publishTargets();
    const client = await device();
    const [parts, sound, unknown] = await Promise.allSettled([
      client.package("parts", 7, signal),
      client.package("sound", 1, signal),
      client.package("sound", 2, signal),
    ]);
    expect([parts.status, sound.status, unknown.status]).toEqual(["fulfilled", "fulfilled", "rejected"]);
  });
});

function publicOf({ keyId, publicKey }: PublicKey): PublicKey {
  return { keyId, publicKey: Uint8Array.from(publicKey) };
}
