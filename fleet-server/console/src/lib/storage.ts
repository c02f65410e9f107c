import { type Signal, effect, signal } from "@preact/signals";

/** A preference kept in this browser; what cannot be read or written (private mode) is only kept for the visit. */
export function stored(key: string, initial: string): Signal<string> {
  const value = signal(read(key) ?? initial);
  effect(() => {
    try {
      localStorage.setItem(`fieldloop.${key}`, value.value);
    } catch {
      // Storage is refused: the preference lasts for this visit.
    }
  });
  return value;
}

function read(key: string): string | null {
  try {
    return localStorage.getItem(`fieldloop.${key}`);
  } catch {
    return null;
  }
}
