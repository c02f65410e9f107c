import type { UpdateWindow } from "./messages/desired.js";

/** Whether a maintenance window is open, until when, or when it opens next. Times in milliseconds since the epoch. */
export type WindowState =
  | { readonly open: true; readonly closesAt: number }
  | { readonly open: false; readonly opensAt: number };

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;
/** The same weekday comes again after seven days; a day that a time zone leaves out moves it by one. */
const AHEAD_DAYS = 15;

/**
 * A window in the local time of a time zone (IANA name; one that nobody knows counts as UTC).
 *
 * It opens at the first instant of a listed day at which the clocks show `start` or later, and stays open for `minutes` that really pass:
 * a start that the clocks leap over in spring opens right after the leap, one that they show twice in autumn opens the first time only, and
 * a window across a change is not shorter or longer for it. It may reach into the days after.
 */
export function windowState(window: UpdateWindow, time: number, timeZone: string): WindowState {
  const clocks = new LocalClocks(timeZone);
  const today = clocks.day(time);
  const lengthMs = window.minutes * MINUTE_MS;
  let closesAt: number | undefined;
  for (let back = Math.ceil(window.minutes / 1_440) + 1; back >= 0; back--) {
    const opens = opening(window, today - back, clocks);
    if (opens !== undefined && opens <= time && time < opens + lengthMs) closesAt = opens + lengthMs;
  }
  if (closesAt !== undefined) return { open: true, closesAt };
  for (let ahead = 0; ahead <= AHEAD_DAYS; ahead++) {
    const opens = opening(window, today + ahead, clocks);
    if (opens !== undefined && opens > time) return { open: false, opensAt: opens };
  }
  // Cannot be reached by a window that has a day in every week: said so that nobody waits for ever.
  return { open: false, opensAt: time + AHEAD_DAYS * DAY_MS };
}

/** When the window opens on a local day, counted from 1970-01-01; undefined where the day is none of its, or does not exist there. */
function opening({ days, start }: UpdateWindow, day: number, clocks: LocalClocks): number | undefined {
  // 1970-01-01 was a Thursday.
  const weekday = (((day + 4) % 7) + 7) % 7;
  if (days.length > 0 && !days.includes(weekday)) return undefined;
  const wanted =
    day * DAY_MS + Number(start.slice(0, 2)) * 60 * MINUTE_MS + Number(start.slice(3)) * MINUTE_MS;
  const opens = clocks.firstAt(wanted);
  return clocks.day(opens) === day ? opens : undefined;
}

/** What the clocks of a time zone show. "Local" is written as the milliseconds that the same reading would be in UTC. */
class LocalClocks {
  readonly #format: Intl.DateTimeFormat;

  constructor(timeZone: string) {
    this.#format = formatFor(timeZone) ?? formatFor("UTC")!;
  }

  day(time: number): number {
    return Math.floor(this.#local(time) / DAY_MS);
  }

  /** The first instant at which the clocks show `local` or later, on a day where they show it at all or leap over it. */
  firstAt(local: number): number {
    // No offset from UTC is more than a day: these bracket the instant, and between them the offset changes once at most.
    const before = local - DAY_MS;
    const after = local + DAY_MS;
    const early = local - this.#offset(before);
    const late = local - this.#offset(after);
    const shown = [early, late].filter((time) => this.#local(time) === local);
    if (shown.length > 0) return Math.min(...shown);
    return this.#leap(before, after, local);
  }

  /** The instant in between from which on the clocks show more than `local`, to the minute. */
  #leap(from: number, to: number, local: number): number {
    let low = Math.floor(from / MINUTE_MS);
    let high = Math.ceil(to / MINUTE_MS);
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2);
      if (this.#local(middle * MINUTE_MS) >= local) high = middle;
      else low = middle;
    }
    return high * MINUTE_MS;
  }

  #offset(time: number): number {
    return this.#local(time) - time;
  }

  #local(time: number): number {
    const parts: Partial<Record<string, number>> = {};
    for (const { type, value } of this.#format.formatToParts(time)) parts[type] = Number(value);
    const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = parts;
    const fraction = ((time % 1_000) + 1_000) % 1_000;
    return Date.UTC(year, month - 1, day, hour, minute, second) + fraction;
  }
}

function formatFor(timeZone: string): Intl.DateTimeFormat | undefined {
  try {
    return new Intl.DateTimeFormat("en-u-ca-iso8601", {
      timeZone,
      hourCycle: "h23",
      year: "numeric",
      month: "numeric",
      day: "numeric",
      hour: "numeric",
      minute: "numeric",
      second: "numeric",
    });
  } catch {
    return undefined;
  }
}
