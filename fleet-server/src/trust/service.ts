import {
  DIRECTOR_TARGET,
  directorTargetSchema,
  packageTargetPath,
  TRUST_ROLES,
  type DirectorTarget,
  type SigningKey,
  type TrustRole,
  type TrustView,
} from "@fieldloop/protocol";
import type { BlobStore } from "../blob/blob.js";
import type { Clock, Logger } from "../context.js";
import { SERVER_LIMITS } from "../limits.js";
import type { Database } from "../store/database.js";
import { Mutex } from "../store/mutex.js";
import { TrustStore, type StoredTarget } from "../store/trust.js";
import { TrustContents } from "./contents.js";
import { directorTarget, type DirectorKeys } from "./director.js";
import { expiresTime, keyIdsOf, rolesOf, type Head } from "./documents.js";
import { renewalTime } from "./expiry.js";
import type { KeyRing } from "./key-ring.js";
import { TrustRepository } from "./repository.js";
import { Synchronizer } from "./synchronizer.js";
import { viewTrust } from "./view.js";

export interface TrustServiceOptions {
  readonly database: Database;
  readonly blobs: BlobStore;
  readonly ring: KeyRing;
  readonly director: DirectorKeys;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly newId: (prefix: string) => string;
  readonly tickMs?: number;
}

/** The name beside what nobody asked for. */
const ENGINE = "engine";

/**
 * The fleet's trust repository (TUF 1.0): says what devices may install and who may direct them. Parties: the owners of the root and targets
 * keys; this server, which holds the snapshot, timestamp and director keys (and, until they are moved away, the others too); devices; mirrors
 * and the network, which are not trusted at all. Threats met: arbitrary or swapped packages, rollback, freeze, mix-and-match, fast-forward, loss of
 * keys below a threshold, a stolen server once root and targets are elsewhere. Not met: a stolen server that still has all keys.
 */
export class TrustService {
  readonly #options: TrustServiceOptions;
  readonly #store: TrustStore;
  readonly #repository: TrustRepository;
  readonly #contents: TrustContents;
  readonly #synchronizer: Synchronizer;
  readonly #mutex = new Mutex();
  readonly #listeners = new Set<() => Promise<void>>();
  #telling: Promise<unknown> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #waking: Promise<void> | undefined;
  /** Time of the next renewal; 0 where something may have changed. */
  #due = 0;
  #reminded = Number.NEGATIVE_INFINITY;

  constructor(options: TrustServiceOptions) {
    this.#options = options;
    const { database, blobs, director } = options;
    this.#store = new TrustStore(database);
    this.#repository = new TrustRepository(database);
    this.#contents = new TrustContents(database, blobs, director);
    this.#synchronizer = new Synchronizer({
      ...options,
      repository: this.#repository,
      contents: this.#contents,
    });
  }

  /**
   * Makes the repository at the first start; at others goes on with what was interrupted and renews what is due.
   * @throws FieldloopError `storage_failed`, `trust_metadata_malformed`; `trust_key_unavailable` where it cannot even be made
   */
  async open(): Promise<void> {
    await this.#options.ring.open();
    await this.#options.director.open();
    if (await this.#repository.head()) await this.settle();
    else await this.synchronize(ENGINE);
  }

  /** Begins to renew by itself. */
  start(): void {
    this.#timer ??= setInterval(() => void this.tick(), this.#options.tickMs ?? SERVER_LIMITS.trustTickMs);
    this.#timer.unref();
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#timer = undefined;
    await this.#waking;
    await this.#mutex.run(async () => undefined);
    await this.#telling;
  }

  /** What the timer does: renews what is due, and reminds of what only people can do. */
  async tick(): Promise<void> {
    const now = this.#options.clock.now();
    if (now >= this.#due) await this.settle();
    if (now - this.#reminded < SERVER_LIMITS.trustReminderMs) return;
    this.#reminded = now;
    for (const { code, title } of (await this.view()).warnings) this.#options.logger.warn({ code }, title);
  }

  /** Something that targets say may have changed (an evaluation, a reason): they follow soon. */
  wake(): void {
    this.#due = 0;
    this.#waking ??= Promise.resolve().then(async () => {
      this.#waking = undefined;
      await this.settle();
    });
  }

  /** {@link synchronize}, but trouble with a key is logged and tried again at the next tick: what was decided stays decided. */
  async settle(): Promise<void> {
    try {
      await this.synchronize(ENGINE);
    } catch (error) {
      this.#due = 0;
      this.#options.logger.error({ err: error }, "trust metadata could not be published");
    }
  }

  /** Publishes what the keys at hand suffice for. @returns the roles that were published. @throws FieldloopError `trust_key_unavailable` */
  synchronize(actor: string, renew: readonly TrustRole[] = []): Promise<ReadonlySet<TrustRole>> {
    return this.exclusive(() => this.#synchronize(actor, renew));
  }

  /** One change at a time in this process; between processes the numbers of the metadata decide. */
  exclusive<Result>(work: () => Promise<Result>): Promise<Result> {
    return this.#mutex.run(work);
  }

  /** Only inside {@link exclusive}. */
  async synchronizeNow(actor: string, renew: readonly TrustRole[] = []): Promise<ReadonlySet<TrustRole>> {
    return this.#synchronize(actor, renew);
  }

  get synchronizer(): Synchronizer {
    return this.#synchronizer;
  }

  async head(): Promise<Head> {
    return (await this.#repository.head())!;
  }

  /** Signs desired states and commands. */
  get directorKey(): SigningKey {
    return this.#options.director.current;
  }

  /** Calls `listener` after another director key took over; {@link stop} waits for it. */
  onDirectorChanged(listener: () => Promise<void>): void {
    this.#listeners.add(listener);
  }

  /** What a new device starts from: the newest root, as text. */
  async factoryRoot(): Promise<string> {
    return Buffer.from((await this.head()).root.bytes).toString("utf8");
  }

  /** A metadata file by its name; undefined where there is none. */
  file(name: string): Promise<Uint8Array | undefined> {
    return this.#repository.file(name);
  }

  /** A target that is or was signed; undefined for any other path and hash. */
  target(path: string, sha256: string): Promise<StoredTarget | undefined> {
    return this.#store.target(path, sha256);
  }

  /** Whether devices can install the version. */
  async isSigned(model: string, version: number, packageSha256: string): Promise<boolean> {
    return (await this.target(packageTargetPath(model, version), packageSha256)) !== undefined;
  }

  /** When the newest metadata of each role expire, milliseconds. */
  async expiries(): Promise<Record<TrustRole, number>> {
    const head = await this.head();
    const of = (role: TrustRole): number => expiresTime(head[role].metadata.signed);
    return { root: of("root"), targets: of("targets"), snapshot: of("snapshot"), timestamp: of("timestamp") };
  }

  async view(): Promise<TrustView> {
    const { ring, director, clock } = this.#options;
    const request = await this.#synchronizer.request();
    const head = await this.head();
    const signers = await ring.signers();
    return viewTrust({
      head,
      staged: await this.#synchronizer.staged(),
      request,
      collected: request ? await this.#store.signatures(request.request) : [],
      signers,
      problems: ring.problems,
      director,
      directorPublished: await this.#publishedDirector(head),
      awaiting: await this.#contents.awaiting(),
      now: clock.now(),
    });
  }

  async #synchronize(actor: string, renew: readonly TrustRole[]): Promise<ReadonlySet<TrustRole>> {
    const published = await this.#synchronizer.run(actor, renew);
    const head = await this.head();
    await this.#settleDirector(head);
    await this.#prune(head);
    const expiries = await this.expiries();
    const renewals = TRUST_ROLES.map((role) => renewalTime(role, expiries[role]));
    this.#due = Math.min(...renewals);
    return published;
  }

  /** The next director key takes over once it is published; a server killed before this finds the same at its next start. */
  async #settleDirector(head: Head): Promise<void> {
    const { director } = this.#options;
    const named = head.targets.metadata.signed.targets[DIRECTOR_TARGET]?.hashes["sha256"];
    if (!director.next || named !== directorTarget(director.wanted).target.sha256) return;
    if (!(await director.settle(director.wanted))) return;
    const told = this.#telling.then(() => Promise.all([...this.#listeners].map((listener) => listener())));
    this.#telling = told.catch((error: unknown) => {
      this.#options.logger.error({ err: error }, "not everybody was told of the new director key");
    });
  }

  /** Keys that this server made and that no root names any more, nor will, are deleted. */
  async #prune(head: Head): Promise<void> {
    const staged = await this.#synchronizer.staged();
    const roles = rolesOf(head.root.metadata.signed);
    const needed = new Set(
      TRUST_ROLES.flatMap((role) => [...keyIdsOf(roles[role]), ...(staged ? keyIdsOf(staged[role]) : [])]),
    );
    const removed = await this.#options.ring.prune(needed);
    if (removed.length > 0) this.#options.logger.info({ removed }, "keys out of use deleted");
  }

  async #publishedDirector(head: Head): Promise<DirectorTarget> {
    const named = head.targets.metadata.signed.targets[DIRECTOR_TARGET]!.hashes["sha256"]!;
    const bytes = await this.#options.blobs.get(named);
    return directorTargetSchema.parse(JSON.parse(Buffer.from(bytes).toString("utf8")));
  }
}
