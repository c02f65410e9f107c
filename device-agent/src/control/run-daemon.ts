import { FieldloopError, type Facts } from "@fieldloop/protocol";
import type { AgentOptions } from "./agent.js";
import { Daemon } from "./daemon.js";
import type { DaemonParts } from "./daemon-parts.js";
import { deviceFacts } from "./facts.js";
import { httpFetch } from "./http-fetch.js";
import { enrol, type Identity, loadIdentity, nextBoot } from "./identity.js";

/** Finds out what the control process has to know, and starts it. @throws FieldloopError as `startAgent` */
export async function runDaemon(
  parts: Omit<DaemonParts, "facts" | "identity" | "boot" | "corrupt">,
): Promise<Daemon> {
  const { options, host } = parts;
  const corrupt: string[] = [];
  const onCorrupt = (message: string): void => void corrupt.push(message);
  const facts = await deviceFacts(options.directory, host, options);
  const identity = await identify(options, facts, onCorrupt);
  const boot = await nextBoot(options.directory, onCorrupt);
  const daemon = new Daemon({ ...parts, identity, facts, boot, corrupt });
  await daemon.start();
  return daemon;
}

async function identify(
  options: AgentOptions,
  facts: Facts,
  onCorrupt: (message: string) => void,
): Promise<Identity> {
  const known = await loadIdentity(options.directory, onCorrupt);
  if (known) return known;
  if (options.server === undefined || options.token === undefined) {
    throw new FieldloopError(
      "invalid_argument",
      "Start agent: the first start wants a server and an enrolment token",
    );
  }
  return enrol(options.directory, {
    server: options.server,
    token: options.token,
    ...(options.device === undefined ? {} : { device: options.device }),
    tags: options.tags ?? {},
    facts,
    fetch: options.fetch ?? httpFetch,
  });
}
