import type { SampleView } from "@fieldloop/protocol";

export const WINDOW_MEDIA = "application/x-fieldloop-window";
/** One row of a table, as JSON. */
export const ROW_MEDIA = "application/json";
const WINDOWS_MAX = 200;
const IMAGES_MAX = 12;
const windows = new Map<string, Promise<number[]>>();
const images = new Map<string, HTMLImageElement>();

/** Values of a sensor window, 0 where one was not finite. @throws Error where the server gives none */
export function loadWindow(url: string): Promise<number[]> {
  const known = windows.get(url);
  if (known) return known;
  if (windows.size >= WINDOWS_MAX) windows.delete(windows.keys().next().value!);
  const loaded = fetch(url, { credentials: "same-origin", headers: { accept: "application/json" } }).then(
    async (response) => {
      if (!response.ok) throw new Error(`The window was not sent: ${response.status}`);
      const { values } = (await response.json()) as { values: (number | null)[] };
      return values.map((value) => value ?? 0);
    },
  );
  loaded.catch(() => windows.delete(url));
  windows.set(url, loaded);
  return loaded;
}

/** Columns and values of a row, as text. @throws Error where the server gives none */
export async function loadRow(url: string): Promise<[string, string][]> {
  const response = await fetch(url, { credentials: "same-origin", headers: { accept: "application/json" } });
  if (!response.ok) throw new Error(`The row was not sent: ${response.status}`);
  const row = (await response.json()) as Record<string, number | string | boolean | null>;
  return Object.entries(row).map(([column, value]) => [column, value === null ? "–" : String(value)]);
}

/** Fetches and decodes ahead, so that the next sample is painted at once. */
export function preload(sample: SampleView): void {
  if (sample.mediaType === WINDOW_MEDIA) {
    loadWindow(sample.payloadUrl).catch(() => undefined);
    return;
  }
  if (sample.mediaType === ROW_MEDIA || images.has(sample.payloadUrl)) return;
  if (images.size >= IMAGES_MAX) images.delete(images.keys().next().value!);
  const image = new Image();
  image.src = sample.payloadUrl;
  image.decode().catch(() => images.delete(sample.payloadUrl));
  images.set(sample.payloadUrl, image);
}

/** Lowest and highest of each of `columns` equal parts, so that a peak is never lost. */
export function envelope(values: readonly number[], columns: number): [number, number][] {
  const parts = Math.min(columns, values.length);
  return Array.from({ length: parts }, (_, part) => {
    const from = Math.floor((part * values.length) / parts);
    const to = Math.max(from + 1, Math.floor(((part + 1) * values.length) / parts));
    let low = Number.POSITIVE_INFINITY;
    let high = Number.NEGATIVE_INFINITY;
    for (let index = from; index < to; index++) {
      low = Math.min(low, values[index]!);
      high = Math.max(high, values[index]!);
    }
    return [low, high];
  });
}
