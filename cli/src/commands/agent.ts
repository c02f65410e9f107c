import { homedir } from "node:os";
import { join, resolve } from "node:path";
import type { AgentHandle } from "@fieldloop/device-agent/start";
import { FieldloopError } from "@fieldloop/protocol";
import { type Command, InvalidArgumentError, Option } from "commander";
import pc from "picocolors";
import { action, note } from "../output.js";
import { registerAgentService } from "./agent-install.js";
import { LOG_LEVELS, readLogLevel, readPort, stopSignal, warnOfOldNode, type LogLevel } from "../service.js";

interface AgentCommandOptions {
  server?: string;
  enroll?: string;
  source?: string[];
  name?: string;
  state?: string;
  port: number;
  socket?: string;
  grpcPort?: number;
  tag: Record<string, string>;
  threads?: number;
  provider: string;
  memoryMb?: number;
  thermal: string;
  spoolMb?: number;
  uplinkKbps?: number;
  deviceClass?: string;
  logLevel: LogLevel;
  json?: boolean;
}

const EXAMPLES = `
Sources:
  folder:PATH?fps=5&loop=1&drop=wait|oldest     images of a folder
  video:PATH?fps=10&loop=0&pace=realtime|none   a video file, through ffmpeg
  camera:/dev/video0?fps=15&width=640&height=480&format=mjpeg|yuyv
  rtsp:URL?transport=tcp|udp&fps=10&width=640&login=FILE
  audio:alsa:DEVICE|pulse:DEVICE|FILE?hz=16000&channels=1
  csv:PATH|-?columns=x,y,z&time=t&hz=100&follow=1   rows of a file or of standard input; ndjson: as well
  tcp:HOST:PORT?format=ndjson|csv|float32           rows of a connection; tcp-listen:PORT takes them
  mqtt:URL/TOPIC?format=ndjson|csv|json|float32&login=FILE
  http:PORT                                     POST an image or a window to 127.0.0.1:PORT, answered with the prediction
  simulator:parts?seed=1&fps=15&condition=normal&feedback=0.25
  simulator:bearing?seed=1&fps=20&condition=none|outer-race:0.8

Several sources, each with a model of its own, are lanes: NAME=SOURCE with model=, priority=0..100, rate=FPS and batch=N
among its options. Frames of the highest priority go first; the others are never left out for good.

Examples:
  $ fieldloop agent --server http://127.0.0.1:7300 --enroll fle_… --source folder:./images
  $ fieldloop agent --server https://fleet.example --enroll fle_… --name press-3 --tag site=lyon --source http:8090
  $ fieldloop agent --name press-3 --source http:8090            # later starts need neither server nor token
  $ fieldloop agent --name press-3 --source 'main=camera:/dev/video0?model=parts&priority=80' \\
      --source 'spindle=tcp:10.0.0.7:9000?model=bearing&rate=20'

The local interface (its address is printed) answers /healthz, /metrics, /v1/state, POST /feedback, POST /v1/predict with an image,
a window or a row, GET /v1/predictions with a stream of all predictions, and the Open Inference Protocol below /v2:
  $ curl --data-binary @part.jpg -H 'content-type: image/jpeg' http://127.0.0.1:PORT/v1/predict
  $ curl -N http://127.0.0.1:PORT/v1/predictions
  $ curl -d '{"prediction":"3-120","label":"gear"}' -H 'content-type: application/json' http://127.0.0.1:PORT/feedback`;

export function registerAgentCommand(program: Command): void {
  const agent = program
    .command("agent")
    .description("Run the device agent: a source, the model, and the link to the fleet")
    .option("--server <url>", "fleet server (first start)")
    .addOption(
      new Option("--enroll <token>", "one-time enrolment token, fle_… (first start)").env("FIELDLOOP_ENROLL"),
    )
    .option("--source <spec>", "where frames come from, see below; may be repeated", addSource)
    .option("--name <id>", "device id: lower-case letters, digits, . _ -")
    .option("--state <folder>", "everything it keeps (default: ~/.fieldloop/NAME)")
    .option("--port <port>", "local interface on 127.0.0.1; 0 takes a free one", readPort, 0)
    .option("--socket <path>", "the local interface on a unix socket as well, for this user alone")
    .option(
      "--grpc-port <port>",
      "Open Inference Protocol over gRPC on 127.0.0.1 as well; 0 takes a free one",
      readPort,
    )
    .option("--tag <key=value>", "tag of the device at enrolment, may be repeated", readTag, {})
    .option(
      "--threads <n>",
      "threads that run models at the same time (default: half of the cores)",
      readCount,
    )
    .option(
      "--provider <name>",
      "where models run: auto tries what there is and takes the fastest that is right; or cpu, webgpu, cuda, …, or the URL of an Open Inference Protocol server",
      "auto",
    )
    .option(
      "--memory-mb <n>",
      "memory of the inference host above which it is started anew (default: 1024)",
      readCount,
    )
    .option("--thermal <folder>", "where the thermal zones are", "/sys/class/thermal")
    .option("--spool-mb <n>", "disk budget for what waits for the server (default: 256)", readCount)
    .option(
      "--uplink-kbps <n>",
      "budget of the link in kilobytes a second, for telemetry, samples and downloads together (default: 2048)",
      readCount,
    )
    .option("--device-class <name>", "hardware profile that packages may be made for (default: linux-x64, …)")
    .option("--log-level <level>", `least that is logged: ${LOG_LEVELS.join(", ")}`, readLogLevel, "info")
    .option("--json", "one JSON object a line, for programs")
    .addHelpText("after", EXAMPLES)
    .action(action(runAgent));
  registerAgentService(agent);
}

/** Ends at SIGINT or SIGTERM: the run in hand ends, what is left is written and sent. */
async function runAgent(options: AgentCommandOptions): Promise<void> {
  // Loaded here, so that other commands do not pay for it.
  const { createAgentLog, lowerHelperThreads, ServiceNotifier, startAgent } = await import(
    "@fieldloop/device-agent/start"
  );
  if (!options.source) throw new FieldloopError("invalid_argument", "Start agent: --source is wanted");
  const { FIELDLOOP_ENROLL: _token, NOTIFY_SOCKET, WATCHDOG_USEC, ...inherited } = process.env;
  const env = await withVendorLibrary(inherited);
  const service = new ServiceNotifier({ NOTIFY_SOCKET, WATCHDOG_USEC });
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
    socketPath: options.socket === undefined ? undefined : resolve(options.socket),
    grpcPort: options.grpcPort,
    provider: options.provider,
    thermalPath: options.thermal,
    deviceClass: options.deviceClass,
    env,
    log,
    ...(options.threads === undefined ? {} : { threadCount: options.threads }),
    ...(options.memoryMb === undefined ? {} : { hostBytesMax: options.memoryMb * 1024 * 1024 }),
    ...(options.spoolMb === undefined ? {} : { spoolBytesMax: options.spoolMb * 1024 * 1024 }),
    ...(options.uplinkKbps === undefined ? {} : { uplinkBytesPerSecond: options.uplinkKbps * 1024 }),
  });
  announce(agent, json);
  await lowerHelperThreads();
  await service.ready(`${agent.device}, boot ${agent.boot}, ${agent.localUrl}`);
  await stopped;
  log.info("stopping");
  await service.stopping();
  await agent.stop();
  if (json) process.stdout.write(`${JSON.stringify({ event: "stopped" })}\n`);
}

/** The inference host's environment: with a vendor's ONNX Runtime where `FIELDLOOP_ONNXRUNTIME_LIBRARY` names one. */
async function withVendorLibrary(environment: NodeJS.ProcessEnv): Promise<NodeJS.ProcessEnv> {
  const library = environment["FIELDLOOP_ONNXRUNTIME_LIBRARY"];
  if (!library) return environment;
  const { checkRuntimeLibrary, libraryEnvironment } = await import("@fieldloop/runtime/vendor");
  await checkRuntimeLibrary(library);
  return libraryEnvironment(environment, library);
}

function announce(agent: AgentHandle, json: boolean): void {
  const { device, boot, localUrl, localSocket, grpcUrl } = agent;
  if (json) {
    const started = { event: "started", device, boot, localUrl, localSocket, grpcUrl };
    process.stdout.write(`${JSON.stringify(started)}\n`);
    return;
  }
  const further = [localSocket, grpcUrl].filter((address) => address !== undefined);
  note(`${pc.bold(device)} boot ${boot}, local interface ${[localUrl, ...further].join(", ")}`);
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

function addSource(text: string, before: string[] | undefined): string[] {
  return [...(before ?? []), text];
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
