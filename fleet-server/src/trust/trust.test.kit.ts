import { randomBytes } from "node:crypto";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  DIRECTOR_TARGET,
  directorTargetSchema,
  packageTargetPath,
  packageTargetSchema,
  sha256Hex,
  type DirectorTarget,
  type PackageTarget,
  type SigningRequest,
  type TrustKey,
} from "@fieldloop/protocol";
import { sql } from "drizzle-orm";
import { Updater, type Fetcher } from "tuf-js";
import { DownloadHTTPError } from "tuf-js/dist/error.js";
import { vi } from "vitest";
import { FileBlobStore } from "../blob/files.js";
import type { Clock } from "../context.js";
import { silent } from "../kit.test.support.js";
import { randomIds } from "../services/ids.js";
import type { Database } from "../store/database.js";
import { migrate } from "../store/migrate.js";
import { MIGRATIONS } from "../store/migrations.js";
import { openSqlite } from "../store/sqlite.js";
import { privateFiles } from "../private-files.js";
import { KeyCeremony } from "./ceremony.js";
import { DirectorKeys } from "./director.js";
import { createKeyFile, openKeyFile } from "./key-file.js";
import { type Killer, MortalDatabase, mortalBlobs, mortalFiles } from "./faults.test.kit.js";
import { KeyRing } from "./key-ring.js";
import { signRequest } from "./request.js";
import { TrustService } from "./service.js";
import type { Signer } from "./signer.js";

const START = Date.parse("2026-11-01T12:00:00Z");
export const DAY = 86_400_000;

/** A trust service over a database and a folder of its own; {@link restart} is what a server that died finds. */
export class TrustKit {
  readonly folder: string;
  readonly database: Database;
  readonly blobs: FileBlobStore;
  readonly clock: Clock & { time: number };
  trust!: TrustService;
  ceremony!: KeyCeremony;
  director!: DirectorKeys;
  ring!: KeyRing;

  private constructor(folder: string, database: Database) {
    this.folder = folder;
    this.database = database;
    this.blobs = new FileBlobStore(join(folder, "blobs"));
    const clock = { time: START, now: () => clock.time };
    this.clock = clock;
  }

  static async open(): Promise<TrustKit> {
    const kit = await TrustKit.unopened();
    await kit.restart();
    return kit;
  }

  /** Without a service yet: {@link restart} makes it. @param from a kit whose data it begins with */
  static async unopened(from?: {
    readonly folder: string;
    readonly clock: { readonly time: number };
  }): Promise<TrustKit> {
    const folder = await mkdtemp(join(tmpdir(), "fieldloop-trust-"));
    if (from) await cp(from.folder, folder, { recursive: true });
    const kit = new TrustKit(folder, openSqlite(join(folder, "fieldloop.db")));
    if (!from) await migrate(kit.database, MIGRATIONS, () => START);
    await kit.blobs.open();
    kit.clock.time = from?.clock.time ?? START;
    vi.useFakeTimers({ toFake: ["Date"], now: kit.clock.time });
    return kit;
  }

  /** A new service over what is stored. @param killer ends it at a persist point */
  async restart(killer?: Killer): Promise<void> {
    const { clock } = this;
    const database = killer ? new MortalDatabase(this.database, killer) : this.database;
    const blobs = killer ? mortalBlobs(this.blobs, killer) : this.blobs;
    const files = killer ? mortalFiles(killer) : privateFiles;
    const newId = randomIds((length) => randomBytes(length));
    this.director = new DirectorKeys(this.folder, files);
    this.ring = new KeyRing({
      folder: join(this.folder, "trust", "keys"),
      randomBytes: (length) => new Uint8Array(randomBytes(length)),
      files,
    });
    const { director, ring } = this;
    this.trust = new TrustService({ database, blobs, clock, newId, director, ring, logger: silent });
    this.ceremony = new KeyCeremony({ trust: this.trust, database, ring, director, clock, newId });
    await this.trust.open();
  }

  async close(): Promise<void> {
    vi.useRealTimers();
    await this.trust.stop();
    await this.database.close();
    await rm(this.folder, { recursive: true, force: true });
  }

  /** Goes on in time, for the server and for clients. */
  pass(ms: number): void {
    this.clock.time += ms;
    vi.setSystemTime(this.clock.time);
  }

  /** A published version, as the registry stores it, whose manifest is `text`; not yet a target. */
  async addVersion(model: string, version: number, text = `${model} ${version}`): Promise<string> {
    const bytes = Buffer.from(text);
    const { sha256 } = await this.blobs.put(bytes);
    await this.database.run(sql`insert into model_versions (model, version, package_sha256, manifest_bytes, manifest, bytes, created,
        published, published_by)
      values (${model}, ${version}, ${sha256}, ${bytes.length}, '{}', ${bytes.length}, ${START}, ${START}, 'ann')`);
    return sha256;
  }

  /** Publishes a version as a server does. */
  async publish(model: string, version: number): Promise<string> {
    const sha256 = await this.addVersion(model, version);
    await this.trust.settle();
    return sha256;
  }

  /** An offline machine's key. */
  async offlineKey(): Promise<{ key: TrustKey; signer: Signer }> {
    const file = await createKeyFile({ randomBytes: (length) => new Uint8Array(randomBytes(length)) });
    return { key: file.key, signer: await openKeyFile(file, undefined) };
  }

  /** Answers the open request with the keys of offline machines. */
  async answer(request: SigningRequest, ...signers: readonly Signer[]) {
    return this.ceremony.importSignatures(await signRequest(request, signers), "ann");
  }

  /** A device that starts from the newest root. */
  async client(): Promise<TestClient> {
    return TestClient.make(this, await this.trust.factoryRoot());
  }
}

/** An independent client over the repository: tuf-js with its own checks, its metadata kept between refreshes. */
export class TestClient {
  readonly #kit: TrustKit;
  readonly #folder: string;
  readonly requested: string[] = [];

  private constructor(kit: TrustKit, folder: string) {
    this.#kit = kit;
    this.#folder = folder;
  }

  static async make(kit: TrustKit, root: string): Promise<TestClient> {
    const folder = await mkdtemp(join(kit.folder, "client-"));
    await writeFile(join(folder, "root.json"), root);
    await mkdir(join(folder, "targets"));
    return new TestClient(kit, folder);
  }

  /** Versions of the metadata that it trusts. */
  async versions(): Promise<Record<string, number>> {
    const versions: Record<string, number> = {};
    for (const role of ["root", "timestamp", "snapshot", "targets"]) {
      const text = await readFile(join(this.#folder, `${role}.json`), "utf8").catch(() => undefined);
      if (text !== undefined)
        versions[role] = (JSON.parse(text) as { signed: { version: number } }).signed.version;
    }
    return versions;
  }

  async refresh(): Promise<Record<string, number>> {
    await this.#updater().refresh();
    return this.versions();
  }

  /** Refreshes, downloads and reads a package's target; undefined where the repository names none. */
  async package(model: string, version: number): Promise<PackageTarget | undefined> {
    const updater = this.#updater();
    const info = await updater.getTargetInfo(packageTargetPath(model, version));
    if (!info) return undefined;
    const bytes = await readFile(await updater.downloadTarget(info));
    const about = packageTargetSchema.parse(info.custom["fieldloop"]);
    if (sha256Hex(bytes) !== about.packageSha256) throw new Error("The target has another content");
    return about;
  }

  async director(): Promise<DirectorTarget> {
    const updater = this.#updater();
    const info = await updater.getTargetInfo(DIRECTOR_TARGET);
    const text = await readFile(await updater.downloadTarget(info!), "utf8");
    return directorTargetSchema.parse(JSON.parse(text));
  }

  #updater(): Updater {
    return new Updater({
      metadataDir: this.#folder,
      metadataBaseUrl: "kit:metadata",
      targetDir: join(this.#folder, "targets"),
      targetBaseUrl: "kit:targets",
      fetcher: this.#fetcher(),
    });
  }

  #fetcher(): Fetcher {
    const downloadBytes = async (url: string, bytesMax: number): Promise<Buffer> => {
      this.requested.push(url);
      const bytes = await this.#read(decodeURIComponent(url));
      if (!bytes) throw new DownloadHTTPError(`No ${url}`, 404);
      if (bytes.length > bytesMax) throw new Error(`${url} is longer than ${bytesMax} bytes`);
      return Buffer.from(bytes);
    };
    return {
      downloadBytes,
      downloadFile: async (url, bytesMax, handler) => {
        const path = join(this.#folder, "download");
        await writeFile(path, await downloadBytes(url, bytesMax));
        return handler(path);
      },
    };
  }

  async #read(url: string): Promise<Uint8Array | undefined> {
    const { trust, blobs } = this.#kit;
    const metadata = /^kit:metadata\/(.+)$/.exec(url);
    if (metadata) return trust.file(metadata[1]!);
    const target = /^kit:targets\/(.*\/)([0-9a-f]{64})\.([^/]+)$/.exec(url);
    const known = target && (await trust.target(target[1]! + target[3]!, target[2]!));
    return known ? blobs.get(known.sha256) : undefined;
  }
}
