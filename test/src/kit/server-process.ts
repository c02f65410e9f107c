import { spawn, type ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { until } from "./wait.js";

/** The command line as it ships: `fieldloop`. */
export const CLI_ENTRY = fileURLToPath(new URL("../../../cli/dist/main.js", import.meta.url));

/** One line that the server wrote: a log line has `level`, the others `event`. */
export type LogLine = Readonly<Record<string, unknown>>;

/** A spawned `fieldloop server` in a folder of its own: what is true of it is true of the process that people run. */
export class ServerProcess {
  readonly dataDir: string;
  readonly log: LogLine[] = [];
  /** Lines of standard error, and of standard output that are not JSON. */
  readonly noise: string[] = [];
  httpUrl = "";
  mqttUrl = "";
  adminToken = "";
  readonly #child: ChildProcess;
  readonly #exited: Promise<void>;

  private constructor(dataDir: string, child: ChildProcess) {
    this.dataDir = dataDir;
    this.#child = child;
    this.#exited = new Promise((resolve) => child.once("exit", () => resolve()));
    createInterface({ input: child.stdout! }).on("line", (line) => this.#line(line));
    createInterface({ input: child.stderr! }).on("line", (line) => this.noise.push(line));
  }

  static async start(
    options: { readonly logLevel?: string; readonly dataDir?: string } = {},
  ): Promise<ServerProcess> {
    const dataDir = options.dataDir ?? (await mkdtemp(join(tmpdir(), "fieldloop-process-")));
    const child = spawn(
      process.execPath,
      // prettier-ignore
      [
        CLI_ENTRY,
        "server",
        "--data",
        dataDir,
        "--http-port",
        "0",
        "--mqtt-port",
        "0",
        "--json",
        "--log-level",
        options.logLevel ?? "info",
      ],
      { stdio: ["ignore", "pipe", "pipe"], env: environment() },
    );
    const server = new ServerProcess(dataDir, child);
    const listening = await until(
      "the server listens",
      () => {
        if (!server.alive) throw new Error(`The server ended: ${server.noise.join("\n")}`);
        return server.log.find((line) => line.event === "listening");
      },
      { timeoutMs: 20_000 },
    );
    server.httpUrl = String(listening.httpUrl);
    server.mqttUrl = String(listening.mqttUrl);
    server.adminToken = (await readFile(join(dataDir, "admin-token"), "utf8")).trim();
    return server;
  }

  get httpPort(): number {
    return Number(new URL(this.httpUrl).port);
  }

  get mqttPort(): number {
    return Number(new URL(this.mqttUrl).port);
  }

  get alive(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Resident memory in bytes, undefined where the system has no /proc. */
  rssBytes(): number | undefined {
    try {
      const status = readFileSync(`/proc/${this.#child.pid}/status`, "utf8");
      const kib = /^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1];
      return kib === undefined ? undefined : Number(kib) * 1024;
    } catch {
      // Not Linux, or the process is gone: `alive` tells which.
      return undefined;
    }
  }

  /** Log lines that hold these fields. */
  logged(fields: LogLine): LogLine[] {
    return this.log.filter((line) => Object.entries(fields).every(([key, value]) => line[key] === value));
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Ends the process as an operator does, by force after ten seconds, and removes its folder. */
  async end(options: { readonly keepData?: boolean } = {}): Promise<{ code: number | null }> {
    if (this.alive) {
      this.#child.kill("SIGTERM");
      const force = setTimeout(() => this.#child.kill("SIGKILL"), 10_000);
      await this.#exited;
      clearTimeout(force);
    }
    if (!options.keepData) await rm(this.dataDir, { recursive: true, force: true });
    return { code: this.#child.exitCode };
  }

  #line(line: string): void {
    try {
      this.log.push(JSON.parse(line) as LogLine);
    } catch {
      // With --json every line is JSON; a test may look at what was not.
      this.noise.push(line);
    }
  }
}

/** The caller's settings of Fieldloop must not reach what is tested. */
export function environment(): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !name.startsWith("FIELDLOOP_"));
  return { ...Object.fromEntries(kept), NO_COLOR: "1" };
}
