import { spawn, type ChildProcess } from "node:child_process";
import { createWriteStream, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { FieldloopError } from "@fieldloop/protocol";

const MAIN = fileURLToPath(new URL("../main.js", import.meta.url));
const STOP_TIMEOUT_MS = 15_000;
const LINES_KEPT_MAX = 200;

/** One line of a program's `--json` output. */
export type ProgramEvent = Readonly<Record<string, unknown>> & { readonly event?: string };

export interface ChildOptions {
  readonly name: string;
  /** Arguments after `fieldloop`. */
  readonly args: readonly string[];
  /** Everything that it prints goes here too. */
  readonly logPath: string;
  readonly env?: NodeJS.ProcessEnv;
}

/** A `fieldloop …` command as a real process: started, listened to by its JSON lines, stopped by a signal to its own process id. */
export class ChildProgram {
  readonly name: string;
  readonly #process: ChildProcess;
  readonly #lines: string[] = [];
  readonly #events: ProgramEvent[] = [];
  readonly #watchers = new Set<() => void>();
  readonly #exited: Promise<number | null>;
  #running = true;

  constructor(options: ChildOptions) {
    this.name = options.name;
    mkdirSync(dirname(options.logPath), { recursive: true });
    const log = createWriteStream(options.logPath, { flags: "a" });
    this.#process = spawn(process.execPath, [MAIN, ...options.args], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...options.env },
      // A group of its own: Ctrl-C in the terminal reaches the demo alone, which then stops everything in order.
      detached: true,
    });
    for (const stream of [this.#process.stdout!, this.#process.stderr!]) {
      createInterface({ input: stream }).on("line", (line) => {
        log.write(`${line}\n`);
        this.#take(line);
      });
    }
    this.#exited = new Promise((resolve) => {
      this.#process.once("error", () => resolve(null));
      this.#process.once("exit", (code) => resolve(code));
    }).then((code) => {
      this.#running = false;
      this.#notify();
      return code as number | null;
    });
  }

  get pid(): number {
    return this.#process.pid ?? -1;
  }

  get running(): boolean {
    return this.#running;
  }

  get exited(): Promise<number | null> {
    return this.#exited;
  }

  /** Events so far, newest last. */
  get events(): readonly ProgramEvent[] {
    return this.#events;
  }

  /** The last lines that it printed, for an error message. */
  get tail(): string {
    return this.#lines.slice(-12).join("\n");
  }

  /** Resolves with the first event of this name, one already printed included. */
  async event(name: string, timeoutMs: number): Promise<ProgramEvent> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const found = this.#events.find((candidate) => candidate.event === name);
      if (found) return found;
      if (!this.#running)
        throw new FieldloopError(
          "unavailable",
          `Start ${this.name}: it ended before "${name}":\n${this.tail}`,
        );
      const left = deadline - Date.now();
      if (left <= 0)
        throw new FieldloopError(
          "timed_out",
          `Start ${this.name}: no "${name}" after ${timeoutMs} ms:\n${this.tail}`,
        );
      await this.#change(left);
    }
  }

  kill(signal: NodeJS.Signals): void {
    if (this.#running) this.#process.kill(signal);
  }

  /** Asks it to end, and ends it by force when it does not. */
  async stop(): Promise<number | null> {
    this.kill("SIGTERM");
    const timer = setTimeout(() => this.kill("SIGKILL"), STOP_TIMEOUT_MS);
    const code = await this.#exited;
    clearTimeout(timer);
    return code;
  }

  #take(line: string): void {
    this.#lines.push(line);
    if (this.#lines.length > LINES_KEPT_MAX) this.#lines.shift();
    if (line.startsWith("{")) {
      try {
        this.#events.push(JSON.parse(line) as ProgramEvent);
        if (this.#events.length > LINES_KEPT_MAX) this.#events.splice(1, 1);
      } catch {
        // A log line that only looks like JSON; it is in the log file.
      }
    }
    this.#notify();
  }

  #notify(): void {
    for (const watcher of this.#watchers) watcher();
  }

  #change(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#watchers.delete(done);
        resolve();
      };
      const timer = setTimeout(done, timeoutMs);
      this.#watchers.add(done);
    });
  }
}
