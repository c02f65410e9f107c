import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer as createHttpServer, type Server as HttpServer, type ServerResponse } from "node:http";
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import {
  DIRECTOR_TARGET,
  MAIN_LANE,
  UNLIMITED,
  createSigningKey,
  decodeMessage,
  decodePredictions,
  DESIRED_TYPE,
  downTopic,
  encodeAck,
  encodeMessage,
  judgeDelivery,
  manifestFiles,
  packageTargetPath,
  parseTopic,
  sign,
  toHex,
  type Assignment,
  type Desired,
  type DeviceState,
  type EventMessage,
  type PredictionColumns,
  type Profile,
  type SampleMessage,
  type SigningKey,
  type Stream,
} from "@fieldloop/protocol";
import type { ModelPackage } from "@fieldloop/runtime/node";
import { Aedes, type Client } from "aedes";
import { TufRepository } from "./tuf-repository.test.kit.js";

export type Artifact = (response: ServerResponse, range: string | undefined) => void;

/** A fleet server as small as it can be, over a real broker and real HTTP: enrols, serves artifacts, ingests and acknowledges. */
export class TestFleet {
  readonly key: SigningKey = createSigningKey((length) => new Uint8Array(randomBytes(length)));
  /** What this fleet vouches for; the director's key is {@link key}. */
  readonly tuf = new TufRepository();
  readonly events: EventMessage[] = [];
  readonly predictions: PredictionColumns[] = [];
  readonly profiles: Profile[] = [];
  readonly samples: SampleMessage[] = [];
  readonly verdicts: string[] = [];
  readonly requests: { path: string; range: string | undefined }[] = [];
  /** Answers for one artifact that are not those of an honest server. */
  readonly tampered = new Map<string, Artifact>();
  /** The same of the trust repository, by path: `/tuf/metadata/timestamp.json`. */
  readonly tufTampered = new Map<string, Artifact>();
  state: DeviceState | undefined;
  online: boolean | undefined;
  /** Whether what is stored is acknowledged, and what chance loses an acknowledgement. */
  acknowledge = true;
  loseAck: () => boolean = () => false;
  readonly #artifacts = new Map<string, Uint8Array>();
  readonly #cursors = new Map<Stream, { boot: number; seq: number }>();
  readonly #sockets = new Set<Socket>();
  #revision = 0;
  #desired: Desired | undefined;
  #broker!: Aedes;
  #tcp!: Server;
  #http!: HttpServer;
  #mqttPort = 0;

  static readonly device = "test-1";

  async start(): Promise<void> {
    this.direct(this.key);
    this.#http = createHttpServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => this.#answer(request.url ?? "", request.headers, response));
    });
    await new Promise<void>((resolve) => this.#http.listen(0, "127.0.0.1", resolve));
    await this.#listen(0);
  }

  async stop(): Promise<void> {
    await this.cutBroker();
    this.#http.closeAllConnections();
    await new Promise((resolve) => this.#http.close(resolve));
  }

  get serverUrl(): string {
    return `http://127.0.0.1:${(this.#http.address() as AddressInfo).port}`;
  }

  /** The broker is gone, sockets and all. */
  async cutBroker(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#tcp.close(resolve));
    await new Promise<void>((resolve) => this.#broker.close(() => resolve()));
  }

  /** A broker with an empty memory at the same port; what was ingested is known still. */
  async returnBroker(): Promise<void> {
    await this.#listen(this.#mqttPort);
    if (this.#desired) this.#publishDesired(this.#desired);
  }

  async #listen(port: number): Promise<void> {
    const broker = await Aedes.createBroker();
    this.#broker = broker;
    broker.authenticate = (_client: Client, user, password, done) =>
      done(null, user === TestFleet.device && String(password) === CREDENTIAL);
    broker.on("publish", (packet, client) => {
      if (client) this.#ingest(packet.topic, new Uint8Array(packet.payload as Buffer));
    });
    this.#tcp = createTcpServer((socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
      broker.handle(socket);
    });
    await new Promise<void>((resolve) => this.#tcp.listen(port, "127.0.0.1", resolve));
    this.#mqttPort = (this.#tcp.address() as AddressInfo).port;
  }

  #ingest(topic: string, bytes: Uint8Array): void {
    const { kind } = parseTopic(topic);
    switch (kind) {
      case "state":
        this.state = decodeMessage("state", bytes);
        return;
      case "presence":
        this.online = decodeMessage("presence", bytes).online;
        return;
      case "predictions":
        return this.#store(kind, decodePredictions(bytes), this.predictions);
      case "profile":
        return this.#store(kind, decodeMessage("profile", bytes), this.profiles);
      case "sample":
        return this.#store(kind, decodeMessage("sample", bytes), this.samples);
      case "event":
        return this.#store(kind, decodeMessage("event", bytes), this.events);
      case "desired":
      case "command":
      case "ack":
        return;
    }
  }

  #store<Message extends { boot: number; seq: number; prev: number }>(
    stream: Stream,
    message: Message,
    stored: Message[],
  ): void {
    const verdict = judgeDelivery(this.#cursors.get(stream), message);
    this.verdicts.push(`${stream} ${verdict}`);
    if (verdict === "accept") {
      stored.push(message);
      this.#cursors.set(stream, { boot: message.boot, seq: message.seq });
    }
    const cursor = this.#cursors.get(stream);
    if (!cursor || !this.acknowledge || this.loseAck()) return;
    this.#publish("ack", encodeAck([{ stream, ...cursor }]), 0, false);
  }

  #publish(kind: "ack" | "desired", payload: Uint8Array, qos: 0 | 1, retain: boolean): void {
    const topic = downTopic(TestFleet.device, kind);
    this.#broker.publish(
      { cmd: "publish", topic, payload: Buffer.from(payload), qos, retain, dup: false },
      () => undefined,
    );
  }

  /** Says by the targets keys whose signature on desired states counts. */
  direct(...keys: readonly SigningKey[]): void {
    const content = { keys: keys.map(({ keyId, publicKey }) => ({ keyId, publicKey: toHex(publicKey) })) };
    this.tuf.addTarget("targets", DIRECTOR_TARGET, JSON.stringify(content));
    this.tuf.publishTargets();
  }

  /** Makes the files of a package available, vouches for it, and returns the assignment that deploys it. */
  async publish(
    pkg: ModelPackage,
    deployment: string,
    options: { readonly deviceClasses?: readonly string[] } = {},
  ): Promise<Assignment> {
    const assignment = await this.store(pkg, deployment);
    this.vouch(pkg, assignment.model, assignment.version, options.deviceClasses);
    return assignment;
  }

  /** Makes the files of a package available without a word about it, and returns the assignment that would deploy it. */
  async store(pkg: ModelPackage, deployment: string): Promise<Assignment> {
    const { model, version } = pkg.manifest;
    this.#artifacts.set(pkg.packageSha256, pkg.manifestBytes);
    for (const file of manifestFiles(pkg.manifest)) {
      this.#artifacts.set(file.sha256, new Uint8Array(await readFile(join(pkg.dir, file.file))));
    }
    return {
      deployment,
      lane: MAIN_LANE,
      model,
      version,
      packageSha256: pkg.packageSha256,
      manifestBytes: pkg.manifestBytes.length,
      probation: { seconds: 0, predictions: 5 },
      shadow: null,
      window: null,
      expires: null,
    };
  }

  /** Has the targets keys say that a package is this version of this model. */
  vouch(pkg: ModelPackage, model: string, version: number, deviceClasses?: readonly string[]): void {
    const custom = {
      model,
      version,
      packageSha256: pkg.packageSha256,
      deviceClasses: deviceClasses ? [...deviceClasses] : null,
      evidence: { evaluation: null, verdict: "none" },
    };
    this.tuf.addTarget("targets", packageTargetPath(model, version), pkg.manifestBytes, {
      fieldloop: custom,
    });
    this.tuf.publishTargets();
  }

  desire(assignments: Assignment[], change: Partial<Desired> = {}): Desired {
    const desired: Desired = {
      device: TestFleet.device,
      revision: ++this.#revision,
      issued: Date.now(),
      assignments,
      sampling: { bytesPerHour: 10_000_000, randomShare: 0.05, worthMin: 0, worthPerMinute: 60 },
      predictionsIntervalSeconds: 0.2,
      profileIntervalSeconds: 1,
      limits: UNLIMITED,
      configId: null,
      ...change,
    };
    this.#desired = desired;
    this.#publishDesired(desired);
    return desired;
  }

  #publishDesired(desired: Desired): void {
    this.#publish("desired", this.signDesired(desired), 1, true);
  }

  signDesired(desired: Desired, key: SigningKey = this.key): Uint8Array {
    return sign(DESIRED_TYPE, encodeMessage("desired", desired), key);
  }

  /** Publishes bytes as they are on `down/desired`. */
  sendDesired(envelope: Uint8Array): void {
    this.#publish("desired", envelope, 1, false);
  }

  deploymentStates(deployment: string): string[] {
    return this.events.flatMap(({ data }) =>
      data.type === "deployment" && data.deployment === deployment ? [data.state] : [],
    );
  }

  #tufFile(url: string): Uint8Array | undefined {
    const metadata = /^\/tuf\/metadata\/(.+)$/.exec(url)?.[1];
    if (metadata !== undefined) return this.tuf.files.get(metadata);
    const [, folder = "", name = ""] = /^\/tuf\/targets\/(.*\/)[0-9a-f]{64}\.([^/]+)$/.exec(url) ?? [];
    return this.tuf.contents.get(`${folder}${name}`);
  }

  #answer(
    url: string,
    headers: Record<string, string | string[] | undefined>,
    response: ServerResponse,
  ): void {
    const range = typeof headers["range"] === "string" ? headers["range"] : undefined;
    if (url.startsWith("/tuf/")) {
      const bytes = this.#tufFile(url);
      const tampered = this.tufTampered.get(url);
      if (tampered) tampered(response, range);
      else response.writeHead(bytes ? 200 : 404).end(bytes);
      return;
    }
    this.requests.push({ path: url, range });
    if (url === "/api/v1/enrol") {
      const answer = {
        device: TestFleet.device,
        credential: CREDENTIAL,
        mqttUrl: `mqtt://127.0.0.1:${this.#mqttPort}`,
        fleetKeys: [{ keyId: this.key.keyId, publicKey: toHex(this.key.publicKey) }],
        root: this.tuf.factoryRoot.toString("utf8"),
      };
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(answer));
      return;
    }
    const sha256 = /^\/artifacts\/sha256\/([0-9a-f]{64})$/.exec(url)?.[1] ?? "";
    const bytes = this.#artifacts.get(sha256);
    if (!bytes || headers["authorization"] !== `Bearer ${CREDENTIAL}`) {
      response.writeHead(bytes ? 401 : 404).end();
      return;
    }
    const tampered = this.tampered.get(sha256);
    if (tampered) tampered(response, range);
    else serveRange(response, bytes, range);
  }
}

const CREDENTIAL = "fld.test-1.0123456789abcdef";

export function serveRange(response: ServerResponse, bytes: Uint8Array, range: string | undefined): void {
  const from = Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
  if (from === 0) {
    response.writeHead(200, { "content-length": bytes.length }).end(bytes);
    return;
  }
  response
    .writeHead(206, {
      "content-length": bytes.length - from,
      "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}`,
    })
    .end(bytes.subarray(from));
}

/** Waits until `condition` holds. */
export async function until(
  condition: () => boolean,
  what: string | (() => string),
  timeoutMs = 120_000,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > deadline) {
      throw new Error(`Not within ${timeoutMs} ms: ${typeof what === "string" ? what : what()}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
