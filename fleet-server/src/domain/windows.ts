import type { MaintenanceWindow } from "@fieldloop/protocol";

const DAY_MINUTES = 1440;
const MINUTE_MS = 60_000;
const WEEKDAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
/** Zones remembered; there are about 600 in the world. */
const ZONES_MAX = 1_000;

/** Minutes since Sunday 00:00 by the wall clocks of a time zone, with daylight saving as it is there then. */
export class ZoneClock {
  readonly #formats = new Map<string, Intl.DateTimeFormat>();
  #minute = Number.NaN;
  readonly #known = new Map<string, number>();

  /** A zone that nobody knows counts as UTC. */
  weekMinute(timeZone: string, now: number): number {
    const minute = Math.floor(now / MINUTE_MS);
    if (minute !== this.#minute) {
      this.#minute = minute;
      this.#known.clear();
    }
    let known = this.#known.get(timeZone);
    if (known === undefined) {
      known = readWeekMinute(this.#format(timeZone), now);
      if (this.#known.size < ZONES_MAX) this.#known.set(timeZone, known);
    }
    return known;
  }

  #format(timeZone: string): Intl.DateTimeFormat {
    let format = this.#formats.get(timeZone);
    if (!format) {
      format = makeFormat(timeZone);
      if (this.#formats.size < ZONES_MAX) this.#formats.set(timeZone, format);
    }
    return format;
  }
}

function makeFormat(timeZone: string): Intl.DateTimeFormat {
  const fields = { weekday: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" } as const;
  try {
    return new Intl.DateTimeFormat("en-US", { ...fields, timeZone });
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return new Intl.DateTimeFormat("en-US", { ...fields, timeZone: "UTC" });
  }
}

function readWeekMinute(format: Intl.DateTimeFormat, now: number): number {
  const parts = new Map(format.formatToParts(now).map(({ type, value }) => [type, value]));
  const day = WEEKDAYS.indexOf(parts.get("weekday")!);
  return day * DAY_MINUTES + Number(parts.get("hour")) * 60 + Number(parts.get("minute"));
}

/** The window that is open at a minute of the week and closes last, with the minutes until it closes; undefined where none is open. */
export function openWindow(
  windows: readonly MaintenanceWindow[],
  weekMinute: number,
): { window: MaintenanceWindow; minutesLeft: number } | undefined {
  let best: { window: MaintenanceWindow; minutesLeft: number } | undefined;
  for (const window of windows) {
    const [hour, minute] = window.start.split(":").map(Number) as [number, number];
    for (const day of window.days) {
      const since =
        (weekMinute - (day * DAY_MINUTES + hour * 60 + minute) + 7 * DAY_MINUTES) % (7 * DAY_MINUTES);
      const minutesLeft = window.minutes - since;
      if (minutesLeft > 0 && minutesLeft > (best?.minutesLeft ?? 0)) best = { window, minutesLeft };
    }
  }
  return best;
}
