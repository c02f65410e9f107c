import { type Logger, pino } from "pino";

export interface LogOptions {
  readonly level: "debug" | "info" | "warn" | "error";
  /** Takes one line of JSON as pino writes it. */
  readonly write: (line: string) => void;
}

/** Fields that hold secrets: an object that carries one by accident must not bring it into a log. */
const SECRETS = ["credential", "token", "password", "authorization"];

/** The agent's logger. Everything it is given is printed but {@link SECRETS}, at the top and one level down. */
export function createAgentLog(options: LogOptions): Logger {
  return pino(
    { level: options.level, base: null, redact: SECRETS.flatMap((name) => [name, `*.${name}`]) },
    { write: options.write },
  );
}
