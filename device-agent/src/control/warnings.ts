import type { DeviceState, ErrorCode, EventData } from "@fieldloop/protocol";
import type { Logger } from "pino";
import type { Clock } from "../clock.js";
import { AGENT_LIMITS } from "../limits.js";

type Severity = "info" | "warning" | "error";
interface Warning {
  readonly code: ErrorCode;
  readonly severity: Severity;
  /** By whose trouble it is: a lane, or the whole device (""). */
  readonly messages: ReadonlyMap<string, string>;
  readonly since: number;
}

const DEVICE = "";

const LEVELS = { info: "info", warning: "warn", error: "error" } as const;

/** What is wrong with this device now, by code. Each change becomes a line of the log and an event; all of it is in the reported state. */
export class Warnings {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #onChange: (event: EventData) => void;
  readonly #active = new Map<ErrorCode, Warning>();

  constructor(clock: Clock, log: Logger, onChange: (event: EventData) => void) {
    this.#clock = clock;
    this.#log = log;
    this.#onChange = onChange;
  }

  /** `scope` names the lane whose trouble it is: the warning is over when it is over for every one. */
  raise(code: ErrorCode, message: string, severity: Severity = "warning", scope: string = DEVICE): void {
    const text = message.slice(0, 500);
    const before = this.#active.get(code);
    if (before?.messages.get(scope) === text && before.severity === severity) return;
    if (!before && this.#active.size >= AGENT_LIMITS.warningsMax) return;
    const messages = new Map(before?.messages).set(scope, text);
    this.#active.set(code, { code, severity, messages, since: before?.since ?? this.#clock.now() });
    // A changed wording of a trouble that is known already is in the state; only its start is a line of the log, and an event.
    if (before?.severity !== severity || !before.messages.has(scope)) {
      this.#log[LEVELS[severity]]({ code }, text);
    }
    if (!before) this.#onChange({ type: "warning", code, severity, message: text, active: true });
  }

  /** It is over for `scope`, or for all of them. */
  clear(code: ErrorCode, scope?: string): void {
    const warning = this.#active.get(code);
    if (!warning || (scope !== undefined && !warning.messages.has(scope))) return;
    const messages = new Map(warning.messages);
    if (scope === undefined) messages.clear();
    else messages.delete(scope);
    const over = scope === undefined ? messageOf(warning) : warning.messages.get(scope);
    this.#log.info({ code }, `is over: ${over}`);
    if (messages.size > 0) {
      this.#active.set(code, { ...warning, messages });
      return;
    }
    this.#active.delete(code);
    const { severity } = warning;
    this.#onChange({ type: "warning", code, severity, message: messageOf(warning), active: false });
  }

  list(): DeviceState["warnings"] {
    return [...this.#active.values()].map((warning) => {
      const { code, severity, since } = warning;
      return { code, severity, message: messageOf(warning), since };
    });
  }
}

function messageOf({ messages }: Warning): string {
  return [...messages.values()].join("; ").slice(0, 500);
}
