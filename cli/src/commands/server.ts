import { resolve } from "node:path";
import { startServer, type Logger } from "@fieldloop/fleet-server";
import { InvalidArgumentError, type Command } from "commander";
import { action, note } from "../output.js";

interface ServerCommandOptions {
  data: string;
  httpPort: number;
  mqttPort: number;
  host: string;
  database?: string;
  publicMqttUrl?: string;
  logLevel: Level;
  json?: boolean;
}

const LEVELS = ["debug", "info", "warn", "error"] as const;
type Level = (typeof LEVELS)[number];
/** Node 20 gets no security fixes since April 2026. */
const OLDEST_MAINTAINED_NODE = 22;

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
    .option("--log-level <level>", `least that is logged: ${LEVELS.join(", ")}`, readLevel, "info")
    .option("--json", "one JSON object a line, for programs")
    .action(action(runServer));
}

/** Ends at SIGINT or SIGTERM, after what arrived is stored. */
async function runServer(options: ServerCommandOptions): Promise<void> {
  const { json = false } = options;
  const logger = lineLogger(options.logLevel, json);
  if (Number(process.versions.node.split(".")[0]) < OLDEST_MAINTAINED_NODE) {
    logger.warn({ node: process.versions.node }, "this version of Node.js gets no security fixes any more");
  }
  if (options.host !== "127.0.0.1" && options.host !== "::1" && options.host !== "localhost") {
    logger.warn(
      { host: options.host },
      "listening beyond this machine without TLS: put a TLS proxy in front",
    );
  }
  const databaseUrl = options.database ?? process.env.FIELDLOOP_DATABASE_URL;
  const server = await startServer({
    dataDir: resolve(options.data),
    httpPort: options.httpPort,
    mqttPort: options.mqttPort,
    host: options.host,
    logger,
    ...(databaseUrl ? { databaseUrl } : {}),
    ...(options.publicMqttUrl ? { publicMqttUrl: options.publicMqttUrl } : {}),
  });
  const stopped = stopSignal();
  const { httpUrl, mqttUrl } = server;
  if (json)
    process.stdout.write(
      `${JSON.stringify({ event: "listening", httpUrl, mqttUrl, data: resolve(options.data) })}\n`,
    );
  else
    announce(httpUrl, mqttUrl, server.adminTokenIsNew ? server.adminToken : undefined, resolve(options.data));
  await stopped;
  await server.stop();
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

function stopSignal(): Promise<void> {
  return new Promise((resolved) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => resolved());
  });
}

/** Log lines: JSON on standard output, or short ones for people on standard error. */
function lineLogger(least: Level, json: boolean): Logger {
  const write = (level: Level) => (fields: object, message: string) => {
    if (LEVELS.indexOf(level) < LEVELS.indexOf(least)) return;
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

function readPort(text: string): number {
  const port = Number(text);
  if (!Number.isInteger(port) || port < 0 || port > 65_535) {
    throw new InvalidArgumentError(`"${text}" is no port, wanted 0 to 65535`);
  }
  return port;
}

function readLevel(text: string): Level {
  const level = LEVELS.find((candidate) => candidate === text);
  if (!level) throw new InvalidArgumentError(`"${text}" is no level, wanted ${LEVELS.join(", ")}`);
  return level;
}
