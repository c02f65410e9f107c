import { signal } from "@preact/signals";
import { toApiError } from "../api/client.js";

export interface Toast {
  id: number;
  kind: "done" | "error";
  text: string;
  code: string | undefined;
}

const SHOWN_MS = { done: 4_000, error: 10_000 };
const TOASTS_MAX = 4;
export const toasts = signal<readonly Toast[]>([]);
let nextId = 1;

function show(kind: Toast["kind"], text: string, code?: string): void {
  const toast = { id: nextId++, kind, text, code };
  toasts.value = [...toasts.peek(), toast].slice(-TOASTS_MAX);
  setTimeout(() => dismiss(toast.id), SHOWN_MS[kind]);
}

export function dismiss(id: number): void {
  toasts.value = toasts.peek().filter((toast) => toast.id !== id);
}

export function notifyDone(text: string): void {
  show("done", text);
}

export function notifyError(action: string, error: unknown): void {
  const problem = toApiError(error);
  show("error", `${action}: ${problem.detail || problem.title}`, problem.code);
}
