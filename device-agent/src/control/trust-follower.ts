import { FieldloopError, toFieldloopError, type PublicKey } from "@fieldloop/protocol";
import type { Logger } from "pino";
import type { Clock, RandomSource } from "../clock.js";
import { AGENT_LIMITS } from "../limits.js";
import type { TrustClient } from "./trust/trust-client.js";
import type { Warnings } from "./warnings.js";

export interface TrustFollowerOptions {
  readonly client: Pick<TrustClient, "directorKeys" | "refresh">;
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly log: Logger;
  readonly warnings: Warnings;
  /** The metadata are fresh: what was refused for an unknown key may be looked at again. */
  readonly onRefreshed: () => void;
}

/** No trouble of the trust: the link is down, or the agent stops. */
const QUIET: ReadonlySet<string> = new Set([
  "trust_unreachable",
  "unavailable",
  "cancelled",
  "download_too_slow",
]);

/**
 * Keeps what this device knows of its fleet's keys fresh, so that a director key that was taken away directs no longer: soon after the
 * start, every few hours, and when something came that was signed by a key which is not known. Without a server everything goes on as it was.
 */
export class TrustFollower {
  readonly #options: TrustFollowerOptions;
  readonly #stop = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  /** When the next refresh is due, on the monotonic clock. */
  #due = Number.POSITIVE_INFINITY;
  #tried = Number.NEGATIVE_INFINITY;
  #failures = 0;
  #running: Promise<void> | undefined;
  /** One more is to follow the one that runs: that may have read what was published before. */
  #isWanted = false;
  #raised: FieldloopError["code"] | undefined;

  constructor(options: TrustFollowerOptions) {
    this.#options = options;
  }

  /** Who may sign desired states and commands. */
  keys = (): readonly PublicKey[] => this.#options.client.directorKeys();

  start(): void {
    this.#schedule(this.#options.random() * AGENT_LIMITS.trustFirstRefreshMs);
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    clearTimeout(this.#timer);
    await this.#running;
  }

  /** Something was signed by an unknown key: the fleet may have another one. Whoever floods a device with such gets no flood of requests. */
  unknownKey(): void {
    const rest = this.#tried + AGENT_LIMITS.trustRefreshMinMs - this.#options.clock.monotonic();
    this.#schedule(Math.max(0, rest));
  }

  #schedule(delayMs: number): void {
    if (this.#stop.signal.aborted) return;
    const due = this.#options.clock.monotonic() + delayMs;
    if (due >= this.#due) return;
    this.#due = due;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#work(), delayMs);
    this.#timer.unref();
  }

  #work(): void {
    this.#due = Number.POSITIVE_INFINITY;
    if (this.#running) {
      this.#isWanted = true;
      return;
    }
    this.#running = this.#refresh().finally(() => {
      this.#running = undefined;
      if (this.#isWanted) this.unknownKey();
      this.#isWanted = false;
    });
  }

  async #refresh(): Promise<void> {
    const { client, clock, onRefreshed } = this.#options;
    this.#tried = clock.monotonic();
    try {
      await client.refresh(this.#stop.signal);
      this.#failures = 0;
      this.#tell(undefined);
      this.#schedule(AGENT_LIMITS.trustRefreshMs);
      onRefreshed();
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      this.#tell(toFieldloopError(error));
      const backOff = AGENT_LIMITS.trustRetryMinMs * 2 ** Math.min(this.#failures++, 16);
      this.#schedule(Math.min(backOff, AGENT_LIMITS.trustRetryMaxMs) * (0.5 + this.#options.random()));
    }
  }

  #tell(error: FieldloopError | undefined): void {
    const { warnings, log } = this.#options;
    if (this.#raised && this.#raised !== error?.code) warnings.clear(this.#raised);
    this.#raised = undefined;
    if (!error) return;
    if (QUIET.has(error.code)) {
      log.warn({ code: error.code }, error.message);
      return;
    }
    warnings.raise(error.code, error.message);
    this.#raised = error.code;
  }
}

/** An envelope whose key this device does not know, or not yet. */
export function isUnknownKey(error: unknown): boolean {
  if (!(error instanceof FieldloopError)) return false;
  return error.code === "package_signature_unknown_key" || isUnknownKey(error.cause);
}
