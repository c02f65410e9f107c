import { join } from "node:path";
import { factsSchema, type Facts } from "@fieldloop/protocol";
import { z } from "zod";
import { AGENT_LIMITS, AGENT_VERSION } from "../limits.js";
import { readJsonFile, writeJsonFile } from "./files.js";
import { type HostProcessOptions, inScratchHost } from "./host-process.js";

const fileSchema = z.object({ agentVersion: z.string(), nodeVersion: z.string(), facts: factsSchema });

/**
 * What this device is. Asking means loading the inference library, which control never does: a scratch host says it once
 * per version of agent and Node, and the answer is kept.
 */
export async function deviceFacts(directory: string, host: HostProcessOptions): Promise<Facts> {
  const path = join(directory, "facts.json");
  const known = await readJsonFile(path, fileSchema, () => undefined);
  const nodeVersion = process.versions.node;
  if (known?.agentVersion === AGENT_VERSION && known.nodeVersion === nodeVersion) return known.facts;
  const facts = await inScratchHost(host, { kind: "facts" }, AGENT_LIMITS.hostStartTimeoutMs);
  await writeJsonFile(path, { agentVersion: AGENT_VERSION, nodeVersion, facts });
  return facts;
}
