import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { stored } from "./storage.js";

/** A key, or two after each other (`g f`), as `KeyboardEvent.key` names them. */
export interface Binding {
  keys: string;
  title: string;
  run(event: KeyboardEvent): void;
  /** Not listed in the help. */
  hidden?: boolean;
}

export interface KeyLayer {
  group: string;
  bindings: readonly Binding[];
}

const SEQUENCE_MS = 1_200;
/** WCAG 2.2, 2.1.4: keys of one character can be switched off; arrows, Enter and Escape stay. */
export const singleKeys = stored("single-keys", "on");
export const layers = signal<readonly { current: KeyLayer }[]>([]);
/** First key of a sequence, while the second is awaited. */
export const pendingKey = signal("");
let pendingTimer = 0;

/** Binds keys while the component is mounted; what was mounted last wins. */
export function useKeys(group: string, bindings: readonly Binding[]): void {
  const layer = useRef<KeyLayer>({ group, bindings });
  layer.current = { group, bindings };
  useEffect(() => {
    layers.value = [...layers.peek(), layer];
    return () => {
      layers.value = layers.peek().filter((other) => other !== layer);
    };
  }, []);
}

export function startKeys(): void {
  document.addEventListener("keydown", handle);
}

function handle(event: KeyboardEvent): void {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (document.querySelector("dialog[open]")) return;
  if (isTyping(event.target)) {
    if (event.key === "Escape") (event.target as HTMLElement).blur();
    return;
  }
  if (pressesControl(event)) return;
  if (singleKeys.value === "off" && event.key.length === 1 && event.key !== "?") return;
  const sequence = pendingKey.peek() ? `${pendingKey.peek()} ${event.key}` : event.key;
  setPending("");
  const bindings = [...layers.peek()].reverse().flatMap((layer) => layer.current.bindings);
  const found = bindings.find((binding) => binding.keys === sequence);
  if (found) {
    event.preventDefault();
    found.run(event);
  } else if (bindings.some((binding) => binding.keys.startsWith(`${event.key} `))) {
    event.preventDefault();
    setPending(event.key);
  }
}

function setPending(key: string): void {
  clearTimeout(pendingTimer);
  pendingKey.value = key;
  if (key) {
    pendingTimer = window.setTimeout(() => {
      pendingKey.value = "";
    }, SEQUENCE_MS);
  }
}

function isTyping(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable ||
      target instanceof HTMLTextAreaElement ||
      target instanceof HTMLSelectElement ||
      (target instanceof HTMLInputElement && !["checkbox", "radio", "button"].includes(target.type)))
  );
}

/** Enter and Space belong to a focused button or link, unless it gives its keys away with `data-keys`. */
function pressesControl(event: KeyboardEvent): boolean {
  if (event.key !== "Enter" && event.key !== " ") return false;
  const control = (event.target as HTMLElement | null)?.closest?.("a, button, summary, input");
  return Boolean(control && !control.hasAttribute("data-keys"));
}

/** How a key is written in the help: `ArrowDown` → `↓`. */
export function keyCaps(keys: string): string[] {
  const names: Record<string, string> = {
    ArrowDown: "↓",
    ArrowUp: "↑",
    ArrowLeft: "←",
    ArrowRight: "→",
    Escape: "Esc",
    " ": "Space",
  };
  return keys === " " ? ["Space"] : keys.split(" ").map((key) => names[key] ?? key);
}
