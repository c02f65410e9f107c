import { createHash } from "node:crypto";
import { join } from "node:path";
import { deviceClassSchema, FieldloopError, factsSchema, type Facts } from "@fieldloop/protocol";
import { driverStamp } from "@fieldloop/runtime/vendor";
import { z } from "zod";
import { AGENT_LIMITS, AGENT_VERSION } from "../limits.js";
import { readJsonFile, writeJsonFile } from "./files.js";
import { type HostProcessOptions, inScratchHost } from "./host-process.js";
import type { ProviderOption } from "./provider-plans.js";

const fileSchema = z.object({ key: z.string().optional(), facts: factsSchema });

/** Changes with what is found out, so that what an earlier agent wrote is found out anew. */
const FORM = 2;

/**
 * What this device is. Asking means loading the inference library and trying drivers, which control never does: a scratch host says it
 * once, and the answer is kept until agent, Node, drivers or what they are found by change. What the agent is told comes on top of it.
 * @throws FieldloopError `invalid_argument`
 */
export async function deviceFacts(
  directory: string,
  host: HostProcessOptions,
  told: { readonly deviceClass?: string | undefined; readonly provider?: ProviderOption },
): Promise<Facts> {
  const facts = await foundFacts(directory, host);
  const { deviceClass, provider = "cpu" } = told;
  if (deviceClass !== undefined && !deviceClassSchema.safeParse(deviceClass).success) {
    throw new FieldloopError(
      "invalid_argument",
      `Start agent: "${deviceClass}" is no name of a device class`,
    );
  }
  return {
    ...facts,
    deviceClass: deviceClass ?? facts.deviceClass,
    // A server that runs models for this device takes any variant.
    executionProviders: /:\/\/|unix:/.test(provider)
      ? [...facts.executionProviders, "oip"]
      : facts.executionProviders,
  };
}

async function foundFacts(directory: string, host: HostProcessOptions): Promise<Facts> {
  const path = join(directory, "facts.json");
  const known = await readJsonFile(path, fileSchema, () => undefined);
  const stamp = JSON.stringify([FORM, AGENT_VERSION, ...driverStamp(host.env)]);
  const key = createHash("sha256").update(stamp).digest("hex");
  if (known?.key === key) return known.facts;
  const request = { kind: "facts", directory: join(directory, "providers") } as const;
  const facts = await inScratchHost(host, request, AGENT_LIMITS.factsTimeoutMs);
  await writeJsonFile(path, { key, facts });
  return facts;
}
