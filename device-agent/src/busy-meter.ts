import { cpus } from "node:os";

/**
 * Share of all cores that was busy since the reading before; undefined at the first. What runs at a lower priority makes way for frames, so
 * it keeps nobody busy.
 */
export class BusyMeter {
  #before: { busy: number; total: number } | undefined;

  read(): number | undefined {
    const now = { busy: 0, total: 0 };
    for (const { times } of cpus()) {
      const total = times.user + times.nice + times.sys + times.idle + times.irq;
      now.total += total;
      now.busy += total - times.idle - times.nice;
    }
    const before = this.#before;
    this.#before = now;
    if (!before || now.total <= before.total) return undefined;
    return (now.busy - before.busy) / (now.total - before.total);
  }
}
