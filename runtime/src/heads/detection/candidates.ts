/** Candidates that enter suppression, best first: bounds its quadratic cost on a frame full of noise. */
export const CANDIDATES_MAX = 1_000;

/**
 * The best candidates of a frame, at most {@link CANDIDATES_MAX}, in columns: a binary heap with the worst on top, so that a frame full of
 * noise costs one comparison for each candidate that is not among them. Of equal scores the earlier one is the better.
 */
export class Candidates {
  /** What scores less is no candidate; rises once there are more candidates than places. */
  floor: number;
  count = 0;
  /** Highest score of any class but the background; -Infinity where no score compares. */
  scoreMax = Number.NEGATIVE_INFINITY;
  readonly #scores = new Float32Array(CANDIDATES_MAX);
  readonly #rows = new Int32Array(CANDIDATES_MAX);
  readonly #classes = new Uint16Array(CANDIDATES_MAX);
  readonly #sequence = new Float64Array(CANDIDATES_MAX);
  #added = 0;

  constructor(floor: number) {
    this.floor = floor;
  }

  /** Notes a score without making it a candidate. */
  see(score: number): void {
    if (score > this.scoreMax) this.scoreMax = score;
  }

  /** `row` is where the decoder finds the box. Scores under the floor are ignored. */
  add(score: number, row: number, label: number): void {
    if (!(score >= this.floor)) return;
    const order = this.#added++;
    if (this.count < CANDIDATES_MAX) {
      this.#put(this.count, score, row, label, order);
      this.#rise(this.count++);
    } else {
      // Of equal scores the earlier one stays.
      if (score <= this.#scores[0]!) return;
      this.#put(0, score, row, label, order);
      this.#sink(0);
    }
    if (this.count === CANDIDATES_MAX) this.floor = Math.max(this.floor, this.#scores[0]!);
  }

  /** Places of the candidates, best first, to ask for their score, row and class. */
  ordered(): number[] {
    const places = Array.from({ length: this.count }, (_, place) => place);
    return places.sort((a, b) => (this.#isWorse(a, b) ? 1 : -1));
  }

  score(place: number): number {
    return this.#scores[place]!;
  }

  row(place: number): number {
    return this.#rows[place]!;
  }

  label(place: number): number {
    return this.#classes[place]!;
  }

  #put(at: number, score: number, row: number, label: number, order: number): void {
    this.#scores[at] = score;
    this.#rows[at] = row;
    this.#classes[at] = label;
    this.#sequence[at] = order;
  }

  #isWorse(a: number, b: number): boolean {
    const difference = this.#scores[a]! - this.#scores[b]!;
    return difference < 0 || (difference === 0 && this.#sequence[a]! > this.#sequence[b]!);
  }

  #rise(from: number): void {
    let at = from;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#isWorse(at, parent)) return;
      this.#swap(at, parent);
      at = parent;
    }
  }

  #sink(from: number): void {
    let at = from;
    for (;;) {
      const left = 2 * at + 1;
      if (left >= this.count) return;
      const right = left + 1;
      const worse = right < this.count && this.#isWorse(right, left) ? right : left;
      if (!this.#isWorse(worse, at)) return;
      this.#swap(at, worse);
      at = worse;
    }
  }

  #swap(a: number, b: number): void {
    const [score, row, label, order] = [
      this.#scores[a]!,
      this.#rows[a]!,
      this.#classes[a]!,
      this.#sequence[a]!,
    ];
    this.#put(a, this.#scores[b]!, this.#rows[b]!, this.#classes[b]!, this.#sequence[b]!);
    this.#put(b, score, row, label, order);
  }
}
