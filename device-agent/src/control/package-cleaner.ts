import { cancelled } from "./download.js";
import type { PackageStore } from "./package-store.js";

/**
 * What lanes that share one store of packages must not do at once. Packages that no lane needs are removed; what a lane needs is asked
 * at the moment of removal, as lanes go on meanwhile. Two lanes that want the same package take turns at bringing it in.
 */
export class PackageCleaner {
  readonly #packages: PackageStore;
  readonly #needs: ((packageSha256: string) => boolean)[] = [];
  readonly #turns = new Map<string, Promise<unknown>>();
  #cleaning: Promise<void> = Promise.resolve();

  constructor(packages: PackageStore) {
    this.#packages = packages;
  }

  /** One more who may need a package. */
  register(needs: (packageSha256: string) => boolean): void {
    this.#needs.push(needs);
  }

  clean(): Promise<void> {
    const needed = { has: (packageSha256: string) => this.#needs.some((needs) => needs(packageSha256)) };
    const cleaned = this.#cleaning.then(() => this.#packages.keepOnly(needed, this.#turns));
    this.#cleaning = cleaned.catch(() => undefined);
    return cleaned;
  }

  /**
   * Runs `work` when nobody else works on the package; not at all where `signal` aborts before. Work that has begun is waited for: what it
   * leaves can be removed afterwards.
   * @throws FieldloopError the signal's own, or `cancelled`; what `work` throws
   */
  async inTurn<Result>(
    packageSha256: string,
    work: () => Promise<Result>,
    signal: AbortSignal,
  ): Promise<Result> {
    const before = this.#turns.get(packageSha256) ?? Promise.resolve();
    let begun = false;
    const begin = (): Promise<Result> => {
      if (signal.aborted) throw cancelled(signal);
      begun = true;
      return work();
    };
    const turn = before.then(begin, begin);
    this.#turns.set(packageSha256, turn);
    const over = (): void => {
      if (this.#turns.get(packageSha256) === turn) this.#turns.delete(packageSha256);
    };
    turn.then(over, over);
    await untilSettled(before, signal).catch((error: unknown) => {
      if (!begun) throw error;
    });
    return turn;
  }

  /** Resolves when nothing is being removed. */
  idle(): Promise<void> {
    return this.#cleaning;
  }
}

/** Waits for somebody else's work, however it ends. @throws FieldloopError as soon as `signal` aborts */
async function untilSettled(work: Promise<unknown>, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const gone = (): void => reject(cancelled(signal));
    const done = (): void => {
      signal.removeEventListener("abort", gone);
      resolve();
    };
    signal.addEventListener("abort", gone, { once: true });
    void work.catch(() => undefined).finally(done);
    if (signal.aborted) gone();
  });
}
