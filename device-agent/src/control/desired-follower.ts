import { toFieldloopError, type Desired } from "@fieldloop/protocol";
import type { DesiredStore } from "./desired-store.js";
import { isUnknownKey } from "./trust-follower.js";
import type { Warnings } from "./warnings.js";

export interface DesiredFollowerOptions {
  readonly store: DesiredStore;
  readonly warnings: Warnings;
  /** The revision may not fall below. */
  readonly floor: () => number;
  /** Does what the current desired state says. */
  readonly follow: () => Promise<void>;
  readonly onRefused: (error: unknown) => void;
  /** It was signed by a key that is not known, or not yet; {@link DesiredFollower.retry} looks at it again. */
  readonly onUnknownKey: () => void;
}

/** Takes desired states as they come, one after the other, and has them followed. */
export class DesiredFollower {
  readonly #options: DesiredFollowerOptions;
  #receiving: Promise<void> = Promise.resolve();
  /** The last one by an unknown key: the broker does not send it again. */
  #refused: Uint8Array | undefined;

  constructor(options: DesiredFollowerOptions) {
    this.#options = options;
  }

  get current(): Desired | undefined {
    return this.#options.store.current;
  }
  get revision(): number {
    return this.#options.store.revision;
  }

  /** What an earlier start accepted. A file that does not verify is told and not followed. */
  async load(): Promise<void> {
    try {
      await this.#options.store.load();
    } catch (error) {
      const coded = toFieldloopError(error);
      this.#options.warnings.raise(coded.code, coded.message, "error");
    }
  }

  async followCurrent(): Promise<void> {
    if (this.current) await this.#options.follow();
  }

  /** Two at once would write one file, and the older might be followed last. */
  receive(envelope: Uint8Array): void {
    this.#receiving = this.#receiving.then(() => this.#receive(envelope));
  }

  /** The fleet's keys were read anew: what was refused for its key may be the fleet's. */
  retry(): void {
    const envelope = this.#refused;
    this.#refused = undefined;
    if (envelope) this.receive(envelope);
  }

  async #receive(envelope: Uint8Array): Promise<void> {
    const { store, warnings, floor, follow, onRefused, onUnknownKey } = this.#options;
    try {
      const desired = await store.accept(envelope, floor());
      warnings.clear("desired_rollback_refused");
      warnings.clear("desired_signature_invalid");
      if (desired) await follow();
    } catch (error) {
      onRefused(error);
      if (!isUnknownKey(error)) return;
      this.#refused = envelope;
      onUnknownKey();
    }
  }
}
