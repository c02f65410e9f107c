import { FieldloopError, LIMITS } from "@fieldloop/protocol";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "../../clock.js";
import { aliasOf, makeTufKey } from "../../testing/tuf-keys.test.kit.js";
import { TufRepository } from "../../testing/tuf-repository.test.kit.js";
import { type Mount, TufServer } from "../../testing/tuf-server.test.kit.js";
import { httpFetch } from "../http-fetch.js";
import { checkRoot, Engine, fileNameOf } from "./engine.js";
import { TrustFetcher } from "./trust-fetcher.js";

const server = new TufServer();
let repository: TufRepository;
let mount: Mount;
let files: Map<string, Buffer>;

beforeAll(() => server.start());
afterAll(() => server.stop());
beforeEach(() => {
  repository = new TufRepository();
  mount = server.mount(repository);
  files = new Map([["root.json", repository.factoryRoot]]);
});

function engine(reference = Date.now(), delegationsMax = 32): Engine {
  return new Engine({
    files,
    metadataUrl: mount.metadataUrl,
    reference,
    delegationsMax,
    fetcher: (onFailure) =>
      new TrustFetcher(
        { fetch: httpFetch, clock: systemClock, random: () => 0, signal: AbortSignal.timeout(10_000) },
        onFailure,
      ),
  });
}

async function codeOf(work: () => Promise<unknown>): Promise<string> {
  try {
    await work();
  } catch (error) {
    if (error instanceof FieldloopError) return error.code;
    throw error;
  }
  return "accepted";
}

describe("engine", () => {
  it("knows this very version of tuf-js: its shape is that of 5.0.1", async () => {
    const path = createRequire(import.meta.url).resolve("tuf-js/package.json");
    expect((JSON.parse(readFileSync(path, "utf8")) as { version: string }).version).toBe("5.0.1");
    const first = engine();
    await first.refresh();
    // Each hook was called: what is trusted lies in memory, judged by our time.
    expect([...files.keys()].sort()).toEqual([
      "root.json",
      "snapshot.json",
      "targets.json",
      "timestamp.json",
    ]);
    expect(files.get("targets.json")).toEqual(repository.file("targets"));
    expect(first.versions()).toEqual({ root: 1, timestamp: 1, snapshot: 1, targets: 1 });
    expect(new Date(first.expires).toISOString()).toBe(repository.expiry.replace("Z", ".000Z"));
    expect(await codeOf(() => engine(first.expires).refresh())).toBe("trust_metadata_expired");
    expect(await codeOf(() => engine(first.expires - 1_000).refresh())).toBe("accepted");
  });

  it("asks for nothing again that it has", async () => {
    await engine().refresh();
    mount.forget();
    await engine().refresh();
    expect(mount.metadata).toEqual([
      ["root", 2],
      ["timestamp", null],
    ]);
  });

  it("asks the delegator in hand about a role that it has from another delegator", async () => {
    const trusted = makeTufKey();
    repository.delegate("targets", "a", { paths: ["a-*"] });
    repository.delegate("targets", "b", { paths: ["b-*"] });
    repository.delegate("a", "shared", { paths: ["*"], keys: [trusted] });
    // B trusts another key for the same role.
    repository.delegate("b", "shared", { paths: ["*"] });
    repository.signers.set("shared", [trusted]);
    repository.addTarget("shared", "a-file", "a");
    repository.addTarget("shared", "b-file", "b");
    repository.publishTargets("shared", "a", "b");
    const made = engine();
    await made.refresh();
    expect((await made.target("a-file"))?.length).toBe(1);
    expect(await codeOf(() => made.target("b-file"))).toBe("trust_signature_insufficient");
  });

  it("hears only the top-level targets role where no delegation is allowed", async () => {
    repository.delegate("targets", "a");
    repository.addTarget("a", "file", "content");
    repository.addTarget("targets", "own", "content");
    repository.publishTargets("a");
    mount.forget();
    const made = engine(Date.now(), 0);
    await made.refresh();
    expect(await made.target("file")).toBeUndefined();
    expect((await made.target("own"))?.path).toBe("own");
    expect(mount.metadata.map(([role]) => role)).not.toContain("a");
  });

  it("finds no target called as every object's properties are", async () => {
    const made = engine();
    for (const name of ["constructor", "__proto__", "toString"])
      expect(await made.target(name)).toBeUndefined();
  });

  it("names roles in files so that none leaves its folder", () => {
    expect(["../a", "?", "a/b", "."].map(fileNameOf)).toEqual([
      "..%2Fa.json",
      "%3F.json",
      "a%2Fb.json",
      "..json",
    ]);
  });

  const CARELESS: [what: string, role: string, change: () => void][] = [
    ["an expiry that is no date", "timestamp", () => (repository.timestamp.expires = "never")],
    ["an expiry with a fraction", "targets", () => (repository.targets.expires = "2030-01-01T00:00:00.5Z")],
    ["a thirteenth month", "snapshot", () => (repository.snapshot.expires = "2030-13-01T00:00:00Z")],
    ["a version too large to count", "timestamp", () => (repository.timestamp.version = 2 ** 31)],
    ["a version of zero", "snapshot", () => (repository.snapshot.version = -1)],
    ["a target without a hash", "targets", () => (repository.addTarget("targets", "a", "a").hashes = {})],
    [
      "a target with a broken hash only",
      "targets",
      () => (repository.addTarget("targets", "a", "a").hashes = { md5: "0cc175b9c0f1b6a831c399e269772661" }),
    ],
    ["a negative length", "targets", () => (repository.addTarget("targets", "a", "a").length = -1)],
    ["a threshold of zero", "root", () => (repository.root.roles["targets"]!.threshold = 0)],
    ["more keys than a role may have", "root", () => addKeys(LIMITS.trustKeysPerRoleMax)],
    [
      "one public key under two ids",
      "root",
      () => {
        const key = repository.signers.get("targets")![0]!;
        repository.listKey("targets", aliasOf(key, "f".repeat(64)));
      },
    ],
    ["a role with the name of a property", "targets", () => repository.delegate("targets", "constructor")],
    ["a role with an endless name", "targets", () => repository.delegate("targets", "r".repeat(300))],
    [
      "two delegations to one role",
      "targets",
      () => {
        repository.delegate("targets", "a");
        repository.delegate("targets", "a");
      },
    ],
  ];
  it.each(CARELESS)("refuses %s though it is signed well", async (_what, role, change) => {
    change();
    repository.publish("root", ...repository.delegated.keys(), "targets", "snapshot", "timestamp");
    expect(await codeOf(() => engine().refresh())).toBe("trust_metadata_malformed");
    expect(files.has("targets.json")).toBe(false);
    expect(files.has(fileNameOf(role))).toBe(role === "root");
  });

  it("refuses what is no JSON, and no UTF-8", async () => {
    for (const bytes of [Buffer.from("{"), Buffer.alloc(0), Buffer.from([0x7b, 0xff, 0x7d])]) {
      repository.files.set("timestamp.json", bytes);
      expect(await codeOf(() => engine().refresh())).toBe("trust_metadata_malformed");
    }
  });

  it("checks a root by itself: readable, and signed by the keys that it names", () => {
    checkRoot(repository.factoryRoot);
    expect(() => checkRoot(Buffer.from("{}"))).toThrow(/Read "root"/);
    repository.signers.set("root", [makeTufKey()]);
    expect(() => checkRoot(repository.serialize("root"))).toThrow(/signed by 0\/1 keys/);
  });
});

function addKeys(count: number): void {
  for (let index = 0; index < count; index++) repository.addKey("timestamp");
}
