import { createCipheriv, createDecipheriv, createHash, randomBytes } from "node:crypto";
import { join } from "node:path";
import { FieldloopError } from "@fieldloop/protocol";
import { z } from "zod";
import { privateFiles, type PrivateFiles } from "../private-files.js";

/**
 * Secrets that the server must be able to read again (those that sign webhooks) lie in the database encrypted: AES-256-GCM
 * (NIST SP 800-38D) with a key of the data folder, so that who reads the database or its backup learns none. Parties: the server,
 * which holds both; whoever gets at the database alone. Not met here: who reads the data folder as the server's user.
 * What a secret belongs to is authenticated with it: a row's secret cannot be put into another row.
 */

/** `sealed1.{key}.{nonce}.{ciphertext and tag}`, the last two in base64url. */
const PREFIX = "sealed1";
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const KEY_BYTES = 32;
const ENDING = ".key.json";

const keyFileSchema = z.object({
  version: z.literal(1),
  /** Of the key itself, so that a mistaken file name is noticed. */
  id: z.string().regex(/^[0-9a-f]{16}$/),
  /** Milliseconds. */
  created: z.int(),
  key: z.base64(),
});

interface SecretKey {
  readonly id: string;
  readonly created: number;
  readonly key: Buffer;
}

export interface SecretBoxOptions {
  /** Folder of the keys, a file each; made where there is none. */
  readonly folder: string;
  /** Milliseconds. */
  readonly now: () => number;
  readonly files?: PrivateFiles;
}

/** Encrypts with the newest key of the folder and opens with any of them. */
export class SecretBox {
  readonly #options: SecretBoxOptions;
  readonly #files: PrivateFiles;
  readonly #keys = new Map<string, SecretKey>();
  #current: SecretKey | undefined;

  constructor(options: SecretBoxOptions) {
    this.#options = options;
    this.#files = options.files ?? privateFiles;
  }

  /** Reads the keys, and makes the first. @throws FieldloopError `storage_failed` for a key file that others can read or that is none */
  async open(): Promise<void> {
    const { folder } = this.#options;
    await this.#files.makeFolder(folder);
    for (const name of await this.#files.list(folder)) {
      if (name.endsWith(ENDING))
        this.#take(parseKey(join(folder, name), await this.#files.read(join(folder, name))));
    }
    if (!this.#current) await this.rotate();
  }

  /** A new key, with which everything is encrypted from now on; those of before still open. @returns its id */
  async rotate(): Promise<string> {
    const key = randomBytes(KEY_BYTES);
    const id = idOf(key);
    const created = Math.max(this.#options.now(), (this.#current?.created ?? 0) + 1);
    const text = JSON.stringify({ version: 1, id, created, key: key.toString("base64") });
    await this.#files.write(this.#pathOf(id), `${text}\n`);
    this.#take({ id, created, key });
    return id;
  }

  /** Forgets a key that nothing is encrypted with any longer. */
  async forget(id: string): Promise<void> {
    if (id === this.#current?.id)
      throw new FieldloopError("internal", "Forget secret key: it is the one in use");
    this.#keys.delete(id);
    await this.#files.remove(this.#pathOf(id));
  }

  /** Ids of all keys but the one in use. */
  get older(): string[] {
    return [...this.#keys.keys()].filter((id) => id !== this.#current?.id);
  }

  /** @param about what the secret belongs to: only with the same words it opens again */
  seal(secret: string, about: string): string {
    const { id, key } = this.#current!;
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv("aes-256-gcm", key, nonce, { authTagLength: TAG_BYTES });
    cipher.setAAD(Buffer.from(about));
    const text = Buffer.concat([cipher.update(secret, "utf8"), cipher.final(), cipher.getAuthTag()]);
    return [PREFIX, id, nonce.toString("base64url"), text.toString("base64url")].join(".");
  }

  /**
   * @throws FieldloopError `secret_key_missing` where its key is not in the folder, `storage_failed` where it was changed or belongs
   * to something else
   */
  unseal(sealed: string, about: string): string {
    const [prefix, id = "", nonce = "", body = ""] = sealed.split(".");
    const bytes = Buffer.from(body, "base64url");
    if (prefix !== PREFIX || bytes.length < TAG_BYTES)
      throw new FieldloopError(
        "storage_failed",
        `Open the secret of ${about}: it is not an encrypted secret`,
      );
    const known = this.#keys.get(id);
    if (!known)
      throw new FieldloopError(
        "secret_key_missing",
        `Open the secret of ${about}: put its key "${id}${ENDING}" back from a backup of the data folder, or make a new secret; it is not in "${this.#options.folder}"`,
      );
    try {
      const cipher = createDecipheriv("aes-256-gcm", known.key, Buffer.from(nonce, "base64url"), {
        authTagLength: TAG_BYTES,
      });
      cipher.setAAD(Buffer.from(about));
      cipher.setAuthTag(bytes.subarray(-TAG_BYTES));
      return Buffer.concat([cipher.update(bytes.subarray(0, -TAG_BYTES)), cipher.final()]).toString("utf8");
    } catch (cause) {
      throw new FieldloopError(
        "storage_failed",
        `Open the secret of ${about}: it was changed, or belongs to something else`,
        { cause },
      );
    }
  }

  /** Whether it is encrypted with the key in use. */
  isCurrent(text: string): boolean {
    return text.startsWith(`${PREFIX}.${this.#current!.id}.`);
  }

  /** Whether it is encrypted at all. */
  isSealed(text: string): boolean {
    return text.startsWith(`${PREFIX}.`);
  }

  #take(key: SecretKey): void {
    this.#keys.set(key.id, key);
    if (!this.#current || key.created > this.#current.created) this.#current = key;
  }

  #pathOf(id: string): string {
    return join(this.#options.folder, `${id}${ENDING}`);
  }
}

/** Tells nothing about the key: half of its hash. */
function idOf(key: Uint8Array): string {
  return createHash("sha256").update("fieldloop secret key\n").update(key).digest("hex").slice(0, 16);
}

function parseKey(path: string, text: string | undefined): SecretKey {
  const refuse = (what: string): never => {
    throw new FieldloopError("storage_failed", `Read secret key "${path}": ${what}`);
  };
  let parsed: z.output<typeof keyFileSchema>;
  try {
    parsed = keyFileSchema.parse(JSON.parse(text ?? ""));
  } catch {
    return refuse("it is not a key file; put it back from a backup, or take it away");
  }
  const key = Buffer.from(parsed.key, "base64");
  if (key.length !== KEY_BYTES || idOf(key) !== parsed.id) refuse("the key is not the one that it names");
  return { id: parsed.id, created: parsed.created, key };
}
