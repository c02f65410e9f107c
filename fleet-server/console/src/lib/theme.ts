import { computed, effect, signal } from "@preact/signals";
import { stored } from "./storage.js";

/** `auto` follows the system. */
export const theme = stored("theme", "auto");
const systemDark = matchMedia("(prefers-color-scheme: dark)");
const system = signal(systemDark.matches);
systemDark.addEventListener("change", () => {
  system.value = systemDark.matches;
});

export const dark = computed(() => theme.value === "dark" || (theme.value === "auto" && system.value));

effect(() => {
  const root = document.documentElement;
  if (theme.value === "auto") delete root.dataset["theme"];
  else root.dataset["theme"] = theme.value;
});

export function toggleTheme(): void {
  theme.value = dark.peek() ? "light" : "dark";
}

/** A token of the style sheet as a colour that a canvas understands. */
export function resolveColour(token: string): string {
  const probe = document.createElement("span");
  probe.style.color = `var(--${token})`;
  probe.hidden = true;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}
