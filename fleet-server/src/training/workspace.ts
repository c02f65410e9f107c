import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { FieldloopError, manifestFiles, type Manifest, type MediaType } from "@fieldloop/protocol";
import { MANIFEST_FILE } from "@fieldloop/runtime";
import type { BlobStore } from "../blob/blob.js";
import type { JobItem } from "./job.js";

/** The folder of one job: the packages and inputs that a trainer process reads, laid out from the blob store. */
export class Workspace {
  readonly dir: string;
  readonly #blobs: BlobStore;

  constructor(dir: string, blobs: BlobStore) {
    this.dir = dir;
    this.#blobs = blobs;
  }

  path(name: string): string {
    return join(this.dir, name);
  }

  /** Lays out a package folder. One that lies there from before a restart is made anew: its writing may have been cut off. */
  async layPackage(name: string, manifestSha256: string, manifest: Manifest): Promise<string> {
    const dir = this.path(name);
    await rm(dir, { recursive: true, force: true });
    await mkdir(dir, { recursive: true });
    await writeFile(join(dir, MANIFEST_FILE), await this.#blobs.get(manifestSha256));
    for (const { file, sha256 } of manifestFiles(manifest)) {
      await mkdir(dirname(join(dir, file)), { recursive: true });
      await writeFile(join(dir, file), await this.#blobs.get(sha256));
    }
    return dir;
  }

  /** Writes each input to a file of its own; one whose bytes retention has removed is left out. */
  async layItems(
    items: AsyncIterable<{ sample: string; sha256: string; label: string; mediaType: MediaType }>,
  ): Promise<JobItem[]> {
    const dir = this.path("items");
    await mkdir(dir, { recursive: true });
    const laid: JobItem[] = [];
    for await (const { sample, sha256, label, mediaType } of items) {
      const file = join(dir, sha256);
      if (await this.#lay(file, sha256)) laid.push({ sample, label, media: mediaType, file });
    }
    return laid;
  }

  async remove(): Promise<void> {
    await rm(this.dir, { recursive: true, force: true });
  }

  async #lay(file: string, sha256: string): Promise<boolean> {
    try {
      const bytes = await this.#blobs.get(sha256);
      await writeFile(`${file}.tmp`, bytes);
      await rename(`${file}.tmp`, file);
      return true;
    } catch (error) {
      if (error instanceof FieldloopError && error.code === "not_found") return false;
      throw error;
    }
  }
}
