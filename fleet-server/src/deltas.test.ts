import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { manifestFiles, type EnrolResponse } from "@fieldloop/protocol";
import { decodeModel, encodeModel, graphOf } from "@fieldloop/runtime";
import { applyDeltaFile } from "@fieldloop/runtime/delta";
import { openPackage, writePackage, type ModelPackage } from "@fieldloop/runtime/node";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { FileBlobStore } from "./blob/files.js";
import { DeltaChild } from "./delta/child.js";
import { enrol, silent, startTestServer, until, type TestServer } from "./kit.test.support.js";
import { LiveHub } from "./services/live.js";
import { DeltaService } from "./services/deltas.js";
import { describeDatabases } from "./store/databases.test.support.js";
import { DeltaStore } from "./store/deltas.js";
import { RegistryStore } from "./store/registry.js";
import { makeTinyPackage } from "./training/tiny-package.test.kit.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 120_000 });

const sha256Of = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

let dir: string;
let versions: ModelPackage[];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fieldloop-deltas-"));
  const first = await makeTinyPackage(join(dir, "1"));
  versions = [first, await nextVersion(first, 2), await nextVersion(first, 3)];
});
afterAll(() => rm(dir, { recursive: true, force: true }));

/** The same network, every number of its weights moved a little. */
async function nextVersion(base: ModelPackage, version: number): Promise<ModelPackage> {
  const files: Record<string, Uint8Array> = {};
  for (const { file } of manifestFiles(base.manifest)) {
    const bytes = new Uint8Array(await readFile(join(base.dir, file)));
    files[file] = file.endsWith(".onnx") ? moved(bytes, version) : bytes;
  }
  await writePackage(join(dir, String(version)), { ...base.manifest, version }, files);
  return openPackage(join(dir, String(version)));
}

function moved(bytes: Uint8Array, by: number): Uint8Array {
  const model = decodeModel(bytes);
  for (const tensor of graphOf(model).initializer) {
    if (tensor.rawData.length < 16) continue;
    tensor.rawData = tensor.rawData.map((byte, at) => (at % 7 === by ? byte ^ 1 : byte));
  }
  return encodeModel(model);
}

const variantOf = (pkg: ModelPackage) => pkg.manifest.variants.find(({ precision }) => precision === "int8")!;

describe("GET /artifacts/delta/{from}/{to}", () => {
  let server: TestServer;
  let identity: EnrolResponse;

  beforeAll(async () => {
    server = await startTestServer();
    identity = await enrol(server, "gripper");
    for (const pkg of versions) await publish(pkg);
  });
  afterAll(() => server?.end());

  async function publish(pkg: ModelPackage): Promise<void> {
    const upload = async (bytes: Uint8Array, sha256: string) => {
      const headers = { "content-type": "application/octet-stream" };
      const response = await server.api.send("PUT", `/api/v1/artifacts/sha256/${sha256}`, bytes, headers);
      expect(response.ok).toBe(true);
    };
    for (const { file, sha256 } of manifestFiles(pkg.manifest))
      await upload(await readFile(join(pkg.dir, file)), sha256);
    await upload(pkg.manifestBytes, pkg.packageSha256);
    await server.api.ok("POST", `/api/v1/models/${pkg.manifest.model}/versions`, {
      manifestSha256: pkg.packageSha256,
    });
  }

  const ask = (from: string, to: string, headers: Record<string, string> = {}): Promise<Response> =>
    server.api.as(identity.credential).send("GET", `/artifacts/delta/${from}/${to}`, undefined, headers);

  it("gives a device what turns its file into the next version's, made when that was published", async () => {
    const [base, target] = [variantOf(versions[0]!), variantOf(versions[1]!)];
    const response = await until(
      "the delta",
      async () => {
        const answer = await ask(base.sha256, target.sha256);
        return answer.status === 200 && answer;
      },
      30_000,
    );
    const delta = new Uint8Array(await response.arrayBuffer());
    expect(response.headers.get("fieldloop-delta-bytes")).toBe(String(delta.length));
    expect(response.headers.get("etag")).toBe(`"${sha256Of(delta)}"`);
    expect(delta.length).toBeLessThan(target.bytes * 0.8);
    const rebuilt = join(dir, "rebuilt.onnx");
    await applyDeltaFile(join(versions[0]!.dir, base.file), delta, rebuilt);
    expect(sha256Of(await readFile(rebuilt))).toBe(target.sha256);
    const rest = await ask(base.sha256, target.sha256, { range: "bytes=10-" });
    expect(rest.status).toBe(206);
    expect(new Uint8Array(await rest.arrayBuffer())).toEqual(delta.subarray(10));
  });

  it("makes others when they are asked for: 202, then the delta", async () => {
    const [base, target] = [variantOf(versions[0]!), variantOf(versions[2]!)];
    const first = await ask(base.sha256, target.sha256);
    expect(first.status).toBe(202);
    expect(Number(first.headers.get("retry-after"))).toBeGreaterThan(0);
    await until("the delta", async () => (await ask(base.sha256, target.sha256)).status === 200, 30_000);
  });

  it("has none between files that are no model's, of one model and itself, or of hashes that are none", async () => {
    const [base, target] = [variantOf(versions[0]!), variantOf(versions[1]!)];
    const golden = versions[0]!.manifest.golden[0]!.inputs[0]!;
    for (const [from, to] of [
      [base.sha256, base.sha256],
      [base.sha256, "0".repeat(64)],
      ["0".repeat(64), target.sha256],
      [golden.sha256, target.sha256],
    ] as const) {
      expect((await ask(from, to)).status).toBe(404);
    }
    expect((await ask("..%2f..%2fetc", target.sha256)).status).toBe(400);
    expect((await ask("ZZ", target.sha256)).status).toBe(400);
    const [status] = await server.api
      .as(undefined)
      .refused("GET", `/artifacts/delta/${base.sha256}/${target.sha256}`);
    expect(status).toBe(401);
  });
});

describeDatabases("deltas", (database) => {
  let now = 1_000;
  let blobs: FileBlobStore;
  let service: DeltaService | undefined;

  async function open(
    limits: Partial<{ timeoutMs: number; cacheBytesMax: number; pairsMax: number }> = {},
  ): Promise<DeltaService> {
    const folder = await mkdtemp(join(dir, "service-"));
    blobs = new FileBlobStore(join(folder, "blobs"));
    await blobs.open();
    const registry = new RegistryStore(database());
    for (const pkg of versions) {
      for (const { file } of manifestFiles(pkg.manifest))
        await blobs.put(await readFile(join(pkg.dir, file)));
      const { model, version } = pkg.manifest;
      await registry.add({
        model,
        version,
        packageSha256: pkg.packageSha256,
        manifestBytes: 1,
        manifest: pkg.manifest,
        bytes: 1,
        deviceClasses: null,
        created: 1,
        published: version,
        publishedBy: "test",
      });
    }
    service = new DeltaService({
      database: database(),
      blobs,
      clock: { now: () => now },
      logger: silent,
      live: new LiveHub(),
      workDir: join(folder, "work"),
      limits,
    });
    await service.start();
    return service;
  }

  const pair = (from: number, to: number): [string, string] => [
    variantOf(versions[from - 1]!).sha256,
    variantOf(versions[to - 1]!).sha256,
  ];

  it("are made once a pair and kept, whoever asks meanwhile", async () => {
    const deltas = await open();
    const answers = await Promise.all([1, 2, 3].map(() => deltas.get(...pair(1, 2))));
    expect(answers.map(({ kind }) => kind)).toEqual(["making", "making", "making"]);
    await deltas.settle();
    expect(await deltas.get(...pair(1, 2))).toMatchObject({ kind: "ready" });
    const { made } = (await new DeltaStore(database()).get(...pair(1, 2)))!;
    now += 1_000_000;
    expect(await deltas.get(...pair(1, 2))).toMatchObject({ kind: "ready" });
    expect((await new DeltaStore(database()).get(...pair(1, 2)))!).toMatchObject({ made, used: now });
    await deltas.stop();
  });

  it("go when others were asked for more lately", async () => {
    const deltas = await open({ pairsMax: 2 });
    for (const [from, to] of [
      [1, 2],
      [2, 3],
      [1, 3],
    ] as const) {
      now += 100_000;
      await deltas.get(...pair(from, to));
      await deltas.settle();
    }
    const store = new DeltaStore(database());
    expect(await store.get(...pair(1, 2))).toBeUndefined();
    expect(await store.totals()).toMatchObject({ count: 2 });
    expect(await deltas.get(...pair(1, 3))).toMatchObject({ kind: "ready" });
    await deltas.stop();
  });

  it("that cannot be made are remembered, and tried again much later", async () => {
    const deltas = await open({ timeoutMs: 1 });
    expect(await deltas.get(...pair(1, 2))).toEqual({ kind: "making" });
    await deltas.settle();
    expect(await deltas.get(...pair(1, 2))).toEqual({ kind: "none" });
    expect((await new DeltaStore(database()).get(...pair(1, 2)))!.reason).toBe("timed_out");
    now += 25 * 3_600_000;
    expect(await deltas.get(...pair(1, 2))).toEqual({ kind: "making" });
    await deltas.stop();
  });

  it("end with the server: nothing is left behind, and the next start makes them", async () => {
    const deltas = await open();
    expect(await deltas.get(...pair(1, 2))).toEqual({ kind: "making" });
    await deltas.stop();
    expect(await deltas.get(...pair(1, 3))).toEqual({ kind: "none" });
    await deltas.start();
    await deltas.get(...pair(1, 2));
    await deltas.settle();
    expect(await deltas.get(...pair(1, 2))).toMatchObject({ kind: "ready" });
    await deltas.stop();
  });
});

describe("the process that makes a delta", () => {
  it("says that one saves too little, and what it could not read", async () => {
    const [basePath, targetPath] = [join(dir, "noise-1"), join(dir, "noise-2")];
    await writeFile(basePath, Buffer.alloc(1000, 1));
    await writeFile(
      targetPath,
      Buffer.from(Array.from({ length: 1000 }, (_, at) => (at * at * 31 + at * 7) >> 3)),
    );
    const job = { basePath, targetPath, deltaPath: join(dir, "noise-delta"), bytesMax: 300 };
    expect(await new DeltaChild(job, { logger: silent }).answer).toEqual({ kind: "none" });
    await expect(
      new DeltaChild({ ...job, basePath: join(dir, "gone") }, { logger: silent }).answer,
    ).rejects.toMatchObject({ code: "internal" });
    expect(await readdir(dir)).not.toContain("noise-delta");
  });
});
