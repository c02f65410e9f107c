import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { BlobStore } from "./blob.js";
import { FileBlobStore } from "./files.js";

const hashOf = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

async function read(
  store: BlobStore,
  sha256: string,
  range?: { from?: number; to?: number },
): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of await store.stream(sha256, range)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** What every blob store does alike. */
function blobContract(name: string, open: () => Promise<{ store: BlobStore; close(): Promise<void> }>): void {
  describe(`blob store: ${name}`, () => {
    let opened: Awaited<ReturnType<typeof open>>;
    let store: BlobStore;
    beforeEach(async () => {
      opened = await open();
      store = opened.store;
    });
    afterEach(() => opened.close());

    it("returns what was put, whole and in parts", async () => {
      const bytes = randomBytes(700_000);
      const info = await store.put(bytes);
      expect(info).toEqual({ sha256: hashOf(bytes), bytes: bytes.length });
      expect(await store.stat(info.sha256)).toEqual(info);
      expect(Buffer.from(await store.get(info.sha256)).equals(bytes)).toBe(true);
      expect((await read(store, info.sha256)).equals(bytes)).toBe(true);
      expect((await read(store, info.sha256, { from: 10, to: 20 })).equals(bytes.subarray(10, 20))).toBe(
        true,
      );
      expect((await read(store, info.sha256, { from: 699_990 })).length).toBe(10);
      expect((await read(store, info.sha256, { from: 5, to: 5 })).length).toBe(0);
    });

    it("takes a stream, the same content twice, and the empty content", async () => {
      async function* chunks(): AsyncGenerator<Uint8Array> {
        yield Uint8Array.of(1, 2);
        yield Uint8Array.of(3);
      }
      const first = await store.put(chunks());
      expect(await store.put(Uint8Array.of(1, 2, 3))).toEqual(first);
      const empty = await store.put(new Uint8Array());
      expect((await store.get(empty.sha256)).length).toBe(0);
    });

    it("refuses another hash than announced and more than the limit, and keeps nothing of it", async () => {
      const bytes = randomBytes(1000);
      await expect(store.put(bytes, { sha256: "0".repeat(64) })).rejects.toMatchObject({
        code: "package_hash_mismatch",
      });
      await expect(store.put(bytes, { bytesMax: 999 })).rejects.toMatchObject({ code: "limit_exceeded" });
      expect(await store.has(hashOf(bytes))).toBe(false);
    });

    it("keeps nothing of a stream that breaks off", async () => {
      async function* broken(): AsyncGenerator<Uint8Array> {
        yield Uint8Array.of(1);
        throw new Error("cut");
      }
      await expect(store.put(broken())).rejects.toThrow("cut");
      expect(await store.has(hashOf(Uint8Array.of(1)))).toBe(false);
    });

    it("knows what it does not have, and refuses names that are no hashes", async () => {
      const unknown = "f".repeat(64);
      expect(await store.stat(unknown)).toBeUndefined();
      await expect(store.get(unknown)).rejects.toMatchObject({ code: "not_found" });
      await expect(store.stream(unknown)).rejects.toMatchObject({ code: "not_found" });
      expect(await store.delete(unknown)).toBe(false);
      for (const name of ["", "../../etc/passwd", "F".repeat(64), `${"a".repeat(63)}/`, "a".repeat(63)]) {
        await expect(store.stat(name)).rejects.toMatchObject({ code: "invalid_argument" });
      }
    });

    it("deletes", async () => {
      const { sha256 } = await store.put(Uint8Array.of(9));
      expect(await store.delete(sha256)).toBe(true);
      expect(await store.has(sha256)).toBe(false);
    });

    it("stores the same content from many writers at once", async () => {
      const bytes = randomBytes(50_000);
      const infos = await Promise.all(Array.from({ length: 20 }, () => store.put(bytes)));
      expect(new Set(infos.map((info) => info.sha256)).size).toBe(1);
      expect((await store.get(infos[0]!.sha256)).length).toBe(50_000);
    });
  });
}

blobContract("files", async () => {
  const folder = await mkdtemp(join(tmpdir(), "fieldloop-blobs-"));
  const store = new FileBlobStore(folder);
  await store.open();
  return { store, close: () => rm(folder, { recursive: true, force: true }) };
});

describe("blob files", () => {
  it("notice content that was changed on disk, and sweep up after a crash", async () => {
    const folder = await mkdtemp(join(tmpdir(), "fieldloop-blobs-"));
    try {
      const store = new FileBlobStore(folder);
      await store.open();
      const { sha256 } = await store.put(Uint8Array.of(1, 2, 3));
      await writeFile(join(folder, sha256.slice(0, 2), sha256), Uint8Array.of(1, 2, 4));
      await expect(store.get(sha256)).rejects.toMatchObject({ code: "storage_failed" });
      await writeFile(join(folder, "incoming", "left-over"), "half");
      await store.open();
      expect(await readdir(join(folder, "incoming"))).toEqual([]);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});
