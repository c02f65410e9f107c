import { randomBytes } from "node:crypto";
import { join } from "node:path";
import {
  DIRECTOR_TARGET,
  FieldloopError,
  createSigningKey,
  fromHex,
  keyIdOf,
  sha256Hex,
  toHex,
  type DirectorTarget,
  type SigningKey,
} from "@fieldloop/protocol";
import { ed25519 } from "../auth/keys.js";
import { privateFiles, type PrivateFiles } from "../private-files.js";
import type { WantedTarget } from "./documents.js";

const CURRENT = "fleet-key.json";
const NEXT = "fleet-key-next.json";

/**
 * The director's key: signs desired states and commands, online. Devices accept it because the target `fieldloop/director.json` names it, so
 * that the owners of the targets keys decide who may direct. A new key signs from the moment its target is published, never before;
 * which of the two files counts is therefore read from the published target, and a server killed in between finds the same answer.
 */
export class DirectorKeys {
  readonly #dataDir: string;
  readonly #files: PrivateFiles;
  #current!: SigningKey;
  #next: SigningKey | undefined;

  constructor(dataDir: string, files = privateFiles) {
    this.#dataDir = dataDir;
    this.#files = files;
  }

  /** Makes the first key. @throws FieldloopError `storage_failed` for a file that others can read or that holds no key; it is never replaced */
  async open(): Promise<void> {
    this.#current = (await this.#read(CURRENT)) ?? (await this.#make(CURRENT));
    this.#next = await this.#read(NEXT);
  }

  get current(): SigningKey {
    return this.#current;
  }
  get next(): SigningKey | undefined {
    return this.#next;
  }

  /** What the director target should say: the next key where one waits, for it replaces the other. */
  get wanted(): DirectorTarget {
    const { keyId, publicKey } = this.#next ?? this.#current;
    return { keys: [{ keyId, publicKey: toHex(publicKey) }] };
  }

  /** A key that takes over once it is published; one that waits already is kept. */
  async stage(): Promise<void> {
    this.#next ??= await this.#make(NEXT);
  }

  /** Drops a key that waits, unless it was published already. */
  async unstage(): Promise<void> {
    await this.#files.remove(join(this.#dataDir, NEXT));
    this.#next = undefined;
  }

  /** Told what is published: the next key takes over where it is among it. @returns whether the key changed */
  async settle(published: DirectorTarget): Promise<boolean> {
    const next = this.#next;
    if (!next || !published.keys.some(({ keyId }) => keyId === next.keyId)) return false;
    await this.#files.replace(join(this.#dataDir, NEXT), join(this.#dataDir, CURRENT));
    this.#current = next;
    this.#next = undefined;
    return true;
  }

  async #make(name: string): Promise<SigningKey> {
    const key = createSigningKey((length) => randomBytes(length));
    const text = JSON.stringify({ keyId: key.keyId, secretKey: toHex(key.secretKey) });
    await this.#files.write(join(this.#dataDir, name), `${text}\n`);
    return key;
  }

  async #read(name: string): Promise<SigningKey | undefined> {
    const path = join(this.#dataDir, name);
    const text = await this.#files.read(path);
    return text === undefined ? undefined : readKey(text, path);
  }
}

/** Content of the director target, and how it stands in targets metadata. */
export function directorTarget(content: DirectorTarget): { bytes: Uint8Array; target: WantedTarget } {
  const bytes = Buffer.from(`${JSON.stringify(content)}\n`);
  return { bytes, target: { path: DIRECTOR_TARGET, sha256: sha256Hex(bytes), bytes: bytes.length } };
}

function readKey(text: string, path: string): SigningKey {
  try {
    const { secretKey } = JSON.parse(text) as { secretKey: string };
    const seed = fromHex(secretKey);
    if (seed.length !== 32) throw new Error(`${seed.length} bytes of seed, wanted 32`);
    const publicKey = ed25519(seed);
    return { keyId: keyIdOf(publicKey), publicKey, secretKey: seed };
  } catch (cause) {
    throw new FieldloopError("storage_failed", `Read signing key: "${path}" holds no key`, { cause });
  }
}
