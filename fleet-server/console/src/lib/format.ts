/** Numbers as text: a narrow space before the unit, a dash for what is not known. */
const THIN = "\u202f";
export const UNKNOWN = "–";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function formatCount(value: number | null | undefined): string {
  return value === null || value === undefined ? UNKNOWN : whole.format(value);
}

/** Three significant digits, without an exponent: 0.0312, 3.12, 312. */
export function formatNumber(value: number | null | undefined, digits = 3): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return UNKNOWN;
  if (value === 0) return "0";
  if (Math.abs(value) >= 10 ** digits) return whole.format(value);
  return new Intl.NumberFormat("en", { maximumSignificantDigits: digits }).format(value);
}

/** 0.942 → `94.2 %`; 1 and 0 stay whole. */
export function formatPercent(share: number | null | undefined, digits = 1): string {
  if (share === null || share === undefined || !Number.isFinite(share)) return UNKNOWN;
  const fixed = share === 0 || share === 1 ? 0 : digits;
  return `${(share * 100).toFixed(fixed)}${THIN}%`;
}

/** Signed difference of two shares in percentage points. */
export function formatPoints(difference: number): string {
  const points = difference * 100;
  return `${points > 0 ? "+" : points < 0 ? "−" : "±"}${Math.abs(points).toFixed(1)}${THIN}pp`;
}

export function formatRate(perSecond: number | null | undefined): string {
  if (perSecond === null || perSecond === undefined) return UNKNOWN;
  return `${perSecond >= 100 ? whole.format(perSecond) : perSecond.toFixed(1)}${THIN}/s`;
}

/** In seconds from one second on. */
export function formatMs(ms: number | null | undefined): string {
  if (ms === null || ms === undefined) return UNKNOWN;
  return ms < 1000 ? `${formatNumber(ms)}${THIN}ms` : `${formatNumber(ms / 1000)}${THIN}s`;
}

export function formatBytes(bytes: number | null | undefined): string {
  if (bytes === null || bytes === undefined) return UNKNOWN;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? whole.format(value) : formatNumber(value)}${THIN}${units[unit]}`;
}

/** The two largest units: `2 h 5 min`, `48 s`. */
export function formatDuration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds}${THIN}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return join(minutes, "min", minutes < 10 ? seconds % 60 : 0, "s");
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return join(hours, "h", minutes % 60, "min");
  return join(Math.floor(hours / 24), "d", hours % 24, "h");
}

function join(large: number, largeUnit: string, small: number, smallUnit: string): string {
  return `${large}${THIN}${largeUnit}${small ? ` ${small}${THIN}${smallUnit}` : ""}`;
}

/** One unit only: `3 min ago`, `in 12 s`, `now`. */
export function formatRelative(at: number, now: number): string {
  const distance = now - at;
  const seconds = Math.round(Math.abs(distance) / 1000);
  if (seconds < 2) return "now";
  const [value, unit] =
    seconds < 60
      ? [seconds, "s"]
      : seconds < 3600
        ? [Math.floor(seconds / 60), "min"]
        : seconds < 86_400
          ? [Math.floor(seconds / 3600), "h"]
          : [Math.floor(seconds / 86_400), "d"];
  return distance < 0 ? `in ${value}${THIN}${unit}` : `${value}${THIN}${unit} ago`;
}

/** Local date and time to the second, with the zone: `2026-11-20 14:03:22 GMT+1`. */
export function formatAbsolute(at: number): string {
  const date = new Date(at);
  const two = (value: number) => String(value).padStart(2, "0");
  const zone = new Intl.DateTimeFormat("en", { timeZoneName: "short" })
    .formatToParts(date)
    .find((part) => part.type === "timeZoneName")?.value;
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${formatClock(at)} ${zone ?? ""}`.trim();
}

/** `14:03:22` */
export function formatClock(at: number): string {
  return new Date(at).toLocaleTimeString("en-GB");
}

/** `awaiting_approval` → `awaiting approval` */
export function words(state: string): string {
  return state.replaceAll("_", " ");
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${formatCount(count)} ${count === 1 ? one : many}`;
}

/** A sentence of the server's with its times (ISO 8601, UTC) as this browser's clock shows them. */
export function inLocalTime(text: string): string {
  return text.replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, (time) => formatAbsolute(Date.parse(time)));
}
