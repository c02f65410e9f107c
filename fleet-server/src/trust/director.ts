import { randomBytes } from "node:crypto";
import { rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
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
import { readPrivate, syncFolder, writePrivate } from "../private-files.js";
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
  #current!: SigningKey;
  #next: SigningKey | undefined;

  constructor(dataDir: string) {
    this.#dataDir = dataDir;
  }

  /** Makes the first key. @throws FieldloopError `storage_failed` for a file that others can read or that holds no key; it is never replaced */
  async open(): Promise<void> {
    this.#current = (await readKey(join(this.#dataDir, CURRENT))) ?? (await this.#make(CURRENT));
    this.#next = await readKey(join(this.#dataDir, NEXT));
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
    await rm(join(this.#dataDir, NEXT), { force: true });
    await syncFolder(this.#dataDir);
    this.#next = undefined;
  }

  /** Told what is published: the next key takes over where it is among it. @returns whether the key changed */
  async settle(published: DirectorTarget): Promise<boolean> {
    const next = this.#next;
    if (!next || !published.keys.some(({ keyId }) => keyId === next.keyId)) return false;
    await rename(join(this.#dataDir, NEXT), join(this.#dataDir, CURRENT));
    await syncFolder(dirname(join(this.#dataDir, CURRENT)));
    this.#current = next;
    this.#next = undefined;
    return true;
  }

  async #make(name: string): Promise<SigningKey> {
    const key = createSigningKey((length) => randomBytes(length));
    const text = JSON.stringify({ keyId: key.keyId, secretKey: toHex(key.secretKey) });
    await writePrivate(join(this.#dataDir, name), `${text}\n`);
    return key;
  }
}

/** Content of the director target, and how it stands in targets metadata. */
export function directorTarget(content: DirectorTarget): { bytes: Uint8Array; target: WantedTarget } {
  const bytes = Buffer.from(`${JSON.stringify(content)}\n`);
  return { bytes, target: { path: DIRECTOR_TARGET, sha256: sha256Hex(bytes), bytes: bytes.length } };
}

async function readKey(path: string): Promise<SigningKey | undefined> {
  const text = await readPrivate(path);
  if (text === undefined) return undefined;
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
