import { AGENT_LIMITS } from "../limits.js";

/** What waits for its turn. */
export interface Waiting {
  readonly priority: number;
  /** Since when it could run, monotonic milliseconds. */
  readonly since: number;
}

/**
 * The one that runs next: the highest priority, where each `laneAgeingMs` of waiting counts for one level, so that none starves; of
 * equals the one that waited longest.
 */
export function pickNext<Item extends Waiting>(items: readonly Item[], nowMs: number): Item | undefined {
  let best: Item | undefined;
  let bestRank = Number.NEGATIVE_INFINITY;
  for (const item of items) {
    const rank = item.priority + (nowMs - item.since) / AGENT_LIMITS.laneAgeingMs;
    if (rank > bestRank || (rank === bestRank && best && item.since < best.since)) {
      best = item;
      bestRank = rank;
    }
  }
  return best;
}

/** A lane as the scheduler sees it. */
export interface Task {
  readonly priority: number;
  /** Since when it has something to run; undefined while it has not, or may not run. */
  readonly waitingSince: number | undefined;
  /** What runs cannot share at the same time: a model. */
  readonly resource: object | undefined;
  /** Threads of one run. */
  readonly threadCount: number;
  /** Runs what it has for one turn. Never rejects. */
  run(): Promise<void>;
}

export interface SchedulerOptions {
  /** Looked at anew for each turn. */
  readonly tasks: Iterable<Task>;
  /** The threads of all runs at one time together are at most so many. */
  readonly threadCount: number;
  readonly now: () => number;
}

/** Gives lanes their turns: as many at once as the thread budget allows, one at a time on each model. */
export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #running = new Map<
    Task,
    { readonly resource: object | undefined; readonly threadCount: number }
  >();
  #idle: (() => void) | undefined;
  #stopped = false;

  constructor(options: SchedulerOptions) {
    this.#options = options;
  }

  /** Something may be able to run that was not before. */
  wake(): void {
    while (!this.#stopped) {
      const next = this.#next();
      if (!next) return;
      void this.#start(next);
    }
  }

  /** Starts no more turns; resolves when those in hand have ended. */
  async stop(): Promise<void> {
    this.#stopped = true;
    if (this.#running.size === 0) return;
    await new Promise<void>((resolve) => {
      this.#idle = resolve;
    });
  }

  #next(): Task | undefined {
    const running = [...this.#running.values()];
    const used = running.reduce((sum, { threadCount }) => sum + threadCount, 0);
    const waiting: (Waiting & { readonly task: Task })[] = [];
    for (const task of this.#options.tasks) {
      const { waitingSince: since, priority } = task;
      if (since === undefined || this.#running.has(task)) continue;
      if (task.resource && running.some(({ resource }) => resource === task.resource)) continue;
      waiting.push({ task, priority, since });
    }
    const task = pickNext(waiting, this.#options.now())?.task;
    // It waits for its threads: whoever needs fewer must not overtake it for ever.
    const fits = task && (used === 0 || used + task.threadCount <= this.#options.threadCount);
    return fits ? task : undefined;
  }

  async #start(task: Task): Promise<void> {
    this.#running.set(task, { resource: task.resource, threadCount: task.threadCount });
    await task.run();
    this.#running.delete(task);
    if (this.#running.size === 0) this.#idle?.();
    this.wake();
  }
}
