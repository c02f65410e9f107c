import { FieldloopError, LIMITS, type TrustRole } from "@fieldloop/protocol";
import type { Metadata, Root, Snapshot, TargetFile, Targets, Timestamp } from "@tufjs/models";
import { Updater, type Fetcher, type UpdaterOptions } from "tuf-js";
import { EqualVersionError } from "tuf-js/dist/error.js";
import { checkMetadata, malformed } from "./metadata-rules.js";
import { refusalOf } from "./refusals.js";
import type { TrustedVersions } from "./trust-clock.js";

/**
 * The only place that knows tuf-js, and what it knows of it beyond its types: version 5.0.1, pinned; `engine.test.ts` fails where another
 * version is shaped otherwise. tuf-js walks the client workflow (TUF section 5) and verifies; here it gets its metadata from memory instead
 * of from a folder that it writes in place, its time from us, our stricter rules before each verification, and a second look at each
 * delegated role that it has in its cache: 5.0.1 does not ask whether the delegator in hand vouches for it too.
 */
interface TrustedSet {
  referenceTime: Date;
  readonly root: Metadata<Root>;
  readonly timestamp?: Metadata<Timestamp>;
  readonly snapshot?: Metadata<Snapshot>;
  readonly targets?: Metadata<Targets>;
  getRole(name: string): Metadata<Targets> | undefined;
  updateRoot(bytes: Buffer): unknown;
  updateTimestamp(bytes: Buffer): unknown;
  updateSnapshot(bytes: Buffer, trusted?: boolean): unknown;
  updateDelegatedTargets(bytes: Buffer, role: string, delegator: string): unknown;
}

interface UpdaterParts {
  readonly trustedSet: TrustedSet;
  refresh(): Promise<void>;
  getTargetInfo(path: string): Promise<TargetFile | undefined>;
  loadLocalMetadata(role: string): Buffer;
  persistMetadata(role: string, bytes: Buffer): void;
  loadTargets(role: string, delegator: string): Promise<Metadata<Targets> | undefined>;
}
const OpenUpdater = Updater as unknown as new (options: UpdaterOptions) => UpdaterParts;

export interface EngineOptions {
  /** What is trusted so far, by file name; verified metadata are put into it as they arrive. */
  readonly files: Map<string, Buffer>;
  readonly metadataUrl: string;
  /** Milliseconds since the epoch by which expiry is judged. */
  readonly reference: number;
  /** Delegated roles that one search may visit; 0: the top-level targets role speaks alone. */
  readonly delegationsMax: number;
  readonly fetcher: (onFailure: (error: FieldloopError) => void) => Fetcher;
}

/** One update cycle over one set of metadata. */
export class Engine {
  readonly #updater: UpdaterParts;
  readonly #keptTimestamp: number;
  #noted: FieldloopError | undefined;

  /** @throws FieldloopError where the trusted root itself is not acceptable */
  constructor(options: EngineOptions) {
    const { files } = options;
    const note = (error: FieldloopError | undefined): void => void (this.#noted = error);
    checkMetadata("root", "root", files.get(fileNameOf("root")) ?? Buffer.alloc(0));
    try {
      this.#updater = openUpdater(files, {
        metadataDir: "",
        metadataBaseUrl: options.metadataUrl,
        fetcher: options.fetcher(note),
        config: {
          maxRootRotations: LIMITS.rootRotationsMax,
          maxDelegations: options.delegationsMax,
          rootMaxLength: LIMITS.rootBytesMax,
          timestampMaxLength: LIMITS.timestampBytesMax,
          snapshotMaxLength: LIMITS.snapshotBytesMax,
          targetsMaxLength: LIMITS.targetsBytesMax,
        },
      });
    } catch (error) {
      throw refusalOf(error, "root", "root");
    }
    this.#keptTimestamp = versionIn(files.get(fileNameOf("timestamp")));
    const { trustedSet } = this.#updater;
    trustedSet.referenceTime = new Date(options.reference);
    guard(trustedSet, note);
  }

  /** @throws FieldloopError with the code of what was refused, or of what could not be fetched */
  async refresh(): Promise<void> {
    await this.#coded(() => this.#updater.refresh());
  }

  /**
   * The target of this path as the most trusted role that names it says; undefined where none does.
   * @throws FieldloopError as {@link refresh}
   */
  async target(path: string): Promise<TargetFile | undefined> {
    // Names that every object has are no targets.
    if (path in Object.prototype) return undefined;
    return this.#coded(() => this.#updater.getTargetInfo(path));
  }

  get consistentSnapshot(): boolean {
    return this.#updater.trustedSet.root.signed.consistentSnapshot;
  }

  /** Versions of what is trusted by now; 0 where nothing is. */
  versions(): TrustedVersions {
    const { root, timestamp, snapshot, targets } = this.#updater.trustedSet;
    return {
      root: root.signed.version,
      // With an expired root tuf-js does not look at the timestamp that is kept.
      timestamp: timestamp?.signed.version ?? this.#keptTimestamp,
      snapshot: snapshot?.signed.version ?? 0,
      targets: targets?.signed.version ?? 0,
    };
  }

  /** When the first of the top-level metadata expires, milliseconds since the epoch. */
  get expires(): number {
    const { root, timestamp, snapshot, targets } = this.#updater.trustedSet;
    const all = [root, timestamp, snapshot, targets].map((role) =>
      role ? Date.parse(role.signed.expires) : 0,
    );
    return Math.min(...all);
  }

  async #coded<Result>(work: () => Promise<Result>): Promise<Result> {
    this.#noted = undefined;
    try {
      return await work();
    } catch (error) {
      if (error instanceof FieldloopError) throw error;
      // tuf-js turned the reason into text, or stumbled over what was missing after it.
      throw this.#noted ?? malformed("repository", String(error), error);
    }
  }
}

/**
 * Whether these bytes can be a trusted root: readable, acceptable, and signed by a threshold of the keys that they name themselves.
 * @throws FieldloopError `trust_metadata_malformed`, `trust_signature_insufficient`
 */
export function checkRoot(bytes: Buffer): void {
  const fetcher = (): Fetcher => ({
    downloadBytes: () => Promise.reject(new TypeError("A root is checked without a network")),
    downloadFile: () => Promise.reject(new TypeError("A root is checked without a network")),
  });
  const files = new Map([[fileNameOf("root"), bytes]]);
  void new Engine({ files, metadataUrl: "", reference: 0, delegationsMax: 0, fetcher });
}

/** A tuf-js updater that reads and keeps metadata in `files`. The base class reads the root while it is constructed: hence the closure. */
function openUpdater(files: Map<string, Buffer>, options: UpdaterOptions): UpdaterParts {
  class MemoryUpdater extends OpenUpdater {
    override loadLocalMetadata(role: string): Buffer {
      const bytes = files.get(fileNameOf(role));
      if (!bytes) throw new FieldloopError("not_found", `Read "${role}" metadata: none are kept`);
      return bytes;
    }

    override persistMetadata(role: string, bytes: Buffer): void {
      files.set(fileNameOf(role), bytes);
    }

    override async loadTargets(role: string, delegator: string): Promise<Metadata<Targets> | undefined> {
      if (!Object.hasOwn(this.trustedSet.snapshot?.signed.meta ?? {}, `${role}.json`)) {
        throw new FieldloopError(
          "trust_metadata_mixed",
          `Verify "${role}" metadata: the snapshot does not name them`,
        );
      }
      const known = role === "targets" ? undefined : this.trustedSet.getRole(role);
      try {
        if (known) this.trustedSet.getRole(delegator)?.verifyDelegate(role, known);
      } catch (error) {
        throw refusalOf(error, "targets", role);
      }
      return super.loadTargets(role, delegator);
    }
  }
  return new MemoryUpdater(options);
}

/** Our rules come before tuf-js's, and what either throws is coded and noted: on its way out tuf-js turns it into text. */
function guard(trusted: TrustedSet, note: (error: FieldloopError | undefined) => void): void {
  const guarded =
    <Rest extends unknown[]>(
      kind: TrustRole,
      update: (bytes: Buffer, ...rest: Rest) => unknown,
      nameOf: (...rest: Rest) => string = () => kind,
    ) =>
    (bytes: Buffer, ...rest: Rest): unknown => {
      const name = nameOf(...rest);
      try {
        checkMetadata(kind, name, bytes);
        const result = update(bytes, ...rest);
        note(undefined);
        return result;
      } catch (error) {
        // The same timestamp once more is no news, and no fault: tuf-js wants to see this very error.
        if (error instanceof EqualVersionError) throw error;
        const refusal = refusalOf(error, kind, name);
        note(refusal);
        throw refusal;
      }
    };
  trusted.updateRoot = guarded("root", trusted.updateRoot.bind(trusted));
  trusted.updateTimestamp = guarded("timestamp", trusted.updateTimestamp.bind(trusted));
  trusted.updateSnapshot = guarded("snapshot", trusted.updateSnapshot.bind(trusted));
  const updateTargets = trusted.updateDelegatedTargets.bind(trusted);
  trusted.updateDelegatedTargets = guarded("targets", updateTargets, (role: string) => role);
}

function versionIn(bytes: Buffer | undefined): number {
  if (!bytes) return 0;
  const { signed } = JSON.parse(bytes.toString("utf8")) as { signed?: { version?: unknown } };
  return typeof signed?.version === "number" ? signed.version : 0;
}

/** `..%2Fa.json` for the role `../a`: a name in a folder whatever the role is called. */
export function fileNameOf(role: string): string {
  return `${encodeURIComponent(role)}.json`;
}
