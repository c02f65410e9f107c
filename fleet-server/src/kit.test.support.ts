import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  decodeAck,
  downTopic,
  encodeMessage,
  encodePredictions,
  upTopic,
  type Ack,
  type DeviceState,
  type EnrolResponse,
  type EventData,
  type Facts,
  type PredictionRow,
  type UpKind,
} from "@fieldloop/protocol";
import mqtt from "mqtt";
import type { Logger } from "./context.js";
import { startServer, type ServerHandle, type ServerOptions } from "./server.js";

/** What the tests of this package share: a server in a folder of its own, and devices that speak real MQTT to it. */
export const silent: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

export const FACTS: Facts = {
  arch: "x64",
  platform: "linux",
  cpuModel: "test",
  cpuCount: 2,
  cpuFlags: ["avx2"],
  memoryBytes: 1 << 30,
  executionProviders: ["cpu"],
  nodeVersion: "20.20.2",
  runtimeVersion: "1.30.0",
  timeZone: "UTC",
  deviceClass: "linux-x64",
  opsetMax: 21,
  irVersionMax: 10,
  manifestSchemaMax: 1,
};

/** What a device says of itself that runs nothing and has done nothing. */
export const QUIET_STATE: DeviceState = {
  time: 1,
  boot: 1,
  agentVersion: "0.1.0",
  facts: FACTS,
  running: null,
  previous: null,
  deployment: null,
  lanes: [],
  configId: null,
  desiredRevision: 1,
  warnings: [],
  counters: {
    predictions: 0,
    framesDropped: 0,
    framesFailed: 0,
    samplesTaken: 0,
    recordsEvicted: 0,
    hostRestarts: 0,
  },
  spool: { records: 0, bytes: 0, bytesMax: 1 },
  source: "test",
};

export interface TestServer extends ServerHandle {
  readonly dataDir: string;
  readonly api: Api;
  /** Stops the server and removes its folder. */
  end(): Promise<void>;
}

export async function startTestServer(options: Partial<ServerOptions> = {}): Promise<TestServer> {
  const dataDir = options.dataDir ?? (await mkdtemp(join(tmpdir(), "fieldloop-server-")));
  const handle = await startServer({ dataDir, httpPort: 0, mqttPort: 0, logger: silent, ...options });
  const end = async (): Promise<void> => {
    await handle.stop();
    await rm(dataDir, { recursive: true, force: true });
  };
  return { ...handle, dataDir, api: new Api(handle.httpUrl, handle.adminToken!), end };
}

/** The HTTP API as a program uses it. */
export class Api {
  readonly url: string;
  readonly token: string | undefined;

  constructor(url: string, token: string | undefined) {
    this.url = url;
    this.token = token;
  }

  as(token: string | undefined): Api {
    return new Api(this.url, token);
  }

  send(
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<Response> {
    return fetch(this.url + path, {
      method,
      headers: {
        ...(this.token === undefined ? {} : { authorization: `Bearer ${this.token}` }),
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...headers,
      },
      ...(body === undefined
        ? {}
        : { body: body instanceof Uint8Array ? Buffer.from(body) : JSON.stringify(body) }),
    });
  }

  /** The body of an answer that must be a success. */
  async ok<Result>(method: string, path: string, body?: unknown): Promise<Result> {
    const response = await this.send(method, path, body);
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return (text === "" ? undefined : JSON.parse(text)) as Result;
  }

  /** Status and problem code of an answer. */
  async refused(
    method: string,
    path: string,
    body?: unknown,
    headers?: Record<string, string>,
  ): Promise<[number, string]> {
    const response = await this.send(method, path, body, headers);
    const problem = (await response.json().catch(() => ({}))) as { code?: string };
    return [response.status, problem.code ?? "none"];
  }
}

export async function enrol(
  server: TestServer,
  device?: string,
  tags: Record<string, string> = {},
): Promise<EnrolResponse> {
  const { token } = await server.api.ok<{ token: string }>("POST", "/api/v1/enrolment-tokens", {});
  const body = { token, tags, facts: FACTS, ...(device === undefined ? {} : { device }) };
  return server.api.as(undefined).ok<EnrolResponse>("POST", "/api/v1/enrol", body);
}

/** One device's connection. */
export class TestDevice {
  readonly device: string;
  readonly client: mqtt.MqttClient;
  readonly acks: Ack[] = [];
  readonly received: { topic: string; payload: Buffer; retain: boolean }[] = [];

  private constructor(device: string, client: mqtt.MqttClient) {
    this.device = device;
    this.client = client;
    client.on("message", (topic, payload, packet) => {
      this.received.push({ topic, payload, retain: packet.retain });
      if (topic === downTopic(device, "ack")) this.acks.push(...decodeAck(payload));
    });
  }

  static async connect(
    server: { readonly mqttUrl: string },
    identity: { readonly device: string; readonly credential: string },
    options: mqtt.IClientOptions = {},
  ): Promise<TestDevice> {
    const { device, credential } = identity;
    const client = await mqtt.connectAsync(
      server.mqttUrl,
      {
        clientId: device,
        username: device,
        password: credential,
        reconnectPeriod: 0,
        connectTimeout: 5_000,
        ...options,
      },
      false,
    );
    const connected = new TestDevice(device, client);
    await client.subscribeAsync(`fieldloop/1/${device}/down/#`, { qos: 1 });
    return connected;
  }

  async publish(kind: UpKind, payload: Uint8Array, retain = false): Promise<void> {
    await this.client.publishAsync(upTopic(this.device, kind), Buffer.from(payload), { qos: 1, retain });
  }

  predictions(batch: Partial<Parameters<typeof encodePredictions>[0]> & { seq: number }): Promise<void> {
    return this.publish("predictions", encodeBatch(batch));
  }

  event(seq: number, data: EventData, boot = 1, prev = seq - 1): Promise<void> {
    return this.publish("event", encodeMessage("event", { boot, seq, prev, time: Date.now(), data }));
  }

  /** The last acknowledged number of a stream in a boot. */
  acked(stream: Ack["stream"], boot = 1): number {
    const mine = this.acks.filter((ack) => ack.stream === stream && ack.boot === boot);
    return Math.max(0, ...mine.map((ack) => ack.seq));
  }

  async end(): Promise<void> {
    await this.client.endAsync(true);
  }
}

export const BASE_TIME = 1_790_000_000_000;

/** Rows of 100 ms, classes 0, 1, 2 in turn. */
export function rows(
  count: number,
  from = BASE_TIME,
  classOf: (index: number) => number = (index) => index % 3,
): PredictionRow[] {
  return Array.from({ length: count }, (_, index) => ({
    time: from + index * 100,
    class: classOf(index),
    confidence: 0.9,
    latencyMs: 5,
    signals: [0.25],
  }));
}

export function encodeBatch(
  batch: Partial<Parameters<typeof encodePredictions>[0]> & { seq: number },
): Uint8Array {
  return encodePredictions({
    boot: 1,
    prev: batch.seq - 1,
    versionRef: { model: "parts", version: 1, packagePrefix: "00112233445566aa" },
    firstN: (batch.seq - 1) * 10,
    signalNames: ["entropy"],
    rows: rows(10),
    ...batch,
  });
}

/** Waits for a condition with a deadline; no test sleeps. */
export async function until<Result>(
  what: string,
  condition: () => Result | undefined | false | Promise<Result | undefined | false>,
  timeoutMs = 5_000,
): Promise<Result> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const result = await condition();
    if (result !== undefined && result !== false) return result;
    if (performance.now() > deadline) throw new Error(`Waited ${timeoutMs} ms for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
