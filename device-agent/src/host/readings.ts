import { readdir, readFile } from "node:fs/promises";
import { cpus } from "node:os";
import { join } from "node:path";

/** Above it a zone is broken or no temperature at all, degrees Celsius. */
const PLAUSIBLE_C = 200;

/** The hottest `thermal_zone*` of a folder as Linux has them (millidegrees in `temp`); undefined where none is readable. */
export async function readTemperature(thermalPath: string): Promise<number | undefined> {
  const names = await readdir(thermalPath).catch(() => []);
  const readings = await Promise.all(
    names
      .filter((name) => /^thermal_zone\d+$/.test(name))
      .map(
        async (name) =>
          Number(await readFile(join(thermalPath, name, "temp"), "utf8").catch(() => "NaN")) / 1000,
      ),
  );
  const plausible = readings.filter((value) => value > -PLAUSIBLE_C && value < PLAUSIBLE_C);
  return plausible.length === 0 ? undefined : Math.max(...plausible);
}

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
