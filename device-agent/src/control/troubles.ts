import { type FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import type { Logger } from "pino";
import { raiseBoot } from "./identity.js";
import type { Warnings } from "./warnings.js";

/** Refusals that the fleet should hear of, not only this device's log. */
const TOLD = new Set(["desired_signature_invalid", "desired_rollback_refused", "storage_failed"]);

/** What the control process has to say of troubles that are its own: link, disk, what it was told and refused. */
export class Troubles {
  readonly #directory: string;
  readonly #device: string;
  readonly #boot: number;
  readonly #log: Logger;
  readonly #warnings: Warnings;

  constructor(options: {
    readonly directory: string;
    readonly device: string;
    readonly boot: number;
    readonly log: Logger;
    readonly warnings: Warnings;
  }) {
    this.#directory = options.directory;
    this.#device = options.device;
    this.#boot = options.boot;
    this.#log = options.log;
    this.#warnings = options.warnings;
  }

  /** A file that did not parse and was kept aside. */
  corrupt(message: string): void {
    this.#warnings.raise("storage_failed", message);
  }

  /** The disk does not take what is written, or does again (undefined). */
  storage(error: FieldloopError | undefined): void {
    if (error) this.#warnings.raise("storage_failed", error.message, "error");
    else this.#warnings.clear("storage_failed");
  }

  /** Why the broker could not be reached; undefined: it was. */
  link(error: FieldloopError | undefined): void {
    if (!error) {
      this.#log.info({ device: this.#device }, "connected to the fleet");
      this.#warnings.clear("unauthenticated");
      return;
    }
    if (error.code === "unauthenticated") this.#warnings.raise(error.code, error.message, "error");
    else this.#log.warn({ code: error.code }, error.message);
  }

  /** `what` of the fleet was not followed. */
  refused(what: string, error: unknown): void {
    const coded = toFieldloopError(error);
    if (TOLD.has(coded.code)) this.#warnings.raise(coded.code, coded.message);
    else this.#log.warn({ code: coded.code, what }, coded.message);
  }

  /** The server knows a newer boot of this device: a copy of its state folder runs elsewhere, or an old one was put back. */
  async overtaken(seen: number): Promise<void> {
    const message = `The server saw boot ${seen} of this device, this is boot ${this.#boot}`;
    this.#warnings.raise("boot_superseded", message, "error");
    try {
      await raiseBoot(this.#directory, seen);
    } catch (error) {
      this.refused("boot number", error);
    }
  }
}
