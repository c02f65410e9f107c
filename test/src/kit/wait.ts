/** Waits for a condition with a deadline; tests never sleep for luck. */
export async function until<Value>(
  what: string,
  probe: () => Value | undefined | false | null | Promise<Value | undefined | false | null>,
  options: { readonly timeoutMs?: number; readonly everyMs?: number } = {},
): Promise<Value> {
  const { timeoutMs = 15_000, everyMs = 25 } = options;
  const deadline = performance.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const value = await probe();
      if (value) return value;
    } catch (error) {
      last = error;
    }
    if (performance.now() > deadline) {
      throw new Error(
        `Waited ${timeoutMs} ms in vain until ${what}`,
        last === undefined ? undefined : { cause: last },
      );
    }
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}
