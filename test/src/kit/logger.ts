import type { Logger } from "@fieldloop/fleet-server";

/** Tests look at results; what they want to see of the log they collect. */
export const silentLogger: Logger = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
