import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  decodeMessage,
  DESIRED_TYPE,
  fromHex,
  manifestFiles,
  packageTargetPath,
  verify,
  type EnrolResponse,
  type ModelVersion,
  type SigningRequest,
  type TrustOutcome,
  type TrustView,
} from "@fieldloop/protocol";
import type { ModelPackage } from "@fieldloop/runtime/node";
import { Updater, BaseFetcher } from "tuf-js";
import { DownloadHTTPError } from "tuf-js/dist/error.js";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { enrol, startTestServer, TestDevice, until, type TestServer } from "../kit.test.support.js";
import { makeTinyPackage } from "../training/tiny-package.test.kit.js";
import { createKeyFile, openKeyFile } from "./key-file.js";
import { signRequest } from "./request.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let server: TestServer;
let folder: string;
let pkg: ModelPackage;
let identity: EnrolResponse;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "fieldloop-trust-http-"));
  pkg = await makeTinyPackage(join(folder, "package"));
  server = await startTestServer();
  identity = await enrol(server, "cam-1");
  await writeFile(join(folder, "root.json"), identity.root);
  for (const { file, sha256 } of manifestFiles(pkg.manifest))
    await upload(await readFile(join(pkg.dir, file)), sha256);
  await upload(pkg.manifestBytes, pkg.packageSha256);
});
afterAll(async () => {
  await server?.end();
  await rm(folder, { recursive: true, force: true });
});

async function upload(bytes: Uint8Array, sha256: string): Promise<void> {
  const response = await server.api.send("PUT", `/api/v1/artifacts/sha256/${sha256}`, bytes, {
    "content-type": "application/octet-stream",
  });
  if (!response.ok) throw new Error(`upload: ${response.status}`);
}

/** As a device fetches: with its own credential. */
class DeviceFetcher extends BaseFetcher {
  override async fetch(url: string): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> {
    const response = await fetch(url, { headers: { authorization: `Bearer ${identity.credential}` } });
    if (!response.ok || !response.body) throw new DownloadHTTPError(url, response.status);
    return response.body as ReadableStream<Uint8Array<ArrayBuffer>>;
  }
}

const updater = () =>
  new Updater({
    metadataDir: folder,
    metadataBaseUrl: `${server.httpUrl}/tuf/metadata`,
    targetDir: folder,
    targetBaseUrl: `${server.httpUrl}/tuf/targets`,
    fetcher: new DeviceFetcher(),
  });

const publish = (body: object = {}) =>
  server.api.ok<ModelVersion>("POST", "/api/v1/models/shapes/versions", {
    manifestSha256: pkg.packageSha256,
    ...body,
  });

describe("trust over HTTP", () => {
  it("goes from an enrolment to a package, and waits where the targets keys are elsewhere", async () => {
    await updater().refresh();
    const file = await createKeyFile({ randomBytes: (length) => new Uint8Array(randomBytes(length)) });
    const signer = await openKeyFile(file, undefined);
    const moved = await server.api.ok<TrustOutcome>("POST", "/api/v1/trust/keys", {
      role: "targets",
      add: [file.key],
      revokeAll: true,
    });
    expect(moved.state).toBe("awaiting_signature");
    const answer = async (): Promise<TrustOutcome> => {
      const request = await server.api.ok<SigningRequest>("POST", "/api/v1/trust/requests", {});
      expect(await server.api.ok("GET", "/api/v1/trust/requests/open")).toEqual(request);
      return server.api.ok("POST", "/api/v1/trust/signatures", await signRequest(request, [signer]));
    };
    expect((await answer()).state).toBe("in_force");

    expect(await publish({ deviceClasses: ["linux-x64"] })).toMatchObject({
      state: "awaiting_signature",
      deviceClasses: ["linux-x64"],
    });
    expect(await updater().getTargetInfo(packageTargetPath("shapes", 1))).toBeUndefined();
    const rollout = {
      change: { kind: "package", model: "shapes", version: 1 },
      target: { devices: ["cam-1"] },
      forceReason: "the first version of all",
    };
    expect(await server.api.refused("POST", "/api/v1/rollouts", rollout)).toEqual([
      409,
      "version_awaiting_signature",
    ]);

    await answer();
    const info = await updater().getTargetInfo(packageTargetPath("shapes", 1));
    expect(info?.custom["fieldloop"]).toMatchObject({
      deviceClasses: ["linux-x64"],
      evidence: { verdict: "none" },
    });
    expect(await readFile(await updater().downloadTarget(info!))).toEqual(Buffer.from(pkg.manifestBytes));
    expect((await publish()).state).toBe("published");
    await server.api.ok("POST", "/api/v1/rollouts", { ...rollout, waves: [{ percent: 100 }] });

    // Why it was let through becomes part of the next targets that are signed.
    await until("the reason waits", async () => {
      const request = await server.api.send("POST", "/api/v1/trust/requests", {});
      return request.ok && JSON.stringify(await request.json()).includes("the first version of all");
    });
    await answer();
    const forced = await updater().getTargetInfo(packageTargetPath("shapes", 1));
    expect(forced?.custom["fieldloop"]).toMatchObject({
      evidence: { verdict: "forced", reason: "the first version of all" },
    });
    await server.api.ok("POST", "/api/v1/trust/keys", { role: "targets", create: 1, revokeAll: true });
    await answer().catch(() => undefined);
  });

  it("signs every desired state by the new director key", async () => {
    const device = await TestDevice.connect(server, identity);
    const newest = () => device.received.filter(({ topic }) => topic.endsWith("/down/desired")).at(-1);
    await until("a desired state", () => newest());
    const [old] = identity.fleetKeys;
    const before = decodeMessage(
      "desired",
      verify(DESIRED_TYPE, newest()!.payload, [{ keyId: old!.keyId, publicKey: fromHex(old!.publicKey) }]),
    );
    const outcome = await server.api.ok<TrustOutcome>("POST", "/api/v1/trust/director");
    expect(outcome.state).toBe("in_force");
    const [key] = outcome.view.director.published;
    expect(key!.keyId).not.toBe(old!.keyId);
    const trusted = [{ keyId: key!.keyId, publicKey: fromHex(key!.publicKey) }];
    const after = await until("one by the new key", () => {
      try {
        return decodeMessage("desired", verify(DESIRED_TYPE, newest()!.payload, trusted));
      } catch {
        // Still the one before.
        return undefined;
      }
    });
    expect(after.revision).toBe(before.revision + 1);
    expect({ ...after, revision: 0, issued: 0 }).toEqual({ ...before, revision: 0, issued: 0 });
    expect((await enrol(server, "cam-2")).fleetKeys).toEqual([key]);
    await device.end();
  });

  it("tells its state to viewers, and how long it holds to Prometheus", async () => {
    const view = await server.api.ok<TrustView>("GET", "/api/v1/trust");
    expect(view.roles.map(({ role }) => role)).toEqual(["root", "targets", "snapshot", "timestamp"]);
    expect(view.warnings).toEqual([]);
    const metrics = await (await server.api.send("GET", "/metrics")).text();
    expect(metrics).toMatch(/fieldloop_trust_expires_seconds\{kind="timestamp"\} 8\d{4}/);
  });
});
