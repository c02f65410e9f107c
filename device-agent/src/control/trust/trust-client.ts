import { join } from "node:path";
import {
  DIRECTOR_TARGET,
  directorTargetSchema,
  FieldloopError,
  fromHex,
  keyIdOf,
  LIMITS,
  packageTargetPath,
  packageTargetSchema,
  sha256Hex,
  toFieldloopError,
  TRUST_METADATA_PATH,
  TRUST_TARGETS_PATH,
  type PackageTarget,
  type PublicKey,
} from "@fieldloop/protocol";
import { z } from "zod";
import type { Clock, RandomSource } from "../../clock.js";
import type { HttpFetch } from "../http-fetch.js";
import type { TrustDisk } from "./disk.js";
import { malformed } from "./metadata-rules.js";
import { Repository, urlBelow, type Cycle } from "./repository.js";
import { fetchTargetBytes, targetUrl } from "./targets.js";
import type { TransferLimits, TransferOptions } from "./transfer.js";
import type { TrustedVersions } from "./trust-clock.js";

/**
 * Whom this device believes, and about what. Parties: the owners of the root and targets keys, who sign offline and decide which packages
 * may ever be installed and whose keys may direct devices; the server, which holds the snapshot and timestamp keys and the director key;
 * broker, network, proxies and artifact store, which are trusted with nothing; this device's disk and clock, which may fail but are not
 * taken for an enemy. Threats met (TUF section 1.5.2): arbitrary installation, endless data, fast-forward, indefinite freeze, mix-and-match,
 * rollback, slow retrieval, wrong software, and the loss of every online key: those alone make no device install a file that the
 * targets keys did not sign. Not met: loss of a threshold of targets or root keys, and whoever can write this device's disk.
 */
export interface TrustClientOptions {
  /** The agent's state folder; the metadata are kept below `trust/`. */
  readonly directory: string;
  /** Origin of the fleet server. */
  readonly server: string;
  readonly credential: string;
  /** Root metadata that this device was given when it enrolled. */
  readonly factoryRoot: string;
  /** Who directs this device until it has read the director target. */
  readonly enrolledKeys: readonly PublicKey[];
  readonly fetch: HttpFetch;
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly budget?: TransferOptions["budget"];
  readonly limits?: Partial<TransferLimits>;
  readonly disk?: TrustDisk;
  /** Files that the medium harmed; they are fetched anew. */
  readonly onHarmed?: (message: string) => void;
}

/** A package that the targets keys vouch for. */
export interface TrustedPackage {
  /** SHA-256 of manifest.json, which holds the hash of every other file. */
  readonly packageSha256: string;
  /** Length of manifest.json. */
  readonly manifestBytes: number;
  /** Whom it is made for; null: any device class. */
  readonly deviceClasses: readonly string[] | null;
  readonly evidence: PackageTarget["evidence"];
}

export interface TrustStatus {
  /** When the last refresh succeeded in this run, and until when what it brought holds; null before. Milliseconds since the epoch. */
  readonly refreshed: { readonly at: number; readonly expires: number } | null;
  /** Versions of root, timestamp, snapshot and targets metadata; null before. */
  readonly versions: TrustedVersions | null;
  /** Why the last refresh failed; undefined where it did not. */
  readonly failure: FieldloopError | undefined;
  /** By how much the clock stands before the last trusted time, 0 where it does not. */
  readonly clockBehindMs: number;
}

/** Kept beside the metadata; none of those is called so. */
const DIRECTOR_FILE = "director";
const TARGETS_FILE = "targets.json";

export class TrustClient {
  readonly #options: TrustClientOptions;
  readonly #repository: Repository;
  readonly #targetsUrl: string;
  #directorKeys: readonly PublicKey[];
  #refreshed: TrustStatus["refreshed"] = null;
  #versions: TrustStatus["versions"] = null;
  #failure: FieldloopError | undefined;

  constructor(options: TrustClientOptions) {
    this.#options = options;
    this.#directorKeys = options.enrolledKeys;
    this.#targetsUrl = urlBelow(options.server, `.${TRUST_TARGETS_PATH}`);
    this.#repository = new Repository({
      ...options,
      // A device that is enrolled anew, in another fleet, has another root: nothing of the one before counts then.
      directory: join(options.directory, "trust", sha256Hex(Buffer.from(options.factoryRoot)).slice(0, 16)),
      metadataUrl: urlBelow(options.server, `.${TRUST_METADATA_PATH}`),
      headers: { authorization: `Bearer ${options.credential}` },
      // Who may delegate could let others vouch for packages: the targets keys speak alone here.
      delegationsMax: 0,
    });
  }

  /**
   * Reads what an earlier start kept: after it {@link directorKeys} are those last verified, without a network.
   * @throws FieldloopError `storage_failed`
   */
  async open(): Promise<void> {
    await this.#repository.initialize(Buffer.from(this.#options.factoryRoot));
    const files = await this.#repository.open();
    const targets = files.get(TARGETS_FILE);
    if (!targets) return;
    const director = files.get(DIRECTOR_FILE);
    const holds = director && sha256Hex(director) === directorSha256Of(targets);
    this.#directorKeys = holds ? parseDirector(director) : [];
  }

  /** Keys that may sign desired states and commands, as the targets keys last said. */
  directorKeys(): readonly PublicKey[] {
    return this.#directorKeys;
  }

  get status(): TrustStatus {
    return {
      refreshed: this.#refreshed,
      versions: this.#versions,
      failure: this.#failure,
      clockBehindMs: this.#repository.clock.behindMs,
    };
  }

  /**
   * Brings the metadata up to date, and the director keys with them.
   * @throws FieldloopError `trust_*`, `download_too_slow`, `storage_failed`, `unauthenticated`, `cancelled`; what was verified before it
   * failed is kept, what runs goes on, and a later refresh may succeed
   */
  async refresh(signal: AbortSignal): Promise<void> {
    await this.#cycle(signal, () => Promise.resolve());
  }

  /**
   * What the targets keys say of a version, by fresh metadata.
   * @throws FieldloopError as {@link refresh}; `trust_target_unknown`, `trust_target_mismatch`
   */
  async package(model: string, version: number, signal: AbortSignal): Promise<TrustedPackage> {
    return this.#cycle(signal, (cycle) => readPackage(cycle, model, version));
  }

  async #cycle<Result>(signal: AbortSignal, work: (cycle: Cycle) => Promise<Result>): Promise<Result> {
    try {
      const result = await this.#repository.cycle(signal, async (cycle) => {
        await this.#readDirector(cycle);
        this.#noteRefreshed(cycle);
        return work(cycle);
      });
      this.#failure = undefined;
      return result;
    } catch (error) {
      this.#failure = toFieldloopError(error);
      throw error;
    }
  }

  #noteRefreshed({ engine }: Cycle): void {
    this.#refreshed = { at: this.#options.clock.now(), expires: engine.expires };
    this.#versions = engine.versions();
  }

  /**
   * The keys that direct, from the target that names them. Where the targets keys have named others, those before hold no longer, even if
   * the new ones cannot be read yet: whoever stole a director key must not keep it by holding back a file.
   */
  async #readDirector(cycle: Cycle): Promise<void> {
    const { engine, signal } = cycle;
    const target = await engine.target(DIRECTOR_TARGET);
    if (!target) {
      cycle.keep(DIRECTOR_FILE, undefined);
      this.#directorKeys = [];
      return;
    }
    const known = cycle.kept(DIRECTOR_FILE);
    if (known && sha256Hex(known) === target.hashes["sha256"]) return;
    cycle.keep(DIRECTOR_FILE, undefined);
    this.#directorKeys = [];
    if (target.length > LIMITS.directorBytesMax) {
      throw new FieldloopError(
        "trust_metadata_too_large",
        `Read "${DIRECTOR_TARGET}": ${target.length} bytes, at most ${LIMITS.directorBytesMax}`,
      );
    }
    const url = targetUrl(this.#targetsUrl, target, engine.consistentSnapshot);
    const bytes = await fetchTargetBytes(target, url, this.#repository.transferOptions(signal));
    this.#directorKeys = parseDirector(bytes);
    cycle.keep(DIRECTOR_FILE, bytes);
  }
}

async function readPackage({ engine }: Cycle, model: string, version: number): Promise<TrustedPackage> {
  const path = packageTargetPath(model, version);
  const target = await engine.target(path);
  if (!target) {
    throw new FieldloopError(
      "trust_target_unknown",
      `Trust ${model}@${version}: the targets name no such package`,
    );
  }
  const parsed = packageTargetSchema.safeParse(target.custom["fieldloop"]);
  if (!parsed.success) throw malformed(path, "what it says of the package does not match its schema");
  const { packageSha256, deviceClasses, evidence } = parsed.data;
  const fits =
    parsed.data.model === model &&
    parsed.data.version === version &&
    packageSha256 === target.hashes["sha256"] &&
    target.length <= LIMITS.manifestBytesMax;
  if (!fits) {
    throw new FieldloopError(
      "trust_target_mismatch",
      `Trust ${model}@${version}: the target is about ${parsed.data.model}@${parsed.data.version}, or another file`,
    );
  }
  return { packageSha256, manifestBytes: target.length, deviceClasses, evidence };
}

/** Which director file the stored targets metadata name; they were verified when they were kept. */
function directorSha256Of(targets: Buffer): string | undefined {
  const schema = z.object({
    signed: z.object({
      targets: z.record(z.string(), z.object({ hashes: z.record(z.string(), z.string()) })),
    }),
  });
  const parsed = schema.safeParse(JSON.parse(targets.toString("utf8")));
  return parsed.data?.signed.targets[DIRECTOR_TARGET]?.hashes["sha256"];
}

function parseDirector(bytes: Uint8Array): readonly PublicKey[] {
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(bytes).toString("utf8"));
  } catch (cause) {
    throw malformed(DIRECTOR_TARGET, "not JSON", cause);
  }
  const parsed = directorTargetSchema.safeParse(json);
  if (!parsed.success) throw malformed(DIRECTOR_TARGET, "it does not match its schema");
  return parsed.data.keys.map(({ keyId, publicKey }) => {
    const key = { keyId, publicKey: fromHex(publicKey) };
    if (keyIdOf(key.publicKey) !== keyId)
      throw malformed(DIRECTOR_TARGET, `key id "${keyId}" is of another key`);
    return key;
  });
}
