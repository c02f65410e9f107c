/** What the agent knows of time and chance; tests pass their own. */
export interface Clock {
  /** Milliseconds since the epoch; may jump. Only for what people and the server read. */
  now(): number;
  /** Milliseconds that only grow; every duration and deadline is measured in it. */
  monotonic(): number;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
};

/** Uniform in [0, 1). */
export type RandomSource = () => number;
