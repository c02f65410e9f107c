import { randomBytes } from "node:crypto";
import { FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import type { IPublishPacket, MqttClient } from "mqtt";
import { reasonOf } from "../../control/files.js";
import { AGENT_LIMITS } from "../../limits.js";
import { withoutLogins } from "../../source-parts.js";
import type { SpecOf } from "../../source-spec.js";
import { Deliverer } from "./deliver.js";
import { FloatChunks } from "./float-chunks.js";
import { type Attempt, type AttemptEnd, KeepTrying } from "./keep-trying.js";
import { readLogin } from "./login.js";
import { RowFrames, RowLedger } from "./row-frames.js";
import type { DropPolicy, Source, SourceContext, SourceFrame } from "./source.js";

type MqttSpec = SpecOf<"mqtt">;

const KEEP_ALIVE_SECONDS = 20;

/** Rows from an MQTT broker, any but the fleet's; each topic under the filter is a stream of its own. */
export class MqttSource implements Source {
  readonly dropPolicy: DropPolicy;
  readonly #spec: MqttSpec;
  readonly #context: SourceContext;
  readonly #action: string;
  readonly #deliverer: Deliverer;
  readonly #ledger: RowLedger;
  readonly #trying: KeepTrying;
  #topics = new Map<string, RowFrames>();
  #messages = 0;

  constructor(spec: MqttSpec, context: SourceContext) {
    this.#spec = spec;
    this.#context = context;
    this.dropPolicy = spec.drop;
    this.#action = `Read mqtt "${spec.url}/${spec.topic}"`;
    this.#deliverer = new Deliverer(context, spec.drop);
    this.#ledger = new RowLedger(context, this.#action);
    this.#trying = new KeepTrying(context, (attempt) => this.#connect(attempt));
  }

  open(): Promise<void> {
    this.#trying.start();
    return Promise.resolve();
  }

  close(): Promise<void> {
    return this.#trying.stop();
  }

  counts(): Readonly<Record<string, number>> {
    const { rows, malformedRows, gaps } = this.#ledger;
    return { messages: this.#messages, rows, malformedRows, gaps, restarts: this.#trying.restarts };
  }

  async #connect({ signal, healthy }: Attempt): Promise<AttemptEnd> {
    const { url, topic, qos } = this.#spec;
    const login = await readLogin(this.#spec);
    // Loaded by whoever reads from a broker alone: it is half of what the host would load otherwise.
    const { connect } = await import("mqtt");
    const client = connect(url, {
      clientId: `fieldloop-${randomBytes(6).toString("hex")}`,
      clean: true,
      keepalive: KEEP_ALIVE_SECONDS,
      connectTimeout: AGENT_LIMITS.sourceConnectTimeoutMs,
      // Trying again is done here, with troubles told and waits that grow.
      reconnectPeriod: 0,
      ...login,
    });
    this.#topics = new Map();
    // The next message is read from the socket when this one is done with: a slow model slows the broker, nothing piles up.
    client.handleMessage = (packet, done): void => {
      void this.#take(packet, signal)
        .catch((error: unknown) => client.emit("error", toFieldloopError(error)))
        .finally(() => setImmediate(done));
    };
    const stop = (): void => void client.end(true);
    signal.addEventListener("abort", stop, { once: true });
    try {
      await ended(client, () => {
        client.subscribe(topic, { qos: qos === 1 ? 1 : 0 }, (error, granted) => {
          const refused = granted?.some((grant) => grant.qos >= 128) === true;
          if (error || refused) client.emit("error", new Error(`the broker refuses "${topic}"`));
          else healthy();
        });
      });
    } catch (cause) {
      if (signal.aborted) return "ended";
      throw new FieldloopError("source_failed", `${this.#action}: ${withoutLogins(reasonOf(cause))}`, {
        cause,
      });
    } finally {
      signal.removeEventListener("abort", stop);
      await new Promise<void>((resolve) => client.end(true, () => resolve()));
    }
    return "ended";
  }

  async #take(packet: IPublishPacket, signal: AbortSignal): Promise<void> {
    this.#messages++;
    const payload = typeof packet.payload === "string" ? Buffer.from(packet.payload) : packet.payload;
    const where = (): string => `message on "${packet.topic.slice(0, 100)}"`;
    if (payload.length > AGENT_LIMITS.mqttSourcePayloadBytesMax) {
      this.#ledger.malformed(where(), `${payload.length} bytes`);
      return;
    }
    const frames = this.#framesOf(packet.topic);
    if (!frames) {
      this.#ledger.malformed(where(), `more than ${AGENT_LIMITS.mqttSourceTopicsMax} topics`);
      return;
    }
    for (const frame of this.#read(payload, frames, where)) {
      if (signal.aborted) return;
      await this.#deliverer.deliver({ ...frame, stream: packet.topic }, signal);
    }
  }

  *#read(payload: Buffer, frames: RowFrames, where: () => string): Generator<SourceFrame> {
    const { format } = this.#spec.rows;
    if (format === "json") yield* frames.document(payload.toString("utf8"), where);
    else if (format === "float32") {
      const floats = new FloatChunks();
      const values = floats.push(payload, 1);
      if (floats.rest > 0) this.#ledger.malformed(where(), `${payload.length} bytes are no float32 values`);
      else yield* frames.values(values, where);
    } else {
      for (const line of payload.toString("utf8").split(/\r?\n/)) yield* frames.line(line, where);
    }
  }

  #framesOf(topic: string): RowFrames | undefined {
    const known = this.#topics.get(topic);
    if (known || this.#topics.size >= AGENT_LIMITS.mqttSourceTopicsMax) return known;
    const frames = new RowFrames(this.#spec.rows, this.#context, this.#ledger);
    this.#topics.set(topic, frames);
    return frames;
  }
}

/** Rejects when the connection is lost or refused; `onConnected` at its begin. */
function ended(client: MqttClient, onConnected: () => void): Promise<never> {
  return new Promise((_, reject) => {
    client.on("connect", onConnected);
    client.on("error", reject);
    client.on("close", () => reject(new Error("the connection ended")));
  });
}
