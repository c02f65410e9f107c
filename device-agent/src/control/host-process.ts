import { type ChildProcess, fork } from "node:child_process";
import { writeFile } from "node:fs/promises";
import type { Socket } from "node:net";
import { createInterface } from "node:readline";
import { FieldloopError } from "@fieldloop/protocol";
import type { Logger } from "pino";
import { SHADOW_SOCKET_FD } from "../ipc-shadow.js";
import { BusyMeter } from "../busy-meter.js";
import type { ControlMessage, ControlRequest, ControlResponses, HostMessage } from "../ipc.js";
import type { LaneSpec } from "../lane-spec.js";
import { AGENT_LIMITS } from "../limits.js";
import { HOST_ENVIRONMENT, HOST_V8_FLAGS } from "./footprint.js";
import { launcherWhenIdle, lowerPriority } from "./priority.js";

export interface HostProcessOptions {
  /** An empty folder: a native library that reads relative paths finds nothing there. */
  readonly workingDirectory: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
  /** Program of the host; the one beside this module by default. */
  readonly entry?: URL;
  /** `inherit` where a source reads the agent's own standard input. */
  readonly stdin?: "ignore" | "inherit" | undefined;
  /** Command that the program is started by; none by default. */
  readonly launcher?: readonly string[];
  /** A socket to it beside the channel of messages, for whoever is given {@link HostProcess.socket}. */
  readonly hasSocket?: boolean;
}

interface Waiting {
  readonly kind: ControlRequest["kind"];
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: FieldloopError) => void;
  readonly settled: () => void;
}

const ENTRY = new URL("../host/main.js", import.meta.url);

const LOG_LINE_MAX = 500;
const STDIO: ("inherit" | "pipe" | "ipc")[] = ["inherit", "pipe", "pipe", "ipc"];
/** Of a process that the system may end first where memory runs out, proc_pid_oom_score_adj(5). */
const OOM_SCORE_MAX = "1000";

/** One child process of the inference host: messages out, messages in, requests with answers, its end. */
export class HostProcess {
  /** Of what it says by itself: nothing before it was told to start, or asked for something. */
  onMessage: (message: HostMessage) => void = () => undefined;
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, Waiting>();
  #lastId = 0;
  #ended = false;
  #inferring = 0;
  /** Resolves with how it ended: `exit 1`, `SIGSEGV`. */
  readonly ended: Promise<string>;

  constructor(options: HostProcessOptions) {
    const [execPath, ...execArgv] = [...(options.launcher ?? []), process.execPath, ...HOST_V8_FLAGS];
    this.#child = fork(options.entry ?? ENTRY, [], {
      serialization: "advanced",
      execPath: execPath!,
      execArgv,
      cwd: options.workingDirectory,
      env: { ...options.env, ...HOST_ENVIRONMENT },
      stdio: options.hasSocket === true ? [...STDIO, "pipe"] : STDIO,
    });
    this.#logOutput(options.log);
    this.#child.on("message", (message: HostMessage) => {
      if (message.kind === "response") this.#settle(message.id, (waiting) => waiting.resolve(message.value));
      else if (message.kind === "refused") {
        const { code, message: text } = message.failure;
        this.#settle(message.id, (waiting) => waiting.reject(new FieldloopError(code, text)));
      } else this.onMessage(message);
    });
    this.ended = new Promise((resolve) => {
      const end = (reason: string): void => {
        this.#ended = true;
        this.#inferring = [...this.#waiting.values()].filter(({ kind }) => kind === "infer").length;
        this.#rejectAll(reason);
        resolve(reason);
      };
      this.#child.on("error", (error) => end(error.message));
      this.#child.on("exit", (code, signal) => end(signal ?? `exit ${code ?? 0}`));
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Control's end of the socket, where it has one; it is handed on with a request, once. */
  get socket(): Socket | undefined {
    return this.#child.stdio[SHADOW_SOCKET_FD] as Socket | undefined;
  }

  /** Inferences that it was asked for and had not answered when it ended; 0 before that. */
  get inferringAtEnd(): number {
    return this.#inferring;
  }

  /** `handle` goes with it, and is not ours any more. */
  send(message: ControlMessage, handle?: Socket): void {
    if (this.#ended || !this.#child.connected) return;
    this.#child.send(message, handle, () => undefined);
  }

  /** @throws FieldloopError the host's own, `host_crashed` where it ends first, `timed_out`, `cancelled` once `signal` aborts */
  request<Kind extends ControlRequest["kind"]>(
    request: Extract<ControlRequest, { kind: Kind }>,
    timeoutMs: number,
    signal?: AbortSignal,
    handle?: Socket,
  ): Promise<ControlResponses[Kind]> {
    if (this.#ended) {
      return Promise.reject(new FieldloopError("host_crashed", `Ask host to ${request.kind}: it has ended`));
    }
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      const giveUp = (error: FieldloopError): void => {
        this.#settle(id, (waiting) => waiting.reject(error));
        this.send({ kind: "cancel", id });
      };
      const what = `Ask host to ${request.kind}`;
      const timer = setTimeout(
        () => giveUp(new FieldloopError("timed_out", `${what}: no answer in ${timeoutMs} ms`)),
        timeoutMs,
      );
      const gone = (): void =>
        giveUp(new FieldloopError("cancelled", `${what}: nobody waits for the answer`));
      this.#waiting.set(id, {
        kind: request.kind,
        resolve: resolve as (value: unknown) => void,
        reject,
        settled: () => {
          clearTimeout(timer);
          signal?.removeEventListener("abort", gone);
        },
      });
      this.send({ kind: "request", id, request }, handle);
      signal?.addEventListener("abort", gone, { once: true });
      if (signal?.aborted) gone();
    });
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  /** Lets whoever serves frames go first, and what it starts itself with it. */
  yieldToOthers(): void {
    lowerPriority(this.#child.pid);
  }

  /** Where the system runs out of memory it is to end this process, and no other of the agent's. Linux only. */
  makeExpendable(log: Logger): void {
    if (this.#child.pid === undefined || process.platform !== "linux") return;
    writeFile(`/proc/${this.#child.pid}/oom_score_adj`, OOM_SCORE_MAX).catch((error: unknown) => {
      log.debug({ error }, "the scratch host is no more expendable than others");
    });
  }

  #settle(id: number, settle: (waiting: Waiting) => void): void {
    const waiting = this.#waiting.get(id);
    if (!waiting) return;
    this.#waiting.delete(id);
    waiting.settled();
    settle(waiting);
  }

  #rejectAll(reason: string): void {
    for (const id of [...this.#waiting.keys()]) {
      this.#settle(id, (waiting) =>
        waiting.reject(new FieldloopError("host_crashed", `The inference host ended: ${reason}`)),
      );
    }
  }

  /** What native libraries print must not mix with the agent's own output. */
  #logOutput(log: Logger): void {
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      if (!stream) continue;
      createInterface({ input: stream }).on("line", (line) =>
        log.debug({ line: line.slice(0, LOG_LINE_MAX) }, "host"),
      );
    }
  }
}

/** Of the host that runs these lanes: `csv:-` and `ndjson:-` read what the agent is given. */
export function stdinOf(lanes: readonly LaneSpec[]): "ignore" | "inherit" {
  const reads = ({ source }: LaneSpec): boolean =>
    (source.kind === "csv" || source.kind === "ndjson") && source.path === undefined;
  return lanes.some(reads) ? "inherit" : "ignore";
}

type ScratchKind = "facts" | "self_test";

/** Runs one request in a host process of its own, below the others in priority, which then ends: what a bad package does, it does there. */
export function inScratchHost<Kind extends ScratchKind>(
  options: HostProcessOptions,
  request: Extract<ControlRequest, { kind: Kind }>,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<ControlResponses[Kind]> {
  return askOnce(new HostProcess(options), request, timeoutMs, signal);
}

export interface IdleLook {
  /** Share of all cores that others kept busy since it was asked before. */
  readonly others: Pick<BusyMeter, "read">;
  readonly everyMs: number;
}

/**
 * The same with what frames and other programs leave of the machine (docs/adr/0026). Where they leave nothing it starts again as
 * {@link inScratchHost} does, and has its part.
 */
export async function inIdleScratchHost<Kind extends ScratchKind>(
  options: HostProcessOptions,
  request: Extract<ControlRequest, { kind: Kind }>,
  timeoutMs: number,
  signal?: AbortSignal,
  look: IdleLook = { others: new BusyMeter(), everyMs: AGENT_LIMITS.scratchLookMs },
): Promise<ControlResponses[Kind]> {
  const begin = performance.now();
  const host = new HostProcess({ ...options, launcher: await launcherWhenIdle() });
  let starved = false;
  look.others.read();
  const timer = setInterval(() => {
    starved = (look.others.read() ?? 0) > AGENT_LIMITS.scratchStarvedShare;
    if (!starved) return;
    clearInterval(timer);
    host.kill();
  }, look.everyMs);
  try {
    return await askOnce(host, request, timeoutMs, signal);
  } catch (error) {
    if (!starved || signal?.aborted === true) throw error;
  } finally {
    clearInterval(timer);
  }
  return inScratchHost(options, request, timeoutMs - (performance.now() - begin), signal);
}

async function askOnce<Kind extends ScratchKind>(
  host: HostProcess,
  request: Extract<ControlRequest, { kind: Kind }>,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<ControlResponses[Kind]> {
  host.yieldToOthers();
  const kill = (): void => host.kill();
  signal?.addEventListener("abort", kill, { once: true });
  // While the process was being started, say.
  if (signal?.aborted === true) kill();
  try {
    const answer = await host.request(request, timeoutMs);
    host.send({ kind: "stop" });
    return answer;
  } finally {
    signal?.removeEventListener("abort", kill);
    const timer = setTimeout(kill, 2_000);
    void host.ended.then(() => clearTimeout(timer));
  }
}
