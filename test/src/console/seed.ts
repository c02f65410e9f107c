import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { startServer, type ServerHandle, type ServerOptions } from "@fieldloop/fleet-server";
import {
  downTopic,
  decodeAck,
  encodeMessage,
  encodePredictions,
  manifestFiles,
  upTopic,
  type EnrolResponse,
  type Facts,
  type SampleView,
  type UpKind,
} from "@fieldloop/protocol";
import type { ModelPackage } from "@fieldloop/runtime/node";
import mqtt from "mqtt";
import { silentLogger } from "../kit/logger.js";
import { until } from "../kit/wait.js";
import { drawItems, makeShapes, SHAPES } from "./shapes.js";

export const consoleDir = fileURLToPath(new URL("../../../fleet-server/dist/console/", import.meta.url));

const FACTS: Facts = {
  arch: "x64",
  platform: "linux",
  cpuModel: "Quad-core test processor at 2.40 GHz",
  cpuCount: 4,
  cpuFlags: ["avx2"],
  memoryBytes: 4_000_000_000,
  executionProviders: ["cpu"],
  nodeVersion: "20.20.2",
  runtimeVersion: "onnxruntime-node 1.30.0",
  timeZone: "UTC",
  deviceClass: "linux-x64",
  opsetMax: 21,
  irVersionMax: 10,
  manifestSchemaMax: 1,
};
const ROWS = 300;
const ROW_MS = 1_000;
const SIGNALS = ["entropy", "margin", "novelty"] as const;

/** A fleet server in a folder of its own, and the API as a program uses it. */
export interface Fleet {
  readonly server: ServerHandle;
  readonly token: string;
  api<Result>(method: string, path: string, body?: unknown): Promise<Result>;
  end(): Promise<void>;
}

export async function startFleet(options: Partial<ServerOptions> = {}): Promise<Fleet> {
  const dataDir = await mkdtemp(join(tmpdir(), "fieldloop-console-"));
  const server = await startServer({
    ...{ dataDir, httpPort: 0, mqttPort: 0, logger: silentLogger, consoleDir },
    ...options,
  });
  const token = server.adminToken!;
  return {
    server,
    token,
    api: (method, path, body) => call(server.httpUrl, token, method, path, body),
    end: async () => {
      await server.stop();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

async function call<Result>(
  url: string,
  token: string,
  method: string,
  path: string,
  body?: unknown,
): Promise<Result> {
  const binary = body instanceof Uint8Array;
  const response = await fetch(url + path, {
    method,
    headers: {
      authorization: `Bearer ${token}`,
      ...(body === undefined
        ? {}
        : { "content-type": binary ? "application/octet-stream" : "application/json" }),
    },
    ...(body === undefined ? {} : { body: binary ? Buffer.from(body) : JSON.stringify(body) }),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
  return (text === "" ? undefined : JSON.parse(text)) as Result;
}

/** Trains and publishes `shapes@1`. */
export async function publishShapes(fleet: Fleet): Promise<ModelPackage> {
  const dir = await mkdtemp(join(tmpdir(), "fieldloop-shapes-"));
  try {
    const made = await makeShapes(join(dir, "shapes"));
    for (const { file, sha256 } of manifestFiles(made.manifest)) {
      await fleet.api(
        "PUT",
        `/api/v1/artifacts/sha256/${sha256}`,
        new Uint8Array(await readFile(join(made.dir, file))),
      );
    }
    await fleet.api(
      "PUT",
      `/api/v1/artifacts/sha256/${made.packageSha256}`,
      new Uint8Array(made.manifestBytes),
    );
    await fleet.api("POST", "/api/v1/models/shapes/versions", { manifestSha256: made.packageSha256 });
    return made;
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/** What a seeded device sends. */
export interface DevicePlan {
  readonly device: string;
  readonly tags: Record<string, string>;
  readonly samples: number;
  /** Share of predictions that feedback calls right. */
  readonly right: number;
  readonly warning?: string;
  readonly window?: boolean;
}

export interface SeededDevice {
  readonly device: string;
  end(): Promise<void>;
}

/** A device that enrols, connects by MQTT and reports state, predictions, feedback and samples, each until it is acknowledged. */
export async function seedDevice(fleet: Fleet, made: ModelPackage, plan: DevicePlan): Promise<SeededDevice> {
  const { device, tags } = plan;
  const { token } = await fleet.api<{ token: string }>("POST", "/api/v1/enrolment-tokens", {});
  const identity = await fleet.api<EnrolResponse>("POST", "/api/v1/enrol", {
    token,
    device,
    tags,
    facts: FACTS,
  });
  const client = await mqtt.connectAsync(fleet.server.mqttUrl, {
    clientId: device,
    username: device,
    password: identity.credential,
    reconnectPeriod: 0,
  });
  const acked = new Map<string, number>();
  client.on("message", (topic, payload) => {
    if (topic === downTopic(device, "ack"))
      for (const { stream, seq } of decodeAck(payload)) acked.set(stream, seq);
  });
  await client.subscribeAsync(`fieldloop/1/${device}/down/#`, { qos: 1 });
  const publish = (kind: UpKind, payload: Uint8Array, retain = false) =>
    client.publishAsync(upTopic(device, kind), Buffer.from(payload), { qos: 1, retain });

  await publish(
    "presence",
    encodeMessage("presence", { online: true, boot: 1, agentVersion: "0.1.0" }),
    true,
  );
  await publish("state", encodeMessage("state", stateOf(made, plan)), true);
  await publish("predictions", batchOf(made));
  await publish("event", encodeMessage("event", feedbackOf(plan)));
  const items = await drawItems(plan.samples, "night", device.length);
  for (const [at, item] of items.entries()) await publish("sample", sampleOf(made, plan, at, item.payload));
  const samples = plan.samples + (plan.window ? 1 : 0);
  if (plan.window) await publish("sample", windowOf(plan));
  await until(
    `${device} is acknowledged`,
    () =>
      acked.get("predictions") === 1 && acked.get("event") === 1 && (acked.get("sample") ?? 0) === samples,
  );
  return { device, end: () => client.endAsync(true) };
}

function stateOf({ packageSha256 }: ModelPackage, { warning }: DevicePlan) {
  const now = Date.now();
  return {
    time: now,
    boot: 1,
    agentVersion: "0.1.0",
    facts: FACTS,
    running: {
      model: "shapes",
      version: 1,
      packageSha256,
      variant: "fp32",
      executionProvider: "cpu",
      since: now - (ROWS / 2) * ROW_MS,
    },
    previous: null,
    deployment: null,
    desiredRevision: 1,
    configId: null,
    warnings: warning
      ? [{ code: "storage_full", severity: "warning" as const, message: warning, since: now - 60_000 }]
      : [],
    counters: {
      predictions: ROWS,
      framesDropped: 2,
      framesFailed: 0,
      samplesTaken: 4,
      recordsEvicted: 0,
      hostRestarts: 0,
    },
    spool: { records: 3, bytes: 12_000, bytesMax: 64_000_000 },
    source: "folder of test images",
  };
}

function batchOf({ packageSha256 }: ModelPackage): Uint8Array {
  const from = Date.now() - ROWS * ROW_MS;
  return encodePredictions({
    boot: 1,
    seq: 1,
    prev: 0,
    versionRef: { model: "shapes", version: 1, packagePrefix: packageSha256.slice(0, 16) },
    firstN: 0,
    signalNames: SIGNALS,
    rows: Array.from({ length: ROWS }, (_, at) => ({
      time: from + at * ROW_MS,
      class: at % SHAPES.length,
      confidence: 0.7 + 0.25 * Math.sin(at / 40),
      latencyMs: 0.6 + 0.1 * Math.cos(at / 15),
      signals: [0.3, 0.6, 1.2],
    })),
  });
}

function feedbackOf({ right }: DevicePlan) {
  const items = Array.from({ length: ROWS / 2 }, (_, at) => ({
    n: at * 2,
    correct: at / (ROWS / 2) < right,
  }));
  return {
    boot: 1,
    seq: 1,
    prev: 0,
    time: Date.now(),
    data: { type: "feedback" as const, predictionBoot: 1, items },
  };
}

const idOf = (device: string, at: number) =>
  `smp_${createHash("sha256").update(`${device} ${at}`).digest("hex").slice(0, 20)}`;

function sampleOf(made: ModelPackage, plan: DevicePlan, at: number, payload: Uint8Array): Uint8Array {
  return encodeMessage("sample", {
    boot: 1,
    seq: at + 1,
    prev: at,
    sample: idOf(plan.device, at),
    part: 0,
    parts: 1,
    metadata: {
      ...metadataOf(payload, at),
      packageSha256: made.packageSha256,
      mediaType: "image/jpeg" as const,
    },
    payload: Uint8Array.from(payload),
  });
}

/** A sensor window of a model that is not published here: the console draws it as a line all the same. */
function windowOf(plan: DevicePlan): Uint8Array {
  const values = Float32Array.from({ length: 512 }, (_, at) => Math.sin(at / 9) + 0.4 * Math.sin(at * 1.7));
  const payload = new Uint8Array(values.buffer);
  return encodeMessage("sample", {
    boot: 1,
    seq: plan.samples + 1,
    prev: plan.samples,
    sample: idOf(plan.device, plan.samples),
    part: 0,
    parts: 1,
    metadata: {
      ...metadataOf(payload, plan.samples),
      model: "bearing",
      label: "anomalous",
      signals: { reconstruction: 2.4 },
      packageSha256: "b".repeat(64),
      mediaType: "application/x-fieldloop-window" as const,
    },
    payload,
  });
}

function metadataOf(payload: Uint8Array, at: number) {
  return {
    predictionBoot: 1,
    n: 2 * at + 1,
    time: Date.now() - at * 20_000,
    model: "shapes",
    version: 1,
    variant: "fp32",
    stratum: at % 4 === 3 ? ("random" as const) : ("worth" as const),
    probability: 0.1,
    worth: Math.max(0, 0.95 - at * 0.02),
    class: 0,
    label: SHAPES[0],
    confidence: 0.41 + 0.01 * (at % 20),
    latencyMs: 0.6,
    signals: { entropy: 0.7, margin: 0.1, novelty: 2.5 },
    bytes: payload.length,
    sha256: createHash("sha256").update(payload).digest("hex"),
    source: "folder of test images",
  };
}

/** All samples, with or without a label. */
export async function allSamples(fleet: Fleet): Promise<SampleView[]> {
  return (await fleet.api<{ items: SampleView[] }>("GET", "/api/v1/samples?limit=500")).items;
}
