import type { SQL } from "drizzle-orm";
import type { BlobContent, BlobInfo, BlobStore } from "../blob/blob.js";
import { privateFiles, type PrivateFiles } from "../private-files.js";
import type { Database } from "../store/database.js";

/** The server is dead from here on: whatever it writes is not written. */
class Killed extends Error {}

/**
 * A server that dies at its n-th persist point. Points stand before and after every change of a file, a blob or the database; the code under
 * test meets them in its own order, so that counting them enumerates every state that a kill can leave.
 */
export class Killer {
  readonly #at: number;
  points = 0;
  dead = false;

  constructor(at: number) {
    this.#at = at;
  }

  async around<Result>(change: () => Promise<Result>): Promise<Result> {
    this.#point();
    const result = await change();
    this.#point();
    return result;
  }

  #point(): void {
    if (this.dead || this.points++ === this.#at) {
      this.dead = true;
      throw new Killed(`killed at persist point ${this.#at}`);
    }
  }
}

/** Reading goes on, so that what is left can be looked at. */
export class MortalDatabase implements Database {
  readonly #database: Database;
  readonly #killer: Killer;

  constructor(database: Database, killer: Killer) {
    this.#database = database;
    this.#killer = killer;
  }

  get dialect() {
    return this.#database.dialect;
  }
  all<Row>(query: SQL): Promise<Row[]> {
    return this.#database.all(query);
  }
  get<Row>(query: SQL): Promise<Row | undefined> {
    return this.#database.get(query);
  }
  run(query: SQL): Promise<number> {
    return this.#killer.around(() => this.#database.run(query));
  }
  /** Before and after, not within: the database itself undoes a unit of work that did not come to its end. */
  transaction<Result>(work: (tx: Database) => Promise<Result>): Promise<Result> {
    return this.#killer.around(() => this.#database.transaction(work));
  }
  close(): Promise<void> {
    return this.#database.close();
  }
}

export function mortalFiles(killer: Killer): PrivateFiles {
  return {
    ...privateFiles,
    makeFolder: (path) => killer.around(() => privateFiles.makeFolder(path)),
    write: (path, text) => killer.around(() => privateFiles.write(path, text)),
    replace: (from, to) => killer.around(() => privateFiles.replace(from, to)),
    remove: (path) => killer.around(() => privateFiles.remove(path)),
  };
}

export function mortalBlobs(blobs: BlobStore, killer: Killer): BlobStore {
  return {
    put: (content: BlobContent, options?: { sha256?: string; bytesMax?: number }): Promise<BlobInfo> =>
      killer.around(() => blobs.put(content, options)),
    stat: (sha256) => blobs.stat(sha256),
    has: (sha256) => blobs.has(sha256),
    get: (sha256) => blobs.get(sha256),
    stream: (sha256, range) => blobs.stream(sha256, range),
    delete: (sha256) => killer.around(() => blobs.delete(sha256)),
  };
}
