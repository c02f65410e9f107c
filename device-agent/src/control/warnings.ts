import type { DeviceState, ErrorCode, EventData } from "@fieldloop/protocol";
import type { Clock } from "../clock.js";
import { AGENT_LIMITS } from "../limits.js";

type Severity = "info" | "warning" | "error";
interface Warning {
  readonly code: ErrorCode;
  readonly severity: Severity;
  readonly message: string;
  readonly since: number;
}

/** What is wrong with this device now, by code. Each change becomes an event; all of it is in the reported state. */
export class Warnings {
  readonly #clock: Clock;
  readonly #onChange: (event: EventData) => void;
  readonly #active = new Map<ErrorCode, Warning>();

  constructor(clock: Clock, onChange: (event: EventData) => void) {
    this.#clock = clock;
    this.#onChange = onChange;
  }

  raise(code: ErrorCode, message: string, severity: Severity = "warning"): void {
    const text = message.slice(0, 500);
    const before = this.#active.get(code);
    if (before?.message === text && before.severity === severity) return;
    if (!before && this.#active.size >= AGENT_LIMITS.warningsMax) return;
    this.#active.set(code, { code, severity, message: text, since: before?.since ?? this.#clock.now() });
    // A changed wording of a trouble that is known already is in the state; only its start is an event.
    if (!before) this.#onChange({ type: "warning", code, severity, message: text, active: true });
  }

  clear(code: ErrorCode): void {
    const warning = this.#active.get(code);
    if (!warning) return;
    this.#active.delete(code);
    this.#onChange({ type: "warning", ...pick(warning), active: false });
  }

  list(): DeviceState["warnings"] {
    return [...this.#active.values()];
  }
}

function pick(warning: Warning): { code: ErrorCode; severity: Severity; message: string } {
  return { code: warning.code, severity: warning.severity, message: warning.message };
}
