import { FieldloopError } from "@fieldloop/protocol";

/** Polls until `probe` gives something, and says what was waited for when the time is over. */
export async function until<Value>(
  what: string,
  timeoutMs: number,
  probe: () => Promise<Value | undefined | false>,
  everyMs = 250,
): Promise<Value> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const value = await probe();
    if (value !== undefined && value !== false) return value;
    if (Date.now() > deadline)
      throw new FieldloopError(
        "timed_out",
        `Run demo: waited ${Math.round(timeoutMs / 1000)} s in vain until ${what}`,
      );
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}
