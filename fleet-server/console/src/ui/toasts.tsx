import { dismiss, toasts } from "../lib/toast.js";
import { Icon } from "./icons.js";

/** What was done, or failed, beside the work: never a dialog. */
export function Toasts() {
  return (
    <div class="toasts" aria-live="polite">
      {toasts.value.map((toast) => (
        <div
          key={toast.id}
          class={`toast toast-${toast.kind}`}
          role={toast.kind === "error" ? "alert" : undefined}
        >
          <span>
            {toast.text} {toast.code && <code>{toast.code}</code>}
          </span>
          <button
            type="button"
            class="icon-button small"
            onClick={() => dismiss(toast.id)}
            aria-label="Dismiss"
          >
            <Icon name="cross" size={13} />
          </button>
        </div>
      ))}
    </div>
  );
}
