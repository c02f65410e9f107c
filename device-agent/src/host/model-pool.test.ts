import { join } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";
import { ortNode } from "@fieldloop/runtime/node";
import { serveHttp, SessionService } from "@fieldloop/runtime/oip";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { PackageToRun } from "../ipc.js";
import { scratchFolder, writeTestPackage } from "../testing/package.test.kit.js";
import { ModelPool } from "./model-pool.js";

const FRAME = { kind: "pixels", data: new Uint8Array(64), width: 8, height: 8, channels: 1 } as const;

let folder: Awaited<ReturnType<typeof scratchFolder>>;
let server: Awaited<ReturnType<typeof serveHttp>>;
let service: SessionService;
let target: PackageToRun;
beforeEach(async () => {
  folder = await scratchFolder();
  const pkg = await writeTestPackage(join(folder.path, "package"), { version: 1 });
  const open = () =>
    ortNode.openSession(join(pkg.dir, "fp32.onnx"), { threadCount: 1, executionProvider: "cpu" });
  service = new SessionService([{ name: "brightness", version: "1", open }], {
    version: "1",
    platform: "test",
  });
  await service.load("brightness");
  server = await serveHttp(service, { host: "127.0.0.1", port: 0 });
  const executionProvider = `oip+${server.url}/v2/models/brightness`;
  target = {
    directory: pkg.dir,
    packageSha256: pkg.packageSha256,
    providers: [{ executionProvider, variant: "fp32" }],
  };
});
afterEach(async () => {
  await server.stop();
  await service.unload("brightness");
  await folder.remove();
});

it("opens a provider anew that one lane gave up, although another lane holds what failed", async () => {
  const pool = new ModelPool({ threadCount: 1, isShared: true, onProviderFailed: () => undefined });
  const first = await pool.acquire(target);
  expect(await pool.acquire(target)).toBe(first);
  // Its thread ends.
  await first.close();
  expect(pool.giveUp(target, first, new FieldloopError("unavailable", "Predict: it is closed"))).toBe(true);
  const next = await pool.acquire(target);
  expect(next.executionProvider).toBe("cpu");
  await pool.release(first);
  pool.forgive(target);
  const again = await pool.acquire(target);
  expect(again).not.toBe(first);
  const [outcome] = await again.predict([FRAME], "main", true);
  expect(outcome).toMatchObject({ ok: true });
  expect(await pool.acquire(target)).toBe(again);
  expect(pool.models).toHaveLength(3);
  for (const model of [first, next, again, again]) await pool.release(model).catch(() => undefined);
  expect(pool.models).toEqual([]);
});
