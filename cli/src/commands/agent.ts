import { homedir } from "node:os";
import { join, resolve } from "node:path";
import type { AgentHandle } from "@fieldloop/device-agent";
import { type Command, InvalidArgumentError } from "commander";
import pc from "picocolors";
import { action, note } from "../output.js";
import { LOG_LEVELS, readLogLevel, readPort, stopSignal, warnOfOldNode, type LogLevel } from "../service.js";

interface AgentCommandOptions {
  server?: string;
  enroll?: string;
  source: string;
  name?: string;
  state?: string;
  port: number;
  tag: Record<string, string>;
  threads?: number;
  spoolMb?: number;
  uplinkKbps?: number;
  logLevel: LogLevel;
  json?: boolean;
}

const EXAMPLES = `
Sources:
  folder:PATH?fps=5&loop=1&drop=wait|oldest     images of a folder
  video:PATH?fps=10&loop=0&pace=realtime|none   a video file, through ffmpeg
  http:PORT                                     POST an image or a window to 127.0.0.1:PORT, answered with the prediction
  simulator:parts?seed=1&fps=15&condition=normal&feedback=0.25
  simulator:bearing?seed=1&fps=20&condition=none|outer-race:0.8

Examples:
  $ fieldloop agent --server http://127.0.0.1:7300 --enroll fle_… --source folder:./images
  $ fieldloop agent --server https://fleet.example --enroll fle_… --name press-3 --tag site=lyon --source http:8090
  $ fieldloop agent --name press-3 --source http:8090            # later starts need neither server nor token

The local interface (its address is printed) answers /healthz, /metrics, /v1/state and POST /feedback:
  $ curl -d '{"prediction":"3-120","label":"gear"}' -H 'content-type: application/json' http://127.0.0.1:PORT/feedback`;

export function registerAgentCommand(program: Command): void {
  program
    .command("agent")
    .description("Run the device agent: a source, the model, and the link to the fleet")
    .option("--server <url>", "fleet server (first start)")
    .option("--enroll <token>", "one-time enrolment token, fle_… (first start)")
    .requiredOption("--source <spec>", "where frames come from, see below")
    .option("--name <id>", "device id: lower-case letters, digits, . _ -")
    .option("--state <folder>", "everything it keeps (default: ~/.fieldloop/NAME)")
    .option("--port <port>", "local interface on 127.0.0.1; 0 takes a free one", readPort, 0)
    .option("--tag <key=value>", "tag of the device at enrolment, may be repeated", readTag, {})
    .option("--threads <n>", "threads inside one operator (default: half of the cores)", readCount)
    .option("--spool-mb <n>", "disk budget for what waits for the server (default: 256)", readCount)
    .option("--uplink-kbps <n>", "uplink budget in kilobytes a second (default: 256)", readCount)
    .option("--log-level <level>", `least that is logged: ${LOG_LEVELS.join(", ")}`, readLogLevel, "info")
    .option("--json", "one JSON object a line, for programs")
    .addHelpText("after", EXAMPLES)
    .action(action(runAgent));
}

/** Ends at SIGINT or SIGTERM: the run in hand ends, what is left is written and sent. */
async function runAgent(options: AgentCommandOptions): Promise<void> {
  // Loaded here, so that other commands do not pay for it.
  const { createAgentLog, startAgent } = await import("@fieldloop/device-agent");
  const json = options.json === true;
  const log = createAgentLog({
    level: options.logLevel,
    write: json
      ? (line) => void process.stdout.write(line)
      : (line) => void process.stderr.write(`${readable(line)}\n`),
  });
  warnOfOldNode(log);
  const stopped = stopSignal();
  const agent = await startAgent({
    directory: resolve(options.state ?? join(homedir(), ".fieldloop", options.name ?? "device")),
    server: options.server,
    token: options.enroll,
    device: options.name,
    tags: options.tag,
    source: options.source,
    port: options.port,
    env: process.env,
    log,
    ...(options.threads === undefined ? {} : { threadCount: options.threads }),
    ...(options.spoolMb === undefined ? {} : { spoolBytesMax: options.spoolMb * 1024 * 1024 }),
    ...(options.uplinkKbps === undefined ? {} : { uplinkBytesPerSecond: options.uplinkKbps * 1024 }),
  });
  announce(agent, json);
  await stopped;
  log.info("stopping");
  await agent.stop();
  if (json) process.stdout.write(`${JSON.stringify({ event: "stopped" })}\n`);
}

function announce(agent: AgentHandle, json: boolean): void {
  const { device, boot, localUrl } = agent;
  if (json) process.stdout.write(`${JSON.stringify({ event: "started", device, boot, localUrl })}\n`);
  else note(`${pc.bold(device)} boot ${boot}, local interface ${localUrl}`);
}

const LEVEL_NAMES: Readonly<Record<number, string>> = {
  20: pc.dim("debug"),
  30: pc.green("info "),
  40: pc.yellow("warn "),
  50: pc.red("error"),
  60: pc.red("fatal"),
};

/** Turns pino's JSON into one line for a person: time, level, message, fields. */
function readable(line: string): string {
  const { level, time, msg, ...fields } = JSON.parse(line) as Record<string, unknown>;
  const clock = new Date(Number(time)).toISOString().slice(11, 19);
  const texts = Object.entries(fields).map(
    ([key, value]) => `${key}=${typeof value === "string" ? value : JSON.stringify(value)}`,
  );
  return `${pc.dim(clock)} ${LEVEL_NAMES[Number(level)] ?? ""} ${typeof msg === "string" ? msg : ""}${texts.length > 0 ? pc.dim(` ${texts.join(" ")}`) : ""}`;
}

function readTag(text: string, before: Record<string, string>): Record<string, string> {
  const match = /^([a-z0-9][a-z0-9._-]{0,62})=(.{0,128})$/.exec(text);
  if (!match) throw new InvalidArgumentError("wanted key=value");
  return { ...before, [match[1]!]: match[2]! };
}

function readCount(text: string): number {
  const count = Number(text);
  if (!/^\d{1,9}$/.test(text) || count < 1) throw new InvalidArgumentError("wanted a whole number from 1");
  return count;
}
