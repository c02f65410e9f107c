import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ServerHandle } from "@fieldloop/fleet-server";
import type { TrustOutcome, TrustView } from "@fieldloop/protocol";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { runHere, startServerHere, type Outcome } from "../testing/command-line.test.kit.js";

let dir: string;
let server: ServerHandle;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fieldloop-cli-keys-"));
  server = await startServerHere(join(dir, "data"));
  await writeFile(at("passphrase"), "correct horse battery\n");
}, 60_000);
afterAll(async () => {
  vi.unstubAllEnvs();
  await server.stop();
  await rm(dir, { recursive: true, force: true });
});

const at = (name: string): string => join(dir, name);

/** Runs one command line in this process. */
const keys = (...args: readonly string[]): Promise<Outcome> => runHere("keys", ...args);

async function json<Result>(...args: string[]): Promise<Result> {
  const { code, out, err } = await keys(...args, "--json");
  if (code !== 0) throw new Error(err);
  return JSON.parse(out) as Result;
}

const view = () => json<TrustView>("status");
const roleOf = async (role: string) => (await view()).roles.find((one) => one.role === role)!;

describe("fieldloop keys", () => {
  it("makes keys whose private halves only their owner can read, and never over another", async () => {
    for (const name of ["ann", "bob", "eve"]) {
      const made = await json<{ keyId: string }>(
        ...["init", "--out", at(`${name}.key`), "--passphrase-file", at("passphrase")],
      );
      expect(made.keyId).toMatch(/^[0-9a-f]{64}$/);
      expect((await stat(at(`${name}.key`))).mode & 0o777).toBe(0o600);
    }
    const again = await keys("init", "--out", at("ann.key"), "--plain");
    expect(again).toMatchObject({ code: 1, err: expect.stringContaining("already_exists") });
  }, 60_000);

  it("moves root to three people of whom two sign, without their keys ever being here", async () => {
    const publics = ["ann", "bob", "eve"].map((name) => at(`${name}.key.pub.json`));
    const staged = await json<TrustOutcome>("rotate", "root", "--key", ...publics, "--threshold", "2");
    expect(staged.state).toBe("awaiting_signature");
    const request = await keys("request", "--out", at("request.json"));
    expect(request.err).toContain("root: signed by 2 of 3, was 1 of 1");
    expect(request.err).toContain("root wants 2 more of the keys of new root");

    const sign = (name: string) => [
      ...["sign", at("request.json"), "--key", at(`${name}.key`), "--out", at(`${name}.sig`)],
      ...["--passphrase-file", at("passphrase")],
    ];
    expect(await keys(...sign("ann"))).toMatchObject({
      code: 1,
      err: expect.stringContaining("not confirmed"),
    });
    const signed = await keys(...sign("ann"), "--yes");
    expect(signed.err).toContain("root 2 (in force: 1)");
    expect((await json<TrustOutcome>("import", at("ann.sig"))).state).toBe("awaiting_signature");
    expect((await keys("status")).err).toContain("root has 1 of 2 signatures by new root");
    await keys(...sign("eve"), "--yes");
    expect((await json<TrustOutcome>("import", at("eve.sig"))).state).toBe("in_force");
    expect(await roleOf("root")).toMatchObject({ version: 2, threshold: 2, online: false });
    // Both the key that was here and the signatures are of no use any more.
    expect(await readdir(join(dir, "data", "trust", "keys"))).toHaveLength(3);
    expect(await keys("import", at("ann.sig"))).toMatchObject({
      code: 1,
      err: expect.stringContaining("trust_request_stale"),
    });
  }, 60_000);

  it("stages, shows and drops a change that waits for the root keys", async () => {
    const [key] = (await roleOf("targets")).keys;
    await keys("add", "targets");
    await keys("revoke", "targets", key!.keyId.slice(0, 10));
    expect((await keys("status")).err).toContain(`targets: revokes key ${key!.keyId}`);
    const dropped = await json<TrustOutcome>("request", "--withdraw");
    expect(dropped.view).toMatchObject({ staged: [], request: null });
  });

  it("replaces the director, renews what is here, and says whom to ask for the rest", async () => {
    const before = (await view()).director.keyId;
    const rotated = await json<TrustOutcome>("rotate", "director");
    expect(rotated.view.director.keyId).not.toBe(before);
    expect((await json<TrustOutcome>("renew", "targets", "timestamp")).state).toBe("in_force");
    expect((await keys("renew")).err).toContain("The keys of root are not here");
    expect((await keys("status")).out).toContain("2 of 3");
  });

  it("exports every root, and the newest for devices that are set up without a network", async () => {
    await keys("export", "--out", at("mirror"));
    const names = await readdir(at("mirror"));
    expect(names).toEqual(
      expect.arrayContaining(["1.root.json", "2.root.json", "root.json", "timestamp.json"]),
    );
    expect(await readFile(at("mirror/root.json"), "utf8")).toBe(
      await readFile(at("mirror/2.root.json"), "utf8"),
    );
  });

  it.each<[string[], number, string]>([
    [["add", "director", "--key", "x"], 2, "none of root, targets"],
    [["add", "root", "--key", "/nonexistent"], 1, "not_found"],
    [["rotate", "nobody"], 2, "timestamp, director"],
    [["rotate", "director", "--threshold", "2"], 2, "neither --key nor --threshold"],
    [["revoke", "root", "00000000"], 2, "fits 0 of its keys"],
    [["revoke", "root"], 2, "missing required argument"],
    [["threshold", "root", "4"], 2, "cannot reach a threshold of 4"],
    [["threshold", "root", "none"], 2, "no count"],
    [["request", "--only", "snapshot"], 2, "neither root nor targets"],
    [["request"], 1, "nothing waits for a signature"],
    [["import", "/nonexistent"], 1, "not_found"],
    [["init", "--out", "/nonexistent/x", "--plain"], 1, "storage_failed"],
    [["init", "--out", "x", "--public-key", "y"], 2, "belong together"],
    [["sign", "/nonexistent", "--key", "x", "--out", "y"], 1, "not_found"],
    [["renew", "director"], 2, "none of root, targets"],
  ])("%j exits with %i", async (args, code, text) => {
    const outcome = await keys(...args);
    expect(outcome.err).toContain(text);
    expect(outcome.code).toBe(code);
  });

  it("does not take a private key for a public one, nor a request for signatures", async () => {
    expect(await keys("add", "root", "--key", at("ann.key"))).toMatchObject({
      code: 2,
      err: expect.stringContaining("private ones never leave their machine"),
    });
    expect(await keys("import", at("request.json"))).toMatchObject({
      code: 2,
      err: expect.stringContaining("invalid_argument"),
    });
    const wrong = [
      "sign",
      at("request.json"),
      "--key",
      at("ann.key.pub.json"),
      "--out",
      at("x.sig"),
      "--yes",
    ];
    expect(await keys(...wrong)).toMatchObject({
      code: 1,
      err: expect.stringContaining("not a private key file"),
    });
  });

  it("has help for each of its commands", async () => {
    const { out } = await keys("--help");
    const names = [...out.matchAll(/^ {2}([a-z-]+)(?: |$)/gm)].map(([, name]) => name!);
    expect(names).toEqual(
      expect.arrayContaining([
        "init",
        "status",
        "add",
        "rotate",
        "revoke",
        "request",
        "sign",
        "import",
        "renew",
        "export",
      ]),
    );
    for (const name of names.filter((one) => one !== "help")) {
      expect((await keys(name, "--help")).out).toContain("--json");
    }
  });
});
