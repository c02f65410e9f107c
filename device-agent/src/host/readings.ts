import { readdir, readFile } from "node:fs/promises";
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
