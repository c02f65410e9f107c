import type { Facts } from "@fieldloop/protocol";
import { candidateProviders, hostFacts, workingProviders } from "@fieldloop/runtime/node";
import { AGENT_LIMITS } from "../limits.js";
import { likelyAccelerators } from "./accelerators.js";

/**
 * What this machine is, with the execution providers that really compute here: those whose hardware may be here are tried, each in a
 * process of its own. Remembered in `directory`.
 */
export async function factsHere(
  directory: string,
  environment: Readonly<Record<string, string | undefined>>,
): Promise<Facts> {
  const likely = likelyAccelerators(candidateProviders([]), environment);
  if (likely.length === 0) return hostFacts();
  const working = await workingProviders({
    directory,
    environment,
    executionProviders: likely,
    timeoutMs: AGENT_LIMITS.providerCheckTimeoutMs,
  });
  return hostFacts([...working, "cpu"]);
}
