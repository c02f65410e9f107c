import { AsyncLocalStorage } from "node:async_hooks";

/**
 * An `AsyncLocalStorage` that was used once is carried on to every promise of the process, up to Node 22 at twice the time of each; what
 * Playwright has of it nobody can reach. Which ones are used is noted here, and the tests that come after in this process do without.
 */
const used = new Set<AsyncLocalStorage<unknown>>();
const run = Object.getOwnPropertyDescriptor(AsyncLocalStorage.prototype, "run")?.value as (
  ...parameters: unknown[]
) => unknown;

Object.defineProperty(AsyncLocalStorage.prototype, "run", {
  configurable: true,
  writable: true,
  value(this: AsyncLocalStorage<unknown>, ...parameters: unknown[]): unknown {
    used.add(this);
    return Reflect.apply(run, this, parameters);
  },
});

/** When nothing runs any more that needs one. The next use of each is as the first was. */
export function dropPromiseContexts(): void {
  for (const storage of used) storage.disable();
  used.clear();
}
