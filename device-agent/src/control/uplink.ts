import { randomBytes } from "node:crypto";
import {
  decodeAck,
  downTopic,
  encodeMessage,
  FieldloopError,
  parseTopic,
  toFieldloopError,
  upTopic,
  type Ack,
} from "@fieldloop/protocol";
import { connect, type MqttClient } from "mqtt";
import { writeToStream } from "mqtt-packet";
import type { Logger } from "pino";
import type { Clock, RandomSource } from "../clock.js";
import { AGENT_LIMITS, AGENT_VERSION } from "../limits.js";
import type { Sender } from "./sender.js";

export interface UplinkOptions {
  readonly device: string;
  readonly credential: string;
  readonly mqttUrl: string;
  readonly boot: number;
  readonly sender: Sender;
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly log: Logger;
  /** The reported state, encoded, at this moment. */
  readonly state: () => Uint8Array;
  readonly onDesired: (envelope: Uint8Array) => void;
  readonly onCommand: (envelope: Uint8Array) => void;
  readonly onAck: (acks: readonly Ack[]) => void;
  /** The link came up (undefined), or why it is down. */
  readonly onLink: (error: FieldloopError | undefined) => void;
}

const DOWN_BYTES_MAX = 32 * 1024;
// Otherwise the library keeps a buffer for each of 65,536 numbers: 8 MB that a device has better use for.
writeToStream.cacheNumbers = false;

/**
 * The MQTT 3.1.1 connection. Every attempt is a client of its own with a clean session: what has to survive is in the spool
 * on this side and retained or in the database on the other, so a session kept by the broker would only be a third copy that
 * an external broker may lose, and mqtt.js would send its stored publishes with an outdated `prev`.
 */
export class Uplink {
  readonly #options: UplinkOptions;
  readonly #instance = randomBytes(8).toString("hex");
  #client: MqttClient | undefined;
  #connected = false;
  #stopped = true;
  #attempts = 0;
  #reconnectTimer: NodeJS.Timeout | undefined;
  #stateTimer: NodeJS.Timeout | undefined;
  #soonTimer: NodeJS.Timeout | undefined;

  constructor(options: UplinkOptions) {
    this.#options = options;
  }

  get connected(): boolean {
    return this.#connected;
  }

  start(): void {
    this.#stopped = false;
    this.#connect();
    this.#stateTimer = setInterval(() => this.#publishState(), AGENT_LIMITS.stateIntervalMs);
  }

  /** Resolves when the server has acknowledged everything, at the latest after so many milliseconds or when the link is gone. */
  async drain(timeoutMs: number): Promise<void> {
    const { clock, sender } = this.#options;
    const until = clock.monotonic() + timeoutMs;
    while (this.connected && !sender.idle && clock.monotonic() < until) {
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  }

  /** Says offline, closes, and waits for the broker's PUBACK for at most a second. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#reconnectTimer);
    clearTimeout(this.#soonTimer);
    clearInterval(this.#stateTimer);
    const client = this.#client;
    if (!client) return;
    // A link that is still being set up may have said that the device is online.
    if (client.connected) {
      const said = Promise.all([
        this.#sayState(client),
        this.#publish(client, "presence", this.#presence(false)),
      ]);
      await Promise.race([said.catch(() => undefined), delay(1_000)]);
    }
    this.#lost(client, undefined);
    await Promise.race([client.endAsync(false).catch(() => undefined), delay(1_000)]);
  }

  /** The state changed: publish it soon; several changes at once become one message. */
  stateChanged(): void {
    this.#soonTimer ??= setTimeout(() => {
      this.#soonTimer = undefined;
      this.#publishState();
    }, AGENT_LIMITS.stateMinIntervalMs);
  }

  #connect(): void {
    const { device, credential, mqttUrl } = this.#options;
    const client = connect(mqttUrl, {
      protocolVersion: 4,
      clientId: device,
      username: device,
      password: credential,
      clean: true,
      keepalive: AGENT_LIMITS.keepAliveSeconds,
      connectTimeout: AGENT_LIMITS.connectTimeoutMs,
      reconnectPeriod: 0,
      queueQoSZero: false,
      resubscribe: false,
      will: {
        topic: upTopic(device, "presence"),
        payload: Buffer.from(this.#presence(false, true)),
        qos: 1,
        retain: true,
      },
    });
    this.#client = client;
    let failure: FieldloopError | undefined;
    client.on("error", (error) => {
      failure = linkError(error);
    });
    client.on("connect", () => void this.#opened(client));
    client.on("message", (topic, payload) => this.#received(topic, payload));
    client.on("close", () => this.#lost(client, failure));
  }

  async #opened(client: MqttClient): Promise<void> {
    const { device, log, sender } = this.#options;
    try {
      await client.subscribeAsync({
        [downTopic(device, "desired")]: { qos: 1 },
        [downTopic(device, "command")]: { qos: 1 },
        [downTopic(device, "ack")]: { qos: 0 },
      });
      if (this.#stopped) return;
      await this.#publish(client, "presence", this.#presence(true));
      if (this.#stopped) return;
      await this.#sayState(client);
    } catch (error) {
      log.debug({ error }, "link lost while it was being set up");
      client.end(true);
      return;
    }
    if (client !== this.#client || this.#stopped) return;
    this.#connected = true;
    this.#attempts = 0;
    this.#options.onLink(undefined);
    sender.connected(async (topic, payload) => {
      await client.publishAsync(topic, Buffer.from(payload), { qos: 1 });
    });
  }

  #received(topic: string, payload: Uint8Array): void {
    try {
      if (payload.length > DOWN_BYTES_MAX) {
        throw new FieldloopError("message_too_large", `Receive: ${payload.length} bytes on "${topic}"`);
      }
      const parsed = parseTopic(topic);
      if (parsed.way !== "down" || parsed.device !== this.#options.device) return;
      // Buffers of the socket are reused: what is kept is copied.
      const bytes = Uint8Array.from(payload);
      switch (parsed.kind) {
        case "ack":
          this.#options.onAck(decodeAck(bytes));
          break;
        case "desired":
          if (bytes.length > 0) this.#options.onDesired(bytes);
          break;
        case "command":
          this.#options.onCommand(bytes);
          break;
      }
    } catch (error) {
      const coded = toFieldloopError(error);
      this.#options.log.warn({ code: coded.code, topic }, coded.message);
    }
  }

  #lost(client: MqttClient, failure: FieldloopError | undefined): void {
    if (client !== this.#client) return;
    this.#client = undefined;
    this.#connected = false;
    this.#options.sender.disconnected();
    if (this.#stopped) return;
    client.end(true);
    const refused = failure?.code === "unauthenticated";
    const limitMs = refused
      ? AGENT_LIMITS.reconnectRefusedMs
      : Math.min(AGENT_LIMITS.reconnectMaxMs, AGENT_LIMITS.reconnectMinMs * 2 ** this.#attempts);
    this.#attempts = Math.min(this.#attempts + 1, 16);
    this.#options.onLink(
      failure ?? new FieldloopError("unavailable", "Connect to the broker: the link was closed"),
    );
    // Half of it by chance: a fleet that lost its broker does not come back in one wave.
    this.#reconnectTimer = setTimeout(() => this.#connect(), limitMs * (0.5 + 0.5 * this.#options.random()));
  }

  #publishState(): void {
    const client = this.#client;
    if (!client || !this.#connected) return;
    this.#sayState(client).catch((error: unknown) => {
      this.#options.log.debug({ error }, "state not published");
    });
  }

  /** A state with a value that is not as it should be goes unsaid: it must end neither the agent nor its link. */
  async #sayState(client: MqttClient): Promise<void> {
    let payload: Uint8Array;
    try {
      payload = this.#options.state();
    } catch (error) {
      const { code, message } = toFieldloopError(error);
      this.#options.log.error({ code }, `the state is not published: ${message}`);
      return;
    }
    await this.#publish(client, "state", payload);
  }

  async #publish(client: MqttClient, kind: "presence" | "state", payload: Uint8Array): Promise<void> {
    await client.publishAsync(upTopic(this.#options.device, kind), Buffer.from(payload), {
      qos: 1,
      retain: true,
    });
  }

  #presence(online: boolean, asWill = false): Uint8Array {
    return encodeMessage("presence", {
      online,
      boot: this.#options.boot,
      agentVersion: AGENT_VERSION,
      instance: this.#instance,
      ...(asWill ? {} : { time: this.#options.clock.now() }),
    });
  }
}

/** CONNACK return codes 4 and 5 (MQTT 3.1.1, table 3.1) refuse the credential; all else is a link that is down. */
function linkError(error: Error): FieldloopError {
  const code = "code" in error ? error.code : undefined;
  if (code === 4 || code === 5) {
    return new FieldloopError(
      "unauthenticated",
      "Connect to the broker: it refused this device's credential",
      {
        cause: error,
      },
    );
  }
  return new FieldloopError("unavailable", `Connect to the broker: ${error.message}`, { cause: error });
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms).unref();
  });
}
