import type { PredictionRow } from "@fieldloop/protocol";
import type { PredictionOrigin } from "../control/prediction-batcher.js";
import type { HostMessage } from "../ipc.js";
import { AGENT_LIMITS } from "../limits.js";

export type Send = (message: HostMessage) => Promise<void>;

/** Numbers predictions and hands them to control, a few at a time. */
export class Reporter {
  readonly #send: Send;
  #nextN: number;
  #origin: PredictionOrigin | undefined;
  #firstN = 0;
  #rows: PredictionRow[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(send: Send, nextN: number) {
    this.#send = send;
    this.#nextN = nextN;
  }

  /** Takes a prediction and returns its number within the boot. */
  add(origin: PredictionOrigin, row: PredictionRow): number {
    if (this.#origin !== origin) void this.flush();
    if (this.#rows.length === 0) this.#firstN = this.#nextN;
    this.#origin = origin;
    this.#rows.push(row);
    if (this.#rows.length >= AGENT_LIMITS.reportRowsMax) void this.flush();
    else this.#timer ??= setTimeout(() => void this.flush(), AGENT_LIMITS.reportIntervalMs);
    return this.#nextN++;
  }

  /** Resolves when what was added is in control's pipe: then the numbers are used up, even if this process dies. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const rows = this.#rows;
    const origin = this.#origin;
    if (rows.length === 0 || !origin) return;
    this.#rows = [];
    await this.#send({ kind: "predictions", origin, firstN: this.#firstN, rows });
  }
}
