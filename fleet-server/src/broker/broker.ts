import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import {
  FieldloopError,
  LIMITS,
  decodeAck,
  downTopic,
  toFieldloopError,
  type DownKind,
} from "@fieldloop/protocol";
import {
  Aedes,
  type AedesPublishPacket,
  type AuthenticateError,
  type Client,
  type ConnectPacket,
  type PublishPacket,
  type Subscription,
} from "aedes";
import type { Logger } from "../context.js";
import { SERVER_LIMITS } from "../limits.js";
import { listenOn } from "../listen.js";
import { DEVICE_GUARD, GuardedConnection, type GuardSettings } from "./connection.js";
import { WireMeter } from "./meter.js";
import { markRedelivered, type OutgoingPersistence } from "./redelivery.js";
import { RetainedMessages, limitPersistence, type Persistence } from "./retained.js";
import { checkPublish, checkWill, mayReceive, maySubscribe, type Publication } from "./rules.js";

/** Decides who may connect and use which topic. */
export type BrokerAuthorization =
  | {
      readonly kind: "devices";
      /** @throws FieldloopError `unauthenticated` or `device_suspended` */
      authenticate(device: string, credential: string): Promise<void>;
    }
  /** Any client, any topic but `$…`: for checking the broker against MQTT 3.1.1 itself. */
  | { readonly kind: "open" };

export interface BrokerOptions {
  readonly authorize: BrokerAuthorization;
  readonly logger: Logger;
  readonly guard?: Partial<GuardSettings>;
  readonly connectTimeoutMs?: number;
  readonly drainTimeoutMs?: number;
  readonly socketsMax?: number;
}

/** A message as the process sees it. */
export interface BrokerMessage {
  readonly topic: string;
  readonly payload: Uint8Array;
  readonly retain: boolean;
}

export interface BrokerCounters {
  connected: number;
  sockets: number;
  refusedSockets: number;
  refusedPackets: number;
  refusedConnects: number;
  refusedPublishes: number;
  refusedSubscriptions: number;
  takeovers: number;
  retained: number;
  retainedRefused: number;
}

/**
 * The MQTT 3.1.1 broker in this process. A device may publish under its own `up/` and receive its own `down/`, nothing else: topics are
 * judged by the authenticated identity, on publishing, subscribing, forwarding and in last wills.
 */
export class Broker {
  readonly meter = new WireMeter();
  readonly #options: BrokerOptions;
  readonly #guard: GuardSettings;
  readonly #retained = new RetainedMessages();
  readonly #server: Server;
  readonly #sockets = new Set<GuardedConnection>();
  readonly #counters = {
    refusedSockets: 0,
    refusedPackets: 0,
    refusedConnects: 0,
    refusedPublishes: 0,
    refusedSubscriptions: 0,
    takeovers: 0,
  };
  #aedes: Aedes | undefined;

  constructor(options: BrokerOptions) {
    this.#options = options;
    this.#guard = {
      ...DEVICE_GUARD,
      ...(options.authorize.kind === "open" ? { qosMax: 2 } : {}),
      ...options.guard,
    };
    this.#server = createServer({ noDelay: true }, (socket) => this.#accept(socket));
    this.#server.maxConnections = options.socketsMax ?? SERVER_LIMITS.brokerSocketsMax;
    this.#server.on("drop", () => this.#counters.refusedSockets++);
  }

  /** Makes it ready for messages of this process; nobody can connect yet. */
  async open(): Promise<void> {
    const {
      connectTimeoutMs = SERVER_LIMITS.brokerConnectTimeoutMs,
      drainTimeoutMs = SERVER_LIMITS.brokerDrainTimeoutMs,
    } = this.#options;
    this.#aedes = await Aedes.createBroker({
      connectTimeout: connectTimeoutMs,
      drainTimeout: drainTimeoutMs,
      maxTopicLevels: LIMITS.topicLevelsMax,
      maxClientsIdLength: SERVER_LIMITS.brokerClientIdLengthMax,
      maxInflightInbound: SERVER_LIMITS.brokerPacketsInFlightMax,
      preConnect: (client, packet, done) => this.#preConnect(client, packet, done),
      authenticate: (client, username, password, done) =>
        void this.#authenticate(client, username, password, done),
      authorizePublish: (client, packet, done) => done(this.#authorizePublish(client, packet)),
      authorizeSubscribe: (client, subscription, done) =>
        done(null, this.#authorizeSubscribe(client, subscription)),
      authorizeForward: (client, packet) => this.#authorizeForward(client, packet),
    });
    const { persistence } = this.#aedes as unknown as { persistence: Persistence & OutgoingPersistence };
    limitPersistence(persistence, this.#retained, (clientId) => this.#clients[clientId]?.closed === false);
    markRedelivered(persistence);
    this.#aedes.on("clientError", (client: Client, error: Error) => this.#closed(client, error));
    this.#aedes.on("connectionError", (client: Client, error: Error) => this.#closed(client, error));
  }

  /** Both at once. @param port 0 for any free one @returns the port */
  async start(port: number, host: string): Promise<number> {
    await this.open();
    return this.listen(port, host);
  }

  /** Lets clients in. @param port 0 for any free one @returns the port */
  async listen(port: number, host: string): Promise<number> {
    await listenOn(this.#server, port, host, "MQTT");
    return (this.#server.address() as AddressInfo).port;
  }

  async stop(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    const aedes = this.#aedes;
    if (aedes) await new Promise<void>((resolve) => aedes.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  /** Calls `handler` for what matches; it must not wait, since the broker waits for it. */
  async subscribe(filter: string, handler: (message: BrokerMessage) => void): Promise<void> {
    await new Promise<void>((resolve) =>
      this.#running.subscribe(
        filter,
        (packet, done) => {
          handler({ topic: packet.topic, payload: packet.payload as Buffer, retain: packet.retain });
          done();
        },
        resolve,
      ),
    );
  }

  /** Calls `listener` for every message that is published, either way. @returns the function that ends it */
  observe(listener: (message: BrokerMessage) => void): () => void {
    const observer = (packet: AedesPublishPacket): void => {
      if (!packet.topic.startsWith("$")) {
        listener({ topic: packet.topic, payload: Buffer.from(packet.payload), retain: packet.retain });
      }
    };
    this.#running.on("publish", observer);
    return () => this.#aedes?.off("publish", observer);
  }

  /** Sends to a device. `desired` is retained, an acknowledgement travels at QoS 0: a lost one is repeated by the next. */
  async publish(device: string, kind: DownKind, payload: Uint8Array): Promise<void> {
    const topic = downTopic(device, kind);
    if (
      kind === "ack" &&
      this.isConnected(device) &&
      decodeAck(payload).some((ack) => ack.stream === "predictions")
    ) {
      this.meter.countPredictionAck(topic, payload);
    }
    const packet: PublishPacket = {
      cmd: "publish",
      topic,
      payload: Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength),
      qos: kind === "ack" ? 0 : 1,
      retain: kind === "desired",
      dup: false,
    };
    await new Promise<void>((resolve, reject) =>
      this.#running.publish(packet, (error) => (error ? reject(error) : resolve())),
    );
  }

  /** Ends a device's connection; its last will is published. */
  disconnect(device: string): void {
    this.#clients[device]?.close();
  }

  isConnected(device: string): boolean {
    return this.#clients[device]?.connected === true;
  }

  counters(): BrokerCounters {
    return {
      ...this.#counters,
      // aedes' own counter drifts; the map is right.
      connected: Object.keys(this.#clients).length,
      sockets: this.#sockets.size,
      retained: this.#retained.count,
      retainedRefused: this.#retained.refused,
    };
  }

  get #running(): Aedes {
    if (!this.#aedes) throw new FieldloopError("unavailable", "Use broker: it is not running");
    return this.#aedes;
  }

  get #clients(): Record<string, Client | undefined> {
    return (
      (this.#aedes as unknown as { clients: Record<string, Client | undefined> } | undefined)?.clients ?? {}
    );
  }

  #accept(socket: Socket): void {
    const connection = new GuardedConnection(socket, this.#guard, this.meter);
    this.#sockets.add(connection);
    connection.on("close", () => this.#sockets.delete(connection));
    this.#running.handle(connection);
  }

  #preConnect(
    client: Client,
    packet: ConnectPacket,
    done: (error: Error | null, success: boolean) => void,
  ): void {
    const refusal = this.#refuseConnect(packet);
    if (refusal) {
      this.#counters.refusedConnects++;
      // [MQTT-3.1.3-8]: CONNACK 0x02, then close. Before the broker knows the client it cannot answer by itself.
      client.conn.write(Buffer.from([0x20, 2, 0, 2]));
      return done(new Error(refusal), false);
    }
    // Devices keep no session in the broker: what they sent is acknowledged by ingest, what they should do is retained.
    const devices = this.#options.authorize.kind === "devices";
    if (devices) packet.clean = true;
    packet.keepalive = clampKeepAlive(
      packet.keepalive,
      devices ? SERVER_LIMITS.brokerKeepAliveSecondsMin : 1,
    );
    done(null, true);
  }

  #refuseConnect(packet: ConnectPacket): string | undefined {
    if (packet.clientId === "" && !packet.clean) return "an empty client id needs a clean session";
    if (packet.clientId.length > SERVER_LIMITS.brokerClientIdLengthMax) return "the client id is too long";
    if (this.#options.authorize.kind === "open" || !packet.will) return undefined;
    try {
      checkWill(packet.clientId, publicationOf(packet.will));
      return undefined;
    } catch (error) {
      return toFieldloopError(error).message;
    }
  }

  async #authenticate(
    client: Client,
    username: string | undefined,
    password: Buffer | undefined,
    done: (error: AuthenticateError | null, success: boolean | null) => void,
  ): Promise<void> {
    const { authorize } = this.#options;
    try {
      if (authorize.kind === "devices") {
        if (username !== client.id) {
          throw new FieldloopError(
            "unauthenticated",
            "Connect: client id and user name must both be the device id",
          );
        }
        await authorize.authenticate(client.id, password?.toString("utf8") ?? "");
      }
    } catch (error) {
      this.#counters.refusedConnects++;
      const coded = toFieldloopError(error);
      // Return codes of table 3.1: 4 bad user name or password, 5 not authorized, 3 server unavailable.
      const returnCode = coded.code === "unauthenticated" ? 4 : coded.code === "device_suspended" ? 5 : 3;
      return done(Object.assign(new Error(coded.message), { returnCode }) as AuthenticateError, null);
    }
    if (this.isConnected(client.id)) this.#counters.takeovers++;
    done(null, true);
  }

  #authorizePublish(client: Client | null, packet: PublishPacket): Error | null {
    if (this.#options.authorize.kind === "open") {
      return packet.topic.startsWith("$") ? new Error("topics that begin with $ are the broker's") : null;
    }
    try {
      // The broker itself publishes without a client; a will whose client is gone was checked when it connected.
      if (client) checkPublish(client.id, publicationOf(packet));
      return null;
    } catch (error) {
      this.#counters.refusedPublishes++;
      const { code, message } = toFieldloopError(error);
      this.#options.logger.warn({ code, device: client?.id }, message);
      return new Error(message);
    }
  }

  /** @returns null to refuse: SUBACK 0x80 */
  #authorizeSubscribe(client: Client, subscription: Subscription): Subscription | null {
    const { topic } = subscription;
    const open = this.#options.authorize.kind === "open";
    if (open ? !topic.startsWith("$") : maySubscribe(client.id, topic) && this.#hasRoom(client, topic))
      return subscription;
    this.#counters.refusedSubscriptions++;
    this.#options.logger.warn(
      { code: "topic_forbidden", client: client.id, filter: topic.slice(0, 200) },
      "subscription refused",
    );
    return null;
  }

  #hasRoom(client: Client, filter: string): boolean {
    const { subscriptions } = client as unknown as { subscriptions: Record<string, unknown> };
    return (
      filter in subscriptions ||
      Object.keys(subscriptions).length < SERVER_LIMITS.brokerSubscriptionsPerDeviceMax
    );
  }

  #authorizeForward(client: Client, packet: AedesPublishPacket): AedesPublishPacket | null {
    return this.#options.authorize.kind === "open" || mayReceive(client.id, packet.topic) ? packet : null;
  }

  #closed(client: Client, error: Error): void {
    const connection = client.conn as GuardedConnection;
    if (connection.refusal !== undefined) this.#counters.refusedPackets++;
    this.#options.logger.debug(
      { client: client.id, reason: connection.refusal ?? error.message },
      "connection closed",
    );
  }
}

function publicationOf(packet: {
  topic: string;
  qos?: number | undefined;
  retain?: boolean | undefined;
  payload: string | Buffer;
}): Publication {
  return {
    topic: packet.topic,
    qos: packet.qos ?? 0,
    retain: packet.retain ?? false,
    bytes: typeof packet.payload === "string" ? Buffer.byteLength(packet.payload) : packet.payload.length,
  };
}

/** 0 would keep a dead connection for ever. A server may drop a client that it thinks gone at any time (3.1.2.10). */
function clampKeepAlive(seconds: number | undefined, min: number): number {
  const max = SERVER_LIMITS.brokerKeepAliveSecondsMax;
  return seconds === undefined || seconds === 0 ? max : Math.min(Math.max(seconds, min), max);
}
