/**
 * Goes through a set that may change, a part at a time: each part begins where the one before ended, after the last item the first
 * comes again. What is looked at in one step is bounded however large the set is, and everything is looked at in turn.
 */
export class Round<Item> {
  readonly #items: ReadonlySet<Item>;
  #at: Iterator<Item> | undefined;

  constructor(items: ReadonlySet<Item>) {
    this.#items = items;
  }

  /** The next items, `most` of them or all that there are. */
  take(most: number): Item[] {
    const taken: Item[] = [];
    const wanted = Math.min(most, this.#items.size);
    while (taken.length < wanted) {
      this.#at ??= this.#items.values();
      const next = this.#at.next();
      if (next.done) this.#at = undefined;
      else taken.push(next.value);
    }
    return taken;
  }
}
