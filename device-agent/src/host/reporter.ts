import type { PredictionRow, SignalName } from "@fieldloop/protocol";
import type { PredictionOrigin } from "../control/prediction-batcher.js";
import type { HostMessage } from "../ipc.js";
import { AGENT_LIMITS } from "../limits.js";
import type { LaneNumbers } from "./numbers.js";

export type Send = (message: HostMessage) => Promise<void>;

/** Numbers the predictions of one lane and hands them to control, a few at a time. */
export class Reporter {
  readonly #send: Send;
  readonly #lane: string;
  readonly #numbers: LaneNumbers;
  #origin: PredictionOrigin | undefined;
  #firstN = 0;
  #rows: PredictionRow[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(send: Send, lane: string, numbers: LaneNumbers) {
    this.#send = send;
    this.#lane = lane;
    this.#numbers = numbers;
  }

  /** Takes a prediction and returns its number within the boot. */
  add(origin: PredictionOrigin, row: PredictionRow): number {
    const n = this.#numbers.take();
    if (this.#origin !== origin || n !== this.#firstN + this.#rows.length) void this.flush();
    if (this.#rows.length === 0) this.#firstN = n;
    this.#origin = origin;
    this.#rows.push(row);
    if (this.#rows.length >= AGENT_LIMITS.reportRowsMax) void this.flush();
    else this.#timer ??= setTimeout(() => void this.flush(), AGENT_LIMITS.reportIntervalMs);
    return n;
  }

  /** Sets a signal of prediction `n`. False where its row was handed on already, or has no such signal. */
  setSignal(n: number, name: SignalName, value: number): boolean {
    const row = this.#rows[n - this.#firstN];
    const at = this.#origin?.signalNames.indexOf(name) ?? -1;
    if (!row || at < 0) return false;
    this.#rows[n - this.#firstN] = { ...row, signals: row.signals.with(at, value) };
    return true;
  }

  /** Resolves when what was added is in control's pipe: then the numbers are used up, even if this process dies. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const rows = this.#rows;
    const origin = this.#origin;
    if (rows.length === 0 || !origin) return;
    this.#rows = [];
    await this.#send({ kind: "predictions", lane: this.#lane, origin, firstN: this.#firstN, rows });
  }
}
