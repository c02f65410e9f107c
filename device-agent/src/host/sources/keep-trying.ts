import { setTimeout as sleep } from "node:timers/promises";
import { FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import { AGENT_LIMITS } from "../../limits.js";
import type { SourceContext } from "./source.js";

export interface Attempt {
  readonly signal: AbortSignal;
  /** It delivers: what was told as a trouble is over, and the next failure is met by a short wait. */
  readonly healthy: () => void;
}

/** `again` opens the source at once, `ended` not any more. */
export type AttemptEnd = "again" | "ended";

/**
 * What follows the end of a file of which `count` frames were delivered. To loop over nothing would only heat the processor.
 * @throws FieldloopError `source_failed`
 */
export function afterFile(loop: boolean, count: number, action: string): AttemptEnd {
  if (!loop) return "ended";
  if (count > 0) return "again";
  throw new FieldloopError("source_failed", `${action}: no whole frame is in it, so it cannot be looped`);
}

/** Runs a source's attempt over and over: a failure is told and waited out, longer each time. */
export class KeepTrying {
  readonly #context: Pick<SourceContext, "onTrouble" | "onEnd">;
  readonly #attempt: (attempt: Attempt) => Promise<AttemptEnd>;
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #restarts = 0;

  constructor(
    context: Pick<SourceContext, "onTrouble" | "onEnd">,
    attempt: (attempt: Attempt) => Promise<AttemptEnd>,
  ) {
    this.#context = context;
    this.#attempt = attempt;
  }

  /** Attempts that came after a failure. */
  get restarts(): number {
    return this.#restarts;
  }

  start(): void {
    this.#running = this.#run();
  }

  /** Resolves when the attempt in hand has ended. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    let waitMs: number = AGENT_LIMITS.sourceRestartMinMs;
    let troubled = false;
    const healthy = (): void => {
      waitMs = AGENT_LIMITS.sourceRestartMinMs;
      if (troubled) this.#context.onTrouble(undefined);
      troubled = false;
    };
    while (!signal.aborted) {
      try {
        if ((await this.#attempt({ signal, healthy })) === "ended") {
          this.#context.onEnd?.();
          return;
        }
      } catch (error) {
        if (signal.aborted) return;
        troubled = true;
        this.#restarts++;
        this.#context.onTrouble(toFieldloopError(error));
        await sleep(waitMs, undefined, { signal }).catch(() => undefined);
        waitMs = Math.min(waitMs * 2, AGENT_LIMITS.sourceRestartMaxMs);
      }
    }
  }
}

/** Rejects never; resolves when the signal aborts or the work is done. */
export async function untilAborted(signal: AbortSignal, work: Promise<unknown>): Promise<void> {
  if (signal.aborted) return;
  let abort!: () => void;
  const aborted = new Promise<void>((resolve) => {
    abort = resolve;
  });
  signal.addEventListener("abort", abort, { once: true });
  try {
    await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
