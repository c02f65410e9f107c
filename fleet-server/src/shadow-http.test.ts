import { createHash } from "node:crypto";
import {
  encodeMessage,
  type Page,
  type SampleMetadata,
  type SampleView,
  type ShadowView,
} from "@fieldloop/protocol";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DeploymentStore } from "./store/deployments.js";
import { enrol, startTestServer, TestDevice, until, type TestServer } from "./kit.test.support.js";
import { openSqlite } from "./store/sqlite.js";
import { join } from "node:path";

const HASH = "ab".repeat(32);
let server: TestServer;
let device: TestDevice;
beforeAll(async () => {
  server = await startTestServer();
  device = await TestDevice.connect(server, await enrol(server, "cam-1"));
  const database = openSqlite(join(server.dataDir, "fieldloop.db"));
  const record = {
    deployment: "dep_1",
    device: "cam-1",
    rollout: null,
    model: "parts",
    version: 2,
    packageSha256: HASH,
  };
  await new DeploymentStore(database).insert(database, record, 1);
  await database.close();
});
afterAll(async () => {
  await device.end();
  await server.end();
});

/** A sample of which the candidate said something, as a device sends it. */
async function sample(seq: number, label: string, candidate: string, disagreement: number): Promise<string> {
  const payload = Uint8Array.of(seq);
  const id = `smp_${String(seq).padStart(8, "0")}`;
  const metadata: SampleMetadata = {
    ...{
      predictionBoot: 1,
      n: seq,
      time: seq,
      model: "parts",
      version: 1,
      packageSha256: HASH,
      variant: "fp32",
    },
    ...{ stratum: "worth", probability: 1, worth: 0.5, class: 0, label, confidence: 0.8, latencyMs: 2 },
    signals: { disagreement },
    ...{ mediaType: "image/png", bytes: 1, source: "test" },
    sha256: createHash("sha256").update(payload).digest("hex"),
    context: { shadow: { deployment: "dep_1", version: 2, label: candidate, confidence: 0.6 } },
  };
  const message = { boot: 1, seq, prev: seq - 1, sample: id, part: 0, parts: 1, metadata, payload };
  await device.publish("sample", encodeMessage("sample", message));
  return id;
}

describe("a shadow over HTTP", () => {
  it("is told by the device, labelled by people, and read by whoever decides", async () => {
    const path = "/api/v1/deployments/dep_1/shadow";
    expect(await server.api.refused("GET", path)).toEqual([404, "not_found"]);
    expect(await server.api.as(undefined).refused("GET", path)).toEqual([401, "unauthenticated"]);
    await device.event(1, {
      ...{ type: "shadow", deployment: "dep_1", model: "parts", version: 2, packageSha256: HASH },
      against: { version: 1, packageSha256: HASH },
      ...{ from: 5, to: 65_005, frames: 900, compared: 300, skipped: 598, failed: 2, disagreements: 30 },
      ...{ candidateMeanMs: 6, activeMeanMs: 4, cpuShare: 0.08, classFlips: [["nut", "screw", 30]] },
    });
    await sample(1, "nut", "screw", 0.9);
    await sample(2, "nut", "screw", 0.8);
    await sample(3, "nut", "nut", 0.1);
    await until("all is stored", () => device.acked("sample") === 3 && device.acked("event") === 1);

    const disagreements = await server.api.ok<Page<SampleView>>("GET", "/api/v1/samples?shadow=dep_1");
    expect(disagreements.items.map((each) => each.sample).sort()).toEqual(["smp_00000001", "smp_00000002"]);
    expect(disagreements.items[0]!.shadow).toMatchObject({ version: 2, label: "screw", confidence: 0.6 });
    await server.api.ok("POST", "/api/v1/samples/smp_00000001/annotations", { label: "screw" });
    await server.api.ok("POST", "/api/v1/samples/smp_00000003/annotations", { label: "nut" });

    expect(await server.api.ok<ShadowView>("GET", path)).toEqual({
      ...{ deployment: "dep_1", device: "cam-1", rollout: null, model: "parts", version: 2 },
      against: { version: 1, packageSha256: HASH },
      ...{ from: 5, to: 65_005, frames: 900, compared: 300, skipped: 598, failed: 2, disagreements: 30 },
      ...{ candidateMeanMs: 6, activeMeanMs: 4, cpuShare: 0.08 },
      classFlips: [{ active: "nut", candidate: "screw", count: 30 }],
      labelled: { bothRight: 0, onlyActiveRight: 0, onlyCandidateRight: 1, bothWrong: 0 },
      samples: { disagreements: 2, unlabelled: 1 },
    });
    const events = await server.api.ok<Page<{ type: string }>>(
      "GET",
      "/api/v1/devices/cam-1/events?type=shadow",
    );
    expect(events.items).toHaveLength(1);
  });
});
