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
    const cleaned = this.#cleaning.then(() => this.#packages.keepOnly(needed));
    this.#cleaning = cleaned.catch(() => undefined);
    return cleaned;
  }

  /** Runs `work` when nobody else works on the package. */
  async inTurn<Result>(packageSha256: string, work: () => Promise<Result>): Promise<Result> {
    const before = this.#turns.get(packageSha256) ?? Promise.resolve();
    const turn = before.then(work, work);
    this.#turns.set(packageSha256, turn);
    try {
      return await turn;
    } finally {
      if (this.#turns.get(packageSha256) === turn) this.#turns.delete(packageSha256);
    }
  }

  /** Resolves when nothing is being removed. */
  idle(): Promise<void> {
    return this.#cleaning;
  }
}
