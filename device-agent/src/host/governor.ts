import { AGENT_LIMITS } from "../limits.js";

export interface GovernedLane {
  readonly name: string;
  readonly priority: number;
}

export interface GovernorReading {
  /** The hottest zone, degrees Celsius; undefined where the device does not tell. */
  readonly temperatureC: number | undefined;
  /** Share of all cores that is busy, 0..1; undefined where it is not known. */
  readonly busyShare: number | undefined;
  /** Frames that lanes of the highest priority dropped since the reading before. */
  readonly framesDropped: number;
}

export interface GovernorDecision {
  /** Steps taken; 0 restricts nothing. */
  readonly level: number;
  /** What made it restrict, and since when (as given to `update`); undefined at level 0. */
  readonly cause: "temperature" | "load" | undefined;
  readonly sinceMs: number | undefined;
  /** Share of its rate that a lane may have; 1 where it is not in here. */
  readonly rateShares: ReadonlyMap<string, number>;
  /** Lanes that run a cheaper variant where they have one. */
  readonly cheaper: ReadonlySet<string>;
}

/** Least times between two changes, milliseconds. */
export interface GovernorTimes {
  /** From one restriction to the next. */
  readonly holdMs: number;
  /** Of calm, until one restriction is taken back. */
  readonly restoreMs: number;
  /** Between two readings; that of the limits by default. */
  readonly intervalMs?: number;
}

export const GOVERNOR_TIMES: GovernorTimes = {
  holdMs: AGENT_LIMITS.governorHoldMs,
  restoreMs: AGENT_LIMITS.governorRestoreMs,
};

interface Step {
  readonly lane: string;
  /** Undefined: the cheaper variant. */
  readonly rateShare: number | undefined;
}

/**
 * Decides how much a device may do. Hot: lanes are slowed down, the lowest priority first, then they change to a cheaper variant.
 * Busy, and the highest priority loses frames by it: the lanes below it are slowed down, for its sake. One step at a time, no two restrictions within
 * `holdMs`, and back by one only after `restoreMs` below the lower bound: it cannot oscillate faster than that.
 */
export class Governor {
  readonly #hotSteps: readonly Step[];
  readonly #busySteps: readonly Step[];
  readonly #times: GovernorTimes;
  #level = 0;
  #cause: "temperature" | "load" | undefined;
  #since: number | undefined;
  #changedAt = Number.NEGATIVE_INFINITY;
  /** Since when nothing speaks for the restriction. */
  #calmSince: number | undefined;

  constructor(lanes: readonly GovernedLane[], times: GovernorTimes = GOVERNOR_TIMES) {
    this.#times = times;
    const rising = [...lanes].sort((a, b) => a.priority - b.priority);
    const highest = rising.at(-1)?.priority ?? 0;
    this.#hotSteps = [
      ...slowing(rising),
      ...rising.map(({ name }) => ({ lane: name, rateShare: undefined })),
    ];
    this.#busySteps = slowing(rising.filter(({ priority }) => priority < highest));
  }

  /** Times are monotonic milliseconds. */
  update(nowMs: number, reading: GovernorReading): GovernorDecision {
    const { governorHotC, governorCoolC, governorIdleShare } = AGENT_LIMITS;
    const temperatureC = reading.temperatureC ?? Number.NEGATIVE_INFINITY;
    const busyShare = reading.busyShare ?? 0;
    if (temperatureC >= governorHotC) this.#restrict(nowMs, "temperature");
    else if (isOverload(reading) && this.#cause !== "temperature") this.#restrict(nowMs, "load");
    else {
      const calm = this.#cause === "load" ? busyShare < governorIdleShare : temperatureC < governorCoolC;
      if (calm) this.#restore(nowMs);
      else this.#calmSince = undefined;
    }
    return this.#decision();
  }

  #restrict(nowMs: number, cause: "temperature" | "load"): void {
    this.#calmSince = undefined;
    const steps = cause === "temperature" ? this.#hotSteps : this.#busySteps;
    if (nowMs - this.#changedAt < this.#times.holdMs || this.#level >= steps.length) return;
    // The steps of load are the first ones of heat too, but for equals of the highest priority.
    this.#level++;
    this.#changedAt = nowMs;
    this.#cause = cause;
    this.#since ??= nowMs;
  }

  #restore(nowMs: number): void {
    if (this.#level === 0) return;
    this.#calmSince ??= nowMs;
    const waitedMs = nowMs - Math.max(this.#calmSince, this.#changedAt);
    if (waitedMs < this.#times.restoreMs) return;
    this.#level--;
    this.#changedAt = nowMs;
    if (this.#level > 0) return;
    this.#cause = undefined;
    this.#since = undefined;
  }

  #decision(): GovernorDecision {
    const steps = this.#cause === "load" ? this.#busySteps : this.#hotSteps;
    const rateShares = new Map<string, number>();
    const cheaper = new Set<string>();
    for (const { lane, rateShare } of steps.slice(0, this.#level)) {
      if (rateShare === undefined) cheaper.add(lane);
      else rateShares.set(lane, rateShare);
    }
    return { level: this.#level, cause: this.#cause, sinceMs: this.#since, rateShares, cheaper };
  }
}

/** A busy machine is no trouble as long as what matters most gets through. */
function isOverload({ busyShare, framesDropped }: GovernorReading): boolean {
  return framesDropped > 0 && (busyShare ?? 0) >= AGENT_LIMITS.governorBusyShare;
}

/** All lanes by the first share, the lowest priority first, then all by the next. */
function slowing(rising: readonly GovernedLane[]): Step[] {
  return AGENT_LIMITS.governorShares.flatMap((rateShare) =>
    rising.map(({ name }) => ({ lane: name, rateShare })),
  );
}
