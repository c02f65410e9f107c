/** Predictions that instability looks back on. */
export const INSTABILITY_WINDOW = 8;

/** State of one stream of predictions: the classes of its last few, in constant memory. */
export class SignalTracker {
  readonly #classes = new Int32Array(INSTABILITY_WINDOW);
  #count = 0;

  /**
   * Share of the last {@link INSTABILITY_WINDOW} classes that differ from `predictedClass`, 0 for the first; then
   * remembers it. A model that flickers on a steady scene is often wrong (Kang et al. 2020, "Model assertions").
   */
  update(predictedClass: number): number {
    const held = Math.min(this.#count, INSTABILITY_WINDOW);
    let different = 0;
    for (let at = 0; at < held; at++) if (this.#classes[at] !== predictedClass) different++;
    this.#classes[this.#count % INSTABILITY_WINDOW] = predictedClass;
    this.#count++;
    return held === 0 ? 0 : different / held;
  }

  /** Forgets the stream, e.g. after its source changed. */
  reset(): void {
    this.#count = 0;
  }
}
