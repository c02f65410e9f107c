import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { TRUST_ROLES } from "@fieldloop/protocol";
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { keyIdsOf, rolesOf } from "./documents.js";
import { Killer } from "./faults.test.kit.js";
import type { Signer } from "./signer.js";
import { signRequest } from "./request.js";
import { TestClient, TrustKit } from "./trust.test.kit.js";

/** A repository with a published version, and one whose root and targets keys are elsewhere. */
let plain: TrustKit;
let offline: TrustKit;
const owners: Signer[] = [];

beforeAll(async () => {
  plain = await TrustKit.open();
  await plain.publish("parts", 1);
  await plain.database.close();
  offline = await TrustKit.open();
  await offline.publish("parts", 1);
  for (const role of ["targets", "root"] as const) {
    const { key, signer } = await offline.offlineKey();
    owners.push(signer);
    await offline.ceremony.changeKeys({ role, add: [key], revokeAll: true }, "ann");
    await offline.answer(await offline.ceremony.request({}, "ann"), signer);
  }
  await offline.addVersion("parts", 2);
  await offline.trust.settle();
  await offline.ceremony.request({}, "ann");
  await offline.database.close();
}, 60_000);
afterAll(async () => {
  await plain.close().catch(() => undefined);
  await offline.close().catch(() => undefined);
});

interface Scenario {
  readonly from: () => TrustKit | undefined;
  readonly work: (kit: TrustKit) => Promise<unknown>;
  /** What holds after the next start, whenever the server died; `done` where the work had ended. */
  readonly after?: (kit: TrustKit, done: boolean) => Promise<void>;
}

const SCENARIOS: Record<string, Scenario> = {
  "the first start": { from: () => undefined, work: async () => undefined },
  "publishing a version": {
    from: () => plain,
    work: (kit) => kit.publish("parts", 2),
    after: async (kit) => {
      const client = await kit.client();
      // The registry's row decides: a version that is stored becomes a target, sooner or later.
      const stored = (await kit.trust.view()).awaiting.length;
      expect(stored).toBe(0);
      expect(await client.package("parts", 1)).toMatchObject({ version: 1 });
    },
  },
  "replacing every key that is here": {
    from: () => plain,
    work: async (kit) => {
      for (const role of ["root", "targets", "timestamp"] as const)
        await kit.ceremony.changeKeys({ role, create: 2, revokeAll: true, threshold: 2 }, "ann");
    },
  },
  "a new director key": {
    from: () => plain,
    work: (kit) => kit.ceremony.rotateDirector("ann"),
  },
  renewal: {
    from: () => plain,
    work: (kit) => kit.trust.synchronize("ann", TRUST_ROLES),
  },
  "importing signatures": {
    from: () => offline,
    work: async (kit) =>
      kit.ceremony.importSignatures(await signRequest(await kit.ceremony.openRequest(), [owners[0]!]), "ann"),
    after: async (kit, done) => {
      const { request, awaiting } = await kit.trust.view();
      // Either the request is open still, or its signatures are in force.
      expect(awaiting.length).toBe(request ? 1 : 0);
      if (done) expect(request).toBeNull();
      if (request) await kit.answer(await kit.ceremony.openRequest(), owners[0]!);
      expect(await (await kit.client()).package("parts", 2)).toMatchObject({ version: 2 });
    },
  },
};

describe.each(Object.entries(SCENARIOS))("a kill during %s", (name, { from, work, after }) => {
  it("leaves a repository that devices accept, and the next start ends what was begun", async () => {
    let at = 0;
    for (let done = false; !done; at++) {
      const kit = await TrustKit.unopened(from());
      const killer = new Killer(at);
      try {
        if (from()) await kit.restart();
        const client = from() ? await kit.client() : undefined;
        await client?.refresh();
        await kit
          .restart(killer)
          .then(() => work(kit))
          .catch((error: unknown) => {
            if (!killer.dead) throw error;
          });
        done = !killer.dead;
        // As it was left, before anybody mends it.
        await client?.refresh();
        await kit.restart();
        await settled(kit);
        await after?.(kit, done);
        if (client) await client.refresh();
        await (await kit.client()).director();
      } catch (cause) {
        throw new Error(`${name}, killed at persist point ${at}`, { cause });
      } finally {
        await kit.close();
      }
    }
    expect(at).toBeGreaterThan(3);
  }, 120_000);
});

describe("kill -9", () => {
  it("in the middle of publishing and replacing keys leaves nothing that a device refuses", async () => {
    const folder = await mkdtemp(join(tmpdir(), "fieldloop-killed-"));
    let root: string | undefined;
    try {
      for (const afterMs of [0, 40, 90, 170, 310]) {
        await killChild(folder, afterMs);
        const kit = await TrustKit.unopened({ folder, clock: { time: Date.now() } });
        try {
          await kit.restart();
          await settled(kit);
          root ??= await kit.trust.factoryRoot();
          // A device from the first day walks through all roots.
          const client = await TestClient.make(kit, root);
          await client.refresh();
          const { latest } = (await kit.database.get<{ latest: number | null }>(
            sql`select max(version) as latest from model_versions`,
          ))!;
          if (latest !== null)
            expect(await client.package("parts", latest)).toMatchObject({ version: latest });
        } finally {
          await kit.close();
        }
      }
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }, 120_000);
});

/** Runs the child until it works, and for so long after. */
async function killChild(folder: string, afterMs: number): Promise<void> {
  const program = fileURLToPath(new URL("killed.test.child.js", import.meta.url));
  const child = spawn(process.execPath, [program, folder], { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit");
  await Promise.race([once(child.stdout, "data"), exited]);
  await new Promise((resolve) => setTimeout(resolve, afterMs));
  child.kill("SIGKILL");
  expect((await exited)[1]).toBe("SIGKILL");
}

/** Keys that are here are those that the root names, and the director is the published one. */
async function settled(kit: TrustKit): Promise<void> {
  const roles = rolesOf((await kit.trust.head()).root.metadata.signed);
  const named = new Set(TRUST_ROLES.flatMap((role) => keyIdsOf(roles[role])));
  const here = (await readdir(join(kit.folder, "trust", "keys"))).map((file) => file.slice(0, 64));
  expect(here.filter((keyId) => !named.has(keyId))).toEqual([]);
  const { director, staged } = await kit.trust.view();
  expect(staged).toEqual([]);
  expect(director.next).toBeNull();
  expect(director.published.map(({ keyId }) => keyId)).toContain(director.keyId);
}
