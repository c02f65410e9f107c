import { join } from "node:path";
import { FieldloopError, toFieldloopError, type TrustKey } from "@fieldloop/protocol";
import { privateFiles, type PrivateFiles } from "../private-files.js";
import { createKeyFile, openKeyFile, parseKeyFile, type KeyFile } from "./key-file.js";
import type { Signer } from "./signer.js";

export interface KeyRingOptions {
  readonly folder: string;
  readonly randomBytes: (length: number) => Uint8Array;
  /** Opens the key files that are behind one. */
  readonly passphrase?: string;
  readonly files?: PrivateFiles;
}

const SUFFIX = ".key.json";

/**
 * The keys that this server can sign with: files `{keyId}.key.json` of mode 600 in one folder. The folder is read anew at each use, so that
 * a file that an administrator puts there (a program that asks an HSM) counts at once. Such files come by the file system only,
 * never by the network.
 */
export class KeyRing {
  readonly #options: KeyRingOptions;
  readonly #files: PrivateFiles;
  /** Opened ones, by file name and time: a passphrase costs half a second. */
  readonly #opened = new Map<string, { stamp: string; signer: Signer }>();
  #problems: readonly string[] = [];

  constructor(options: KeyRingOptions) {
    this.#options = options;
    this.#files = options.files ?? privateFiles;
  }

  async open(): Promise<void> {
    await this.#files.makeFolder(this.#options.folder);
  }

  /** Why files of the folder could not be used when they were read last. */
  get problems(): readonly string[] {
    return this.#problems;
  }

  /** What can sign now, by key id. A file that cannot be used is left out and told by {@link problems}. */
  async signers(): Promise<ReadonlyMap<string, Signer>> {
    const signers = new Map<string, Signer>();
    const problems: string[] = [];
    for (const name of await this.#names()) {
      try {
        const signer = await this.#open(name);
        if (signer) signers.set(signer.keyId, signer);
      } catch (error) {
        problems.push(toFieldloopError(error).message);
      }
    }
    this.#problems = problems;
    return signers;
  }

  /** A new key, durable before its public half is returned. */
  async create(): Promise<TrustKey> {
    const { folder, randomBytes } = this.#options;
    const file = await createKeyFile({ randomBytes, managed: true });
    await this.#files.write(join(folder, `${file.keyId}${SUFFIX}`), `${JSON.stringify(file)}\n`);
    return file.key;
  }

  /** Deletes the keys that the server made for itself and that `needed` does not name. */
  async prune(needed: ReadonlySet<string>): Promise<string[]> {
    const removed: string[] = [];
    for (const name of await this.#names()) {
      const file = await this.#read(name).catch(() => undefined);
      if (!file?.managed || needed.has(file.keyId)) continue;
      await this.#files.remove(join(this.#options.folder, name));
      this.#opened.delete(name);
      removed.push(file.keyId);
    }
    return removed;
  }

  async #names(): Promise<string[]> {
    return (await this.#files.list(this.#options.folder)).filter((name) => name.endsWith(SUFFIX));
  }

  async #open(name: string): Promise<Signer | undefined> {
    const stamp = await this.#files.stamp(join(this.#options.folder, name));
    const known = this.#opened.get(name);
    if (known?.stamp === stamp) return known.signer;
    const file = await this.#read(name);
    if (!file) return undefined;
    const signer = await openKeyFile(file, this.#options.passphrase);
    this.#opened.set(name, { stamp, signer });
    return signer;
  }

  async #read(name: string): Promise<KeyFile | undefined> {
    const path = join(this.#options.folder, name);
    const text = await this.#files.read(path);
    if (text === undefined) return undefined;
    const file = parseKeyFile(text, path);
    if (name === `${file.keyId}${SUFFIX}` || !file.managed) return file;
    throw new FieldloopError("trust_key_unavailable", `Read key: "${path}" holds the key "${file.keyId}"`);
  }
}
