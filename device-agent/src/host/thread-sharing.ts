import { availableParallelism } from "node:os";
import { type FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import type { Clock } from "../clock.js";
import { AGENT_LIMITS } from "../limits.js";
import type { HostModel } from "./model.js";
import { whoLeaves } from "./thread-shares.js";

export interface ThreadSharingOptions {
  /** What is open in the host, looked at anew each time. */
  readonly models: () => readonly HostModel[];
  readonly clock: Clock;
  readonly onTrouble: (error: FieldloopError) => void;
}

/**
 * Models of several lanes share the host's own thread as long as they hardly wait for one another: every now and then the one that costs
 * the others most, if any, moves to a thread of its own (docs/adr/0015).
 */
export class ThreadSharing {
  readonly #options: ThreadSharingOptions;
  #since: number;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;
  /** That did not open in a thread of their own. */
  readonly #stays = new WeakSet<HostModel>();

  constructor(options: ThreadSharingOptions) {
    this.#options = options;
    this.#since = options.clock.monotonic();
  }

  start(): void {
    // Where there is one processor, another thread keeps a run waiting just as well.
    if (availableParallelism() === 1) return;
    this.#timer = setInterval(() => {
      this.#looking ??= this.look().finally(() => {
        this.#looking = undefined;
      });
    }, AGENT_LIMITS.sharedLookMs);
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#looking;
  }

  /** What they did since the last look, and what follows from it. Never rejects. */
  async look(): Promise<void> {
    const now = this.#options.clock.monotonic();
    const seconds = (now - this.#since) / 1_000;
    this.#since = now;
    const models = this.#options.models().filter(({ isHere }) => isHere);
    const shares = models.map((model) => {
      const { frames, fastestMs } = model.takeRuns();
      return {
        rate: seconds > 0 ? frames / seconds : 0,
        // Neither is ever too short, and the machine does not disturb both.
        runMs: Math.min(model.warmRunMs, fastestMs),
        mayLeave: !model.carries && !this.#stays.has(model),
      };
    });
    const leaves = models[whoLeaves(shares) ?? -1];
    if (!leaves) return;
    try {
      await leaves.moveBeside();
    } catch (error) {
      this.#stays.add(leaves);
      this.#options.onTrouble(toFieldloopError(error));
    }
  }
}
