import { resolve } from "node:path";
import { startServer, type Logger } from "@fieldloop/fleet-server";
import { FieldloopError } from "@fieldloop/protocol";
import type { Command } from "commander";
import { action, note } from "../output.js";
import { readText } from "./keys-files.js";
import { LOG_LEVELS, readLogLevel, readPort, stopSignal, warnOfOldNode, type LogLevel } from "../service.js";

interface ServerCommandOptions {
  data: string;
  httpPort: number;
  mqttPort: number;
  host: string;
  database?: string;
  publicMqttUrl?: string;
  keyPassphraseFile?: string;
  webhooksPrivate?: boolean;
  rotateSecretKey?: boolean;
  logLevel: LogLevel;
  json?: boolean;
}

export function registerServerCommand(program: Command): void {
  program
    .command("server")
    .description("Run the fleet server: MQTT broker, ingest, HTTP API and console, in one process")
    .option("--data <folder>", "everything it keeps", process.env.FIELDLOOP_DATA ?? "fieldloop-data")
    .option("--http-port <port>", "HTTP API and console; 0 takes a free one", readPort, 7300)
    .option("--mqtt-port <port>", "MQTT; 0 takes a free one", readPort, 7301)
    .option("--host <address>", "address to listen on", "127.0.0.1")
    .option("--database <url>", "postgres://… instead of SQLite (default: FIELDLOOP_DATABASE_URL)")
    .option("--public-mqtt-url <url>", "what devices connect to, where it is not the host they enrolled at")
    .option(
      "--key-passphrase-file <file>",
      "opens signing keys that have one (default: FIELDLOOP_KEY_PASSPHRASE)",
    )
    .option(
      "--webhooks-private",
      "let webhooks go to loopback and private addresses, and by plain http (default: FIELDLOOP_WEBHOOKS_PRIVATE=1)",
    )
    .option(
      "--rotate-secret-key",
      "at this start, make a new key for the secrets in the database and encrypt them anew",
    )
    .option("--log-level <level>", `least that is logged: ${LOG_LEVELS.join(", ")}`, readLogLevel, "info")
    .option("--json", "one JSON object a line, for programs")
    .action(action(runServer));
}

/** Ends at SIGINT or SIGTERM, after what arrived is stored. */
async function runServer(options: ServerCommandOptions): Promise<void> {
  const { json = false } = options;
  const logger = lineLogger(options.logLevel, json);
  warnOfOldNode(logger);
  if (options.host !== "127.0.0.1" && options.host !== "::1" && options.host !== "localhost") {
    logger.warn(
      { host: options.host },
      "listening beyond this machine without TLS: put a TLS proxy in front",
    );
  }
  const databaseUrl = options.database ?? process.env.FIELDLOOP_DATABASE_URL;
  const keyPassphrase =
    options.keyPassphraseFile === undefined
      ? process.env.FIELDLOOP_KEY_PASSPHRASE
      : (await readText(options.keyPassphraseFile, "passphrase")).split(/\r?\n/, 1)[0];
  const allowPrivate = options.webhooksPrivate ?? process.env.FIELDLOOP_WEBHOOKS_PRIVATE === "1";
  let lose: (error: FieldloopError) => void = () => undefined;
  const lost = new Promise<FieldloopError>((resolve) => (lose = resolve));
  const server = await startServer({
    onLost: (error) => lose(error),
    dataDir: resolve(options.data),
    httpPort: options.httpPort,
    mqttPort: options.mqttPort,
    host: options.host,
    logger,
    ...(databaseUrl ? { databaseUrl } : {}),
    ...(options.publicMqttUrl ? { publicMqttUrl: options.publicMqttUrl } : {}),
    ...(keyPassphrase ? { keyPassphrase } : {}),
    webhooks: { allowPrivate },
    ...(options.rotateSecretKey ? { rotateSecretKey: true } : {}),
  });
  const stopped = stopSignal();
  const { httpUrl, mqttUrl } = server;
  if (json)
    process.stdout.write(
      `${JSON.stringify({ event: "listening", httpUrl, mqttUrl, data: resolve(options.data) })}\n`,
    );
  else
    announce(httpUrl, mqttUrl, server.adminTokenIsNew ? server.adminToken : undefined, resolve(options.data));
  const ended = await Promise.race([stopped, lost]);
  await server.stop();
  if (ended instanceof FieldloopError) throw ended;
  if (json) process.stdout.write(`${JSON.stringify({ event: "stopped" })}\n`);
}

/** The administrator's token is shown at the very first start only; afterwards it is in its file. */
function announce(httpUrl: string, mqttUrl: string, token: string | undefined, data: string): void {
  note(`console  ${httpUrl}${token === undefined ? "" : `/#token=${token}`}`);
  note(`API      ${httpUrl}/api/docs`);
  note(`devices  ${mqttUrl}`);
  if (token !== undefined)
    note(`admin token (this once; also in ${data}/admin-token, readable by you only): ${token}`);
}

/** Log lines: JSON on standard output, or short ones for people on standard error. */
function lineLogger(least: LogLevel, json: boolean): Logger {
  const write = (level: LogLevel) => (fields: object, message: string) => {
    if (LOG_LEVELS.indexOf(level) < LOG_LEVELS.indexOf(least)) return;
    const entries = Object.entries(fields).map(([key, value]) => [key, readable(value)] as const);
    if (json) {
      const line = { level, time: Date.now(), message, ...Object.fromEntries(entries) };
      process.stdout.write(`${JSON.stringify(line)}\n`);
      return;
    }
    note(
      `${level} ${message} ${entries.map(([key, value]) => `${key}=${JSON.stringify(value)}`).join(" ")}`.trimEnd(),
    );
  };
  return { debug: write("debug"), info: write("info"), warn: write("warn"), error: write("error") };
}

function readable(value: unknown): unknown {
  return value instanceof Error ? (value.stack ?? value.message) : value;
}
