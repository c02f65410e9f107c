import { signal } from "@preact/signals";

const TICK_MS = 5_000;
/** The time by which relative times are said; moves every five seconds while the page is seen. */
export const now = signal(Date.now());

setInterval(() => {
  if (!document.hidden) now.value = Date.now();
}, TICK_MS);
document.addEventListener("visibilitychange", () => {
  now.value = Date.now();
});
