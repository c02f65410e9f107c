import { join } from "node:path";
import {
  deviceIdSchema,
  enrolResponseSchema,
  FieldloopError,
  fromHex,
  problemSchema,
  type Facts,
  type PublicKey,
} from "@fieldloop/protocol";
import { z } from "zod";
import { AGENT_LIMITS } from "../limits.js";
import { readJsonFile, reasonOf, writeJsonFile } from "./files.js";
import type { HttpAnswer, HttpFetch } from "./http-fetch.js";

/** Who this device is to its fleet; `identity.json` of the state folder, readable by its owner only. */
export interface Identity {
  readonly server: string;
  readonly device: string;
  readonly credential: string;
  readonly mqttUrl: string;
  /** Who directs this device until it has read the director target. */
  readonly fleetKeys: readonly PublicKey[];
  /** Root metadata that it was given when it enrolled: everything else is trusted by way of them. */
  readonly root: string;
}

const identityFileSchema = z.object({
  schema: z.literal(1),
  server: z.url(),
  device: deviceIdSchema,
  credential: z.string().min(1),
  mqttUrl: z.string().min(1),
  fleetKeys: enrolResponseSchema.shape.fleetKeys,
  root: enrolResponseSchema.shape.root,
});

export interface EnrolOptions {
  readonly server: string;
  readonly token: string;
  readonly device?: string;
  readonly tags: Readonly<Record<string, string>>;
  readonly facts: Facts;
  readonly fetch: HttpFetch;
}

/** The identity that an earlier start stored. */
export async function loadIdentity(
  directory: string,
  onCorrupt: (message: string) => void,
): Promise<Identity | undefined> {
  const file = await readJsonFile(join(directory, "identity.json"), identityFileSchema, onCorrupt);
  return file && toIdentity(file);
}

/**
 * Trades a one-time token for a credential and stores it before it is used.
 * @throws FieldloopError `enrolment_refused` and whatever else the server answers by code; `unavailable` where it cannot be reached
 */
export async function enrol(directory: string, options: EnrolOptions): Promise<Identity> {
  const server = options.server.replace(/\/+$/, "");
  const body = {
    token: options.token,
    ...(options.device === undefined ? {} : { device: options.device }),
    tags: options.tags,
    facts: options.facts,
  };
  const answer = await postJson(`${server}/api/v1/enrol`, body, options.fetch);
  const parsed = enrolResponseSchema.safeParse(answer);
  if (!parsed.success) {
    throw new FieldloopError(
      "message_schema",
      `Enrol at "${server}": the answer is not that of a fleet server`,
    );
  }
  const file = { schema: 1 as const, server, ...parsed.data };
  await writeJsonFile(join(directory, "identity.json"), file);
  return toIdentity(file);
}

function toIdentity(file: z.output<typeof identityFileSchema>): Identity {
  return {
    server: file.server,
    device: file.device,
    credential: file.credential,
    mqttUrl: file.mqttUrl,
    fleetKeys: file.fleetKeys.map(({ keyId, publicKey }) => ({ keyId, publicKey: fromHex(publicKey) })),
    root: file.root,
  };
}

async function postJson(url: string, body: unknown, ask: HttpFetch): Promise<unknown> {
  let response: HttpAnswer;
  let text: string;
  try {
    response = await ask(url, {
      method: "POST",
      headers: { "content-type": "application/json", accept: "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(AGENT_LIMITS.enrolTimeoutMs),
    });
    text = await readText(response);
  } catch (cause) {
    if (cause instanceof FieldloopError) throw cause;
    throw new FieldloopError("unavailable", `Enrol at "${url}": ${reasonOf(cause)}`, { cause });
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (cause) {
    throw new FieldloopError(
      "unavailable",
      `Enrol at "${url}": status ${response.status}, not JSON: is this a fleet server?`,
      { cause },
    );
  }
  if (response.status >= 200 && response.status < 300) return parsed;
  const problem = problemSchema.safeParse(parsed);
  if (problem.success)
    throw new FieldloopError(problem.data.code, `Enrol at "${url}": ${problem.data.detail}`);
  throw new FieldloopError("unavailable", `Enrol at "${url}": status ${response.status}`);
}

async function readText({ body }: HttpAnswer): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > AGENT_LIMITS.enrolResponseBytesMax) {
      throw new FieldloopError(
        "limit_exceeded",
        `Enrol: an answer of more than ${AGENT_LIMITS.enrolResponseBytesMax} bytes`,
      );
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** Advances the boot counter: on disk before anything is numbered with it. */
export async function nextBoot(directory: string, onCorrupt: (message: string) => void): Promise<number> {
  const path = join(directory, "boot.json");
  const file = await readJsonFile(path, z.object({ boot: z.int().min(1) }), onCorrupt);
  // After a lost counter, seconds since the epoch are larger than any count of starts.
  const corrupt = file === undefined && (await wasKeptAside(path));
  const boot = corrupt ? Math.floor(Date.now() / 1000) : (file?.boot ?? 0) + 1;
  await writeJsonFile(path, { boot });
  return boot;
}

/** The server saw a newer boot than this one: the next start goes beyond it. */
export async function raiseBoot(directory: string, seen: number): Promise<void> {
  await writeJsonFile(join(directory, "boot.json"), { boot: seen });
}

async function wasKeptAside(path: string): Promise<boolean> {
  const { stat } = await import("node:fs/promises");
  return stat(`${path}.corrupt`).then(
    () => true,
    () => false,
  );
}
