import { InvalidArgumentError } from "commander";

/** What the commands that run until they are stopped have in common. */
export const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Node 20 gets no security fixes since April 2026. */
const OLDEST_MAINTAINED_NODE = 22;

export function warnOfOldNode(log: { warn(fields: object, message: string): void }): void {
  const { node } = process.versions;
  if (Number(node.split(".")[0]) < OLDEST_MAINTAINED_NODE) {
    log.warn({ node }, "this version of Node.js gets no security fixes any more");
  }
}

/** Resolves at the first SIGINT or SIGTERM. */
export function stopSignal(): Promise<void> {
  return new Promise((stopped) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stopped());
  });
}

/** For a commander option. */
export function readPort(text: string): number {
  const port = Number(text);
  if (!/^\d{1,5}$/.test(text) || port > 65_535) {
    throw new InvalidArgumentError(`"${text}" is no port, wanted 0 to 65535`);
  }
  return port;
}

/** For a commander option. */
export function readLogLevel(text: string): LogLevel {
  const level = LOG_LEVELS.find((candidate) => candidate === text);
  if (!level) throw new InvalidArgumentError(`"${text}" is no level, wanted ${LOG_LEVELS.join(", ")}`);
  return level;
}
