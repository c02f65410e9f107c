import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { DAY, TrustKit } from "./trust.test.kit.js";

let kit: TrustKit;
beforeEach(async () => {
  kit = await TrustKit.open();
});
afterEach(() => kit.close());

const keyFiles = () => readdir(join(kit.folder, "trust", "keys"));

describe("the first start", () => {
  it("makes a whole repository that a client accepts", async () => {
    const client = await kit.client();
    expect(await client.refresh()).toEqual({ root: 1, timestamp: 1, snapshot: 1, targets: 1 });
    expect((await client.director()).keys.map(({ keyId }) => keyId)).toEqual([kit.director.current.keyId]);
    expect(await keyFiles()).toHaveLength(4);
  });

  it("is not repeated by the next", async () => {
    const root = await kit.trust.factoryRoot();
    await kit.restart();
    expect(await kit.trust.factoryRoot()).toBe(root);
    expect(await keyFiles()).toHaveLength(4);
  });
});

describe("publishing", () => {
  it("makes a version a target, with its evidence", async () => {
    const client = await kit.client();
    expect(await client.package("parts", 1)).toBeUndefined();
    const packageSha256 = await kit.publish("parts", 1);
    expect(await client.package("parts", 1)).toEqual({
      model: "parts",
      version: 1,
      packageSha256,
      deviceClasses: null,
      evidence: { evaluation: null, verdict: "none" },
    });
    expect(await client.versions()).toEqual({ root: 1, timestamp: 2, snapshot: 2, targets: 2 });
  });

  it("changes nothing where nothing is new", async () => {
    await kit.publish("parts", 1);
    const client = await kit.client();
    const before = await client.refresh();
    await kit.trust.settle();
    await kit.restart();
    expect(await client.refresh()).toEqual(before);
  });
});

describe("renewal", () => {
  it("keeps every role fresh while the server runs", async () => {
    const client = await kit.client();
    for (let step = 0; step < 60; step++) {
      kit.pass(DAY / 8);
      await kit.trust.tick();
      await client.refresh();
    }
    // A timestamp every half day, a snapshot every three days.
    expect(await client.versions()).toEqual({ root: 1, timestamp: 16, snapshot: 3, targets: 1 });
  });

  it("brings everything back after the server was off for two years", async () => {
    const client = await kit.client();
    await kit.publish("parts", 1);
    await client.refresh();
    for (const months of [4, 8, 12]) {
      kit.pass(months * 30 * DAY);
      await kit.restart();
      expect(await client.package("parts", 1)).toMatchObject({ model: "parts" });
    }
    expect(await client.versions()).toMatchObject({ root: 3, targets: 5 });
  });
});
