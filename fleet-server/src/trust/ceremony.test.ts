import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import {
  toFieldloopError,
  type ChangeKeysRequest,
  type SigningRequest,
  type TrustKey,
} from "@fieldloop/protocol";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { describeRequest } from "./describe.js";
import { trustKeyId } from "./keys.js";
import { signRequest } from "./request.js";
import type { Signer } from "./signer.js";
import { DAY, TrustKit, type TestClient } from "./trust.test.kit.js";

let kit: TrustKit;
let client: TestClient;
beforeEach(async () => {
  kit = await TrustKit.open();
  client = await kit.client();
  await client.refresh();
});
afterEach(() => kit.close());

interface OfflineKey {
  readonly key: TrustKey;
  readonly signer: Signer;
}

const offlineKeys = (count: number): Promise<OfflineKey[]> =>
  Promise.all(Array.from({ length: count }, () => kit.offlineKey()));
const idsHere = async () =>
  (await readdir(join(kit.folder, "trust", "keys"))).map((name) => name.slice(0, 64));
const keyIdsOf = async (role: string) =>
  (await kit.trust.view()).roles.find((one) => one.role === role)!.keys.map(({ keyId }) => keyId);
const change = (input: ChangeKeysRequest) => kit.ceremony.changeKeys(input, "ann");
const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => "nothing",
    (error: unknown) => toFieldloopError(error).code,
  );

/** Root to three machines of which two must sign; the key that was here is gone afterwards. */
async function moveRootAway(): Promise<OfflineKey[]> {
  const keys = await offlineKeys(3);
  await change({ role: "root", add: keys.map(({ key }) => key), revokeAll: true, threshold: 2 });
  await kit.answer(await kit.ceremony.request({}, "ann"), keys[0]!.signer, keys[1]!.signer);
  return keys;
}

async function moveTargetsAway(count = 2, threshold = 2): Promise<OfflineKey[]> {
  const keys = await offlineKeys(count);
  await change({ role: "targets", add: keys.map(({ key }) => key), revokeAll: true, threshold });
  await kit.answer(
    await kit.ceremony.request({}, "ann"),
    ...keys.slice(0, threshold).map(({ signer }) => signer),
  );
  return keys;
}

describe("root keys", () => {
  it("move to machines of their own, by the threshold of the old and of the new ones", async () => {
    const [old] = await keyIdsOf("root");
    const keys = await offlineKeys(3);
    const add = keys.map(({ key }) => key);
    const staged = await change({ role: "root", add, revokeAll: true, threshold: 2 });
    expect(staged.state).toBe("awaiting_signature");
    expect(staged.view.staged).toHaveLength(5);
    const request = await kit.ceremony.request({}, "ann");
    expect(describeRequest(request).join("\n")).toContain(`root: revokes key ${old}`);

    const first = await kit.answer(request, keys[0]!.signer);
    expect(first.view.request?.missing).toEqual([{ role: "root", of: "new root", have: 1, threshold: 2 }]);
    expect(await client.refresh()).toMatchObject({ root: 1 });

    // A restart in the middle of the ceremony forgets nothing.
    await kit.restart();
    const second = await kit.answer(request, keys[2]!.signer);
    expect(second).toMatchObject({ state: "in_force", view: { request: null, staged: [] } });
    expect(await client.refresh()).toMatchObject({ root: 2 });
    expect(await keyIdsOf("root")).toEqual(add.map(trustKeyId).sort());
    expect(await idsHere()).not.toContain(old);
  });

  it("rotate twice while a device is away, and it follows", async () => {
    let keys = await moveRootAway();
    for (let round = 0; round < 2; round++) {
      const next = await offlineKeys(3);
      await change({ role: "root", add: next.map(({ key }) => key), revokeAll: true });
      const request = await kit.ceremony.request({}, "ann");
      const old = await kit.answer(request, keys[1]!.signer, keys[2]!.signer);
      expect(old.view.request?.missing).toEqual([{ role: "root", of: "new root", have: 0, threshold: 2 }]);
      await kit.answer(request, next[0]!.signer, next[2]!.signer);
      keys = next;
      kit.pass(120 * DAY);
      await kit.trust.tick();
    }
    expect(await client.refresh()).toMatchObject({ root: 4 });
  });

  it("replace a lost key by the others", async () => {
    const [lost, ...left] = await moveRootAway();
    const fresh = await kit.offlineKey();
    await change({ role: "root", add: [fresh.key], revoke: [trustKeyId(lost!.key)] });
    const request = await kit.ceremony.request({}, "ann");
    expect(await codeOf(signRequest(request, [(await kit.offlineKey()).signer]))).toBe(
      "trust_signature_insufficient",
    );
    const outcome = await kit.answer(request, ...left.map(({ signer }) => signer));
    expect(outcome.state).toBe("in_force");
    expect(await client.refresh()).toMatchObject({ root: 3 });
  });

  it("replace online keys that were lost, even after everything of theirs has expired", async () => {
    const keys = await moveRootAway();
    for (const role of ["snapshot", "timestamp"]) {
      for (const keyId of await keyIdsOf(role))
        await rm(join(kit.folder, "trust", "keys", `${keyId}.key.json`));
    }
    expect((await kit.trust.view()).warnings.map(({ code }) => code)).toEqual(
      Array.from({ length: 2 }, () => "trust_key_unavailable"),
    );
    kit.pass(10 * DAY);
    await kit.restart();
    await kit.publish("parts", 1);
    await change({ role: "snapshot", create: 1, revokeAll: true });
    await change({ role: "timestamp", create: 1, revokeAll: true });
    await kit.answer(await kit.ceremony.request({}, "ann"), keys[0]!.signer, keys[1]!.signer);
    expect(await client.package("parts", 1)).toMatchObject({ version: 1 });
    expect((await kit.trust.view()).warnings).toEqual([]);
  });

  it("decide over every other role", async () => {
    const keys = await moveRootAway();
    const before = await keyIdsOf("timestamp");
    await change({ role: "timestamp", create: 1, revokeAll: true });
    await change({ role: "snapshot", create: 1, revokeAll: true });
    expect(await keyIdsOf("timestamp")).toEqual(before);
    await kit.answer(await kit.ceremony.request({}, "ann"), keys[0]!.signer, keys[1]!.signer);
    expect(await keyIdsOf("timestamp")).not.toEqual(before);
    // What a client knew was signed by keys that are gone: it takes the new ones, as after a theft of the online keys.
    expect(await client.refresh()).toMatchObject({ root: 3, snapshot: 2, timestamp: 2 });
    expect(await idsHere()).not.toContain(before[0]);
  });
});

describe("keys that are here", () => {
  it.each(["root", "targets", "snapshot", "timestamp"] as const)(
    "of %s are replaced at once",
    async (role) => {
      await kit.publish("parts", 1);
      const before = await keyIdsOf(role);
      expect((await change({ role, create: 2, revokeAll: true, threshold: 2 })).state).toBe("in_force");
      expect(await keyIdsOf(role)).not.toContain(before[0]);
      expect(await client.package("parts", 1)).toMatchObject({ version: 1 });
      expect(await idsHere()).toHaveLength(5);
      await kit.publish("parts", 2);
      expect(await client.package("parts", 2)).toMatchObject({ version: 2 });
    },
  );

  it("of the director are replaced once devices can know them", async () => {
    const before = kit.director.current.keyId;
    expect((await kit.ceremony.rotateDirector("ann")).state).toBe("in_force");
    expect(kit.director.current.keyId).not.toBe(before);
    expect((await client.director()).keys).toMatchObject([{ keyId: kit.director.current.keyId }]);
    await kit.restart();
    expect(kit.director.next).toBeUndefined();
  });
});

describe("targets keys elsewhere", () => {
  it("let nobody install what they have not signed", async () => {
    const [first, second] = await moveTargetsAway();
    await kit.publish("parts", 1);
    expect(await client.package("parts", 1)).toBeUndefined();
    expect((await kit.trust.view()).awaiting).toEqual([{ model: "parts", version: 1 }]);
    const request = await kit.ceremony.request({}, "ann");
    expect(describeRequest(request)).toContainEqual(expect.stringContaining("adds parts@1"));
    await kit.answer(request, first!.signer);
    expect(await client.package("parts", 1)).toBeUndefined();
    await kit.answer(request, second!.signer);
    expect(await client.package("parts", 1)).toMatchObject({ version: 1 });
    expect((await kit.trust.view()).awaiting).toEqual([]);
  });

  it("sign what they saw: what is published meanwhile waits for the next request", async () => {
    const keys = await moveTargetsAway();
    const signers = keys.map(({ signer }) => signer);
    await kit.publish("parts", 1);
    const request = await kit.ceremony.request({}, "ann");
    await kit.publish("parts", 2);
    expect(await kit.ceremony.request({}, "ann")).toEqual(request);
    await kit.answer(request, ...signers);
    expect(await client.package("parts", 1)).toMatchObject({ version: 1 });
    expect(await client.package("parts", 2)).toBeUndefined();
    await kit.answer(await kit.ceremony.request({}, "ann"), ...signers);
    expect(await client.package("parts", 2)).toMatchObject({ version: 2 });
  });

  it("decide who directs", async () => {
    const keys = await moveTargetsAway();
    const before = kit.director.current.keyId;
    expect((await kit.ceremony.rotateDirector("ann")).state).toBe("awaiting_signature");
    expect(kit.director.current.keyId).toBe(before);
    await kit.answer(await kit.ceremony.request({}, "ann"), ...keys.map(({ signer }) => signer));
    expect(kit.director.current.keyId).not.toBe(before);
    expect((await client.director()).keys[0]!.keyId).toBe(kit.director.current.keyId);
  });

  it("are asked before their metadata expire, and devices go on when they have answered", async () => {
    const keys = await moveTargetsAway();
    kit.pass(130 * DAY);
    await kit.trust.tick();
    expect((await kit.trust.view()).warnings).toMatchObject([{ code: "trust_renewal_due" }]);
    kit.pass(60 * DAY);
    await kit.trust.tick();
    expect((await kit.trust.view()).warnings).toMatchObject([{ code: "trust_metadata_expired" }]);
    await expect(client.refresh()).rejects.toThrow(/expired/);
    await kit.answer(await kit.ceremony.request({}, "ann"), ...keys.map(({ signer }) => signer));
    expect((await kit.trust.view()).warnings).toEqual([]);
    expect(await client.refresh()).toMatchObject({ targets: 3 });
  });

  it("renew early when they are asked to", async () => {
    const [key] = await moveTargetsAway(2, 1);
    expect(await codeOf(kit.ceremony.request({}, "ann"))).toBe("conflict");
    expect((await kit.ceremony.renew(["targets", "timestamp"], "ann")).detail).toContain("--renew targets");
    const request = await kit.ceremony.request({ renew: ["targets"] }, "ann");
    expect((await kit.answer(request, key!.signer)).state).toBe("in_force");
    expect(await client.refresh()).toMatchObject({ targets: 3 });
  });

  it("are no hindrance where root changes without them", async () => {
    const targets = await moveTargetsAway();
    const root = await moveRootAway();
    await kit.publish("parts", 1);
    await change({ role: "snapshot", create: 1, revokeAll: true });
    const request = await kit.ceremony.request({ only: "targets" }, "ann");
    expect(request.documents.map(({ role }) => role)).toEqual(["targets"]);
    await kit.answer(request, ...targets.map(({ signer }) => signer));
    expect(await client.package("parts", 1)).toMatchObject({ version: 1 });
    const next = await kit.ceremony.request({}, "ann");
    expect(next.documents.map(({ role }) => role)).toEqual(["root"]);
    await kit.answer(next, root[0]!.signer, root[2]!.signer);
    expect(await client.package("parts", 1)).toMatchObject({ version: 1 });
  });
});

describe("what is refused", () => {
  const unknown = "0".repeat(64);
  it.each<[string, (own: TrustKey[]) => ChangeKeysRequest, string]>([
    ["a threshold above the keys", () => ({ role: "root", threshold: 2 }), "invalid_argument"],
    ["the last key revoked", () => ({ role: "targets", revokeAll: true }), "invalid_argument"],
    ["a key that is not the role's", () => ({ role: "root", revoke: [unknown] }), "invalid_argument"],
    ["a key of another role", ([root]) => ({ role: "targets", add: [root!] }), "invalid_argument"],
    ["more keys than a device reads", () => ({ role: "root", create: 16 }), "invalid_argument"],
    [
      "online keys that are not here",
      ([, fresh]) => ({ role: "timestamp", add: [fresh!], revokeAll: true }),
      "trust_key_unavailable",
    ],
    [
      "an online threshold beyond what is here",
      ([, fresh]) => ({ role: "snapshot", add: [fresh!], threshold: 2 }),
      "trust_key_unavailable",
    ],
  ])("%s", async (_, input, code) => {
    const { root } = (await kit.trust.head()).root.metadata.signed.roles;
    const rootKey = (await kit.ring.signers()).get(root!.keyIDs[0]!)!.key;
    const before = await kit.trust.view();
    expect(await codeOf(change(input([rootKey, (await kit.offlineKey()).key])))).toBe(code);
    expect(await kit.trust.view()).toEqual(before);
    expect(await idsHere()).toHaveLength(4);
  });

  it("a change of keys while their owners are asked, until the request is withdrawn", async () => {
    await moveRootAway();
    await change({ role: "targets", create: 1 });
    await kit.ceremony.request({}, "ann");
    expect(await codeOf(change({ role: "targets", create: 1 }))).toBe("conflict");
    const { view } = await kit.ceremony.withdraw("ann");
    expect(view).toMatchObject({ request: null, staged: [] });
    expect(await idsHere()).toHaveLength(3);
    expect((await change({ role: "targets", create: 1 })).state).toBe("awaiting_signature");
  });

  it("signatures for another request, another document or by another key", async () => {
    const keys = await moveTargetsAway();
    await kit.publish("parts", 1);
    const old = await kit.ceremony.request({}, "ann");
    const signed = await signRequest(old, [keys[0]!.signer]);
    const request = await kit.ceremony.request({ replace: true, renew: ["targets"] }, "ann");
    kit.pass(1_000);
    const replaced = await kit.ceremony.request({ replace: true }, "ann");
    const offer = (file: typeof signed) => codeOf(kit.ceremony.importSignatures(file, "eve"));
    expect(await offer(signed)).toBe("trust_request_stale");
    expect(await offer({ ...signed, request: request.request })).toBe("trust_request_stale");
    const own = await signRequest(replaced, [keys[0]!.signer]);
    const [line] = own.signatures;
    expect(await offer({ ...own, signatures: [{ ...line!, sha256: unknown }] })).toBe(
      "trust_signature_insufficient",
    );
    expect(await offer({ ...own, signatures: [{ ...line!, keyId: unknown }] })).toBe(
      "trust_signature_insufficient",
    );
    expect(await offer({ ...own, signatures: [{ ...line!, signature: "00".repeat(64) }] })).toBe(
      "trust_signature_insufficient",
    );
    expect(await offer(own)).toBe("nothing");
  });

  it.each<[string, (request: SigningRequest) => void]>([
    [
      "another expiry than announced",
      ({ documents }) => (documents[0]!.signed["expires"] = "2099-01-01T00:00:00Z"),
    ],
    ["another hash than its own", ({ documents }) => (documents[0]!.sha256 = unknown)],
    ["another version", ({ documents }) => (documents[0]!.version += 1)],
    ["no targets at all", ({ documents }) => (documents[0]!.signed["targets"] = [])],
  ])("to sign a request that says %s", async (_, spoil) => {
    const [key] = await moveTargetsAway();
    await kit.publish("parts", 1);
    const request = structuredClone(await kit.ceremony.request({}, "ann"));
    spoil(request);
    expect(await codeOf(signRequest(request, [key!.signer]))).toBe("trust_metadata_malformed");
    expect(() => describeRequest(request)).toThrow(/signing request|not of their form/);
  });

  it("a request that nobody answered is closed after its time", async () => {
    const [key] = await moveTargetsAway(1, 1);
    await kit.publish("parts", 1);
    const request = await kit.ceremony.request({}, "ann");
    kit.pass(31 * DAY);
    await kit.trust.tick();
    expect(await codeOf(kit.answer(request, key!.signer))).toBe("trust_request_stale");
    await kit.answer(await kit.ceremony.request({}, "ann"), key!.signer);
    expect(await client.package("parts", 1)).toMatchObject({ version: 1 });
  });
});
