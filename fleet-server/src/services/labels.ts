import { formatModelVersion } from "@fieldloop/protocol";
import type { Database } from "../store/database.js";
import type { LabelStore } from "../store/labels.js";

const CACHED_MAX = 1_000;

/** The labels that a version's class numbers mean; a version's labels never change. */
export class LabelService {
  readonly #store: LabelStore;
  readonly #cache = new Map<string, readonly string[]>();
  readonly #listeners = new Set<(model: string, version: number) => Promise<void>>();

  constructor(store: LabelStore) {
    this.#store = store;
  }

  /** Says what a version's classes are called; the registry calls it when it publishes a version. */
  async put(model: string, version: number, labels: readonly string[]): Promise<void> {
    await this.#store.put(model, version, labels);
    this.#cache.delete(formatModelVersion(model, version));
    for (const listener of this.#listeners) await listener(model, version);
  }

  /** @returns undefined for a version that was never published */
  async get(model: string, version: number, tx?: Database): Promise<readonly string[] | undefined> {
    const key = formatModelVersion(model, version);
    const cached = this.#cache.get(key);
    if (cached) return cached;
    const labels = await this.#store.get(model, version, tx);
    if (labels) {
      if (this.#cache.size >= CACHED_MAX) this.#cache.clear();
      this.#cache.set(key, labels);
    }
    return labels;
  }

  /** Calls `listener` for each version whose labels became known; `put` waits for it. */
  onKnown(listener: (model: string, version: number) => Promise<void>): void {
    this.#listeners.add(listener);
  }
}

/** The label of a class; its number where the version's labels are not known, `none` where nothing was detected. */
export function labelOf(labels: readonly string[] | undefined, classIndex: number): string {
  if (classIndex < 0) return "none";
  return labels?.[classIndex] ?? `class ${classIndex}`;
}
