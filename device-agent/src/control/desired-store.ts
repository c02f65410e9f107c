import { readFile } from "node:fs/promises";
import { join } from "node:path";
import {
  DESIRED_TYPE,
  decodeMessage,
  FieldloopError,
  verify,
  type Desired,
  type PublicKey,
} from "@fieldloop/protocol";
import { Durable } from "./durable.js";
import { codeOf } from "./files.js";

/**
 * The desired state that this device follows, kept as the signed envelope: it is verified anew at each start.
 * Parties: the fleet signs; broker and disk are not trusted. Threats met: another device's, a forged, a replayed older one.
 */
export class DesiredStore {
  readonly #path: string;
  readonly #device: string;
  readonly #directorKeys: () => readonly PublicKey[];
  readonly #durable: Durable;
  #current: Desired | undefined;

  constructor(
    directory: string,
    device: string,
    directorKeys: () => readonly PublicKey[],
    durable: Durable = new Durable(),
  ) {
    this.#path = join(directory, "desired.bin");
    this.#device = device;
    this.#directorKeys = directorKeys;
    this.#durable = durable;
  }

  get current(): Desired | undefined {
    return this.#current;
  }
  get revision(): number {
    return this.#current?.revision ?? 0;
  }

  /** What an earlier start accepted; undefined where there is none. @throws FieldloopError where the file does not verify */
  async load(): Promise<Desired | undefined> {
    let envelope: Uint8Array;
    try {
      envelope = await readFile(this.#path);
    } catch (error) {
      if (codeOf(error) === "ENOENT") return undefined;
      throw error;
    }
    this.#current = this.#read(envelope);
    return this.#current;
  }

  /**
   * Takes a newer desired state, on disk before it is followed. Undefined where it is the one that is followed already.
   * @throws FieldloopError `desired_signature_invalid`, `desired_rollback_refused`, `forbidden` (another device's) or a codec's code
   */
  async accept(envelope: Uint8Array, floor: number): Promise<Desired | undefined> {
    const desired = this.#read(envelope);
    const applied = Math.max(this.revision, floor);
    if (desired.revision < applied) {
      throw new FieldloopError(
        "desired_rollback_refused",
        `Apply desired state: revision ${desired.revision} came after ${applied}`,
      );
    }
    if (desired.revision === this.revision) return undefined;
    await this.#durable.writeFile("desired", this.#path, envelope);
    this.#current = desired;
    return desired;
  }

  #read(envelope: Uint8Array): Desired {
    let payload: Uint8Array;
    try {
      payload = verify(DESIRED_TYPE, envelope, this.#directorKeys());
    } catch (cause) {
      throw new FieldloopError(
        "desired_signature_invalid",
        `Apply desired state: ${cause instanceof Error ? cause.message : "unreadable"}`,
        { cause },
      );
    }
    const desired = decodeMessage("desired", payload);
    if (desired.device !== this.#device) {
      throw new FieldloopError(
        "forbidden",
        `Apply desired state: it is for "${desired.device}", this is "${this.#device}"`,
      );
    }
    return desired;
  }
}
