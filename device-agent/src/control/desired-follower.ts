import { toFieldloopError, type Desired } from "@fieldloop/protocol";
import { AGENT_LIMITS } from "../limits.js";
import { sleep } from "./deployment-rules.js";
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
  /** Between two tries where the disk takes nothing; that of the limits by default. */
  readonly retryMinMs?: number;
}

/** Takes desired states as they come, one after the other, and has them followed. */
export class DesiredFollower {
  readonly #options: DesiredFollowerOptions;
  readonly #stop = new AbortController();
  #receiving: Promise<void> = Promise.resolve();
  /** The last one by an unknown key, until one is accepted: the broker does not send it again. */
  #refused: Uint8Array | undefined;
  /** How many came: one that waits for the disk is given up for a newer one. */
  #received = 0;

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
    const number = ++this.#received;
    this.#receiving = this.#receiving.then(() => this.#receive(envelope, number));
  }

  /**
   * The fleet's keys were read anew: what was refused for its key may be the fleet's. Each time it is looked at again, as what was read may
   * be older than the key; that by itself has the keys read no oftener.
   */
  retry(): void {
    const envelope = this.#refused;
    this.#refused = undefined;
    if (!envelope) return;
    // Not a newer one: what waits for the disk goes on waiting.
    const number = this.#received;
    this.#receiving = this.#receiving.then(() => this.#receive(envelope, number, true));
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#receiving;
  }

  #keep(envelope: Uint8Array, again: boolean): void {
    if (again) this.#refused ??= envelope;
    else {
      this.#refused = envelope;
      this.#options.onUnknownKey();
    }
  }

  async #receive(envelope: Uint8Array, number: number, again = false): Promise<void> {
    const { store, warnings, floor, follow, onRefused } = this.#options;
    let waitMs = this.#options.retryMinMs ?? AGENT_LIMITS.storageRetryMinMs;
    // The link stays up while what is left is sent: what comes then is for the next start.
    while (!this.#stop.signal.aborted) {
      try {
        const desired = await store.accept(envelope, floor());
        warnings.clear("desired_rollback_refused");
        warnings.clear("desired_signature_invalid");
        this.#refused = undefined;
        if (desired) await follow();
        return;
      } catch (error) {
        onRefused(error);
        if (isUnknownKey(error)) this.#keep(envelope, again);
        // The broker brings it once a connection: what the disk did not take is tried again until it does.
        const isDisk = toFieldloopError(error).code.startsWith("storage_");
        if (!isDisk || number < this.#received) return;
        await sleep(waitMs, this.#stop.signal);
        waitMs = Math.min(waitMs * 2, AGENT_LIMITS.storageRetryMaxMs);
      }
    }
  }
}
