import { type TrustRole, parseMetadataFileName } from "@fieldloop/protocol";
import { SERVER_LIMITS } from "../limits.js";
import type { Database } from "../store/database.js";
import { TrustStore } from "../store/trust.js";
import { readPublished, type Head, type PartOf, type Published, type SignedPart } from "./documents.js";
import type { Publication } from "./publication.js";

const FORGETTABLE = ["targets", "snapshot", "timestamp"] as const;

/**
 * The published metadata (TUF section 6, consistent snapshots). A publication is one unit of work of the database, its timestamp last:
 * whoever reads finds the old metadata whole or the new ones whole, and a server killed at any instant leaves nothing in between.
 */
export class TrustRepository {
  readonly #database: Database;
  readonly #store: TrustStore;

  constructor(database: Database) {
    this.#database = database;
    this.#store = new TrustStore(database);
  }

  /** @returns undefined before the first publication. @throws FieldloopError `trust_metadata_malformed` */
  async head(): Promise<Head | undefined> {
    const [root, targets, snapshot, timestamp] = await Promise.all([
      this.#newest("root"),
      this.#newest("targets"),
      this.#newest("snapshot"),
      this.#newest("timestamp"),
    ]);
    if (!root || !targets || !snapshot || !timestamp) return undefined;
    return { root, targets, snapshot, timestamp };
  }

  /**
   * Makes a publication visible.
   * @param head what it follows
   * @param also in the same unit of work
   * @throws FieldloopError `conflict` where another server published meanwhile; nothing was written then
   */
  async publish(
    head: Head | undefined,
    publication: Publication,
    now: number,
    also: (tx: Database) => Promise<void>,
  ): Promise<void> {
    const { root, targets, snapshot, timestamp } = publication;
    const known = head?.targets.metadata.signed.targets ?? {};
    await this.#database.transaction(async (tx) => {
      const store = new TrustStore(tx);
      const add = async (role: TrustRole, { metadata, bytes }: Published<SignedPart>): Promise<void> =>
        store.add({ role, version: metadata.signed.version, bytes }, now);
      if (root) await add("root", root);
      if (targets) {
        await add("targets", targets);
        const { version, targets: named } = targets.metadata.signed;
        for (const { path, length, hashes } of Object.values(named)) {
          const sha256 = hashes["sha256"]!;
          if (known[path]?.hashes["sha256"] !== sha256) {
            await store.addTarget({ path, sha256, bytes: length }, version);
          }
        }
      }
      if (snapshot) await add("snapshot", snapshot);
      await also(tx);
      if (timestamp) await add("timestamp", timestamp);
      for (const role of FORGETTABLE) {
        const version = publication[role]?.metadata.signed.version;
        if (version !== undefined) await store.forgetBefore(role, version - SERVER_LIMITS.trustVersionsKept);
      }
    });
  }

  /** A metadata file by the name that clients ask for; undefined where there is none. */
  async file(name: string): Promise<Uint8Array | undefined> {
    const parsed = parseMetadataFileName(name);
    if (!parsed) return undefined;
    if (parsed.version === null) return (await this.#store.newest("timestamp"))?.bytes;
    return this.#store.get(parsed.role, parsed.version);
  }

  async #newest<Role extends TrustRole>(role: Role): Promise<Published<PartOf[Role]> | undefined> {
    const stored = await this.#store.newest(role);
    return stored && readPublished(role, stored.bytes);
  }
}
