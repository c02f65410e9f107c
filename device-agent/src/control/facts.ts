import { createHash } from "node:crypto";
import { join } from "node:path";
import { factsSchema, type Facts } from "@fieldloop/protocol";
import { driverStamp } from "@fieldloop/runtime/vendor";
import { z } from "zod";
import { AGENT_LIMITS, AGENT_VERSION } from "../limits.js";
import { readJsonFile, writeJsonFile } from "./files.js";
import { type HostProcessOptions, inScratchHost } from "./host-process.js";

const fileSchema = z.object({ key: z.string().optional(), facts: factsSchema });

/**
 * What this device is. Asking means loading the inference library and trying drivers, which control never does: a scratch host says it
 * once, and the answer is kept until agent, Node, drivers or what they are found by change.
 */
export async function deviceFacts(directory: string, host: HostProcessOptions): Promise<Facts> {
  const path = join(directory, "facts.json");
  const known = await readJsonFile(path, fileSchema, () => undefined);
  const stamp = JSON.stringify([AGENT_VERSION, ...driverStamp(host.env)]);
  const key = createHash("sha256").update(stamp).digest("hex");
  if (known?.key === key) return known.facts;
  const request = { kind: "facts", directory: join(directory, "providers") } as const;
  const facts = await inScratchHost(host, request, AGENT_LIMITS.factsTimeoutMs);
  await writeJsonFile(path, { key, facts });
  return facts;
}
