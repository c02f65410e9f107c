import { spawn, type ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import type { ContractSubject } from "@fieldloop/runtime/contract";
import { backendFor } from "@fieldloop/runtime/node";
import { CLI_ENTRY, environment } from "../kit/server-process.js";
import { until } from "../kit/wait.js";
import { cpuReference } from "./local.js";

/** A spawned `fieldloop model serve`. */
export class ModelServer {
  urls: readonly string[] = [];
  readonly noise: string[] = [];
  readonly #child: ChildProcess;
  readonly #exited: Promise<void>;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#exited = new Promise((resolve) => child.once("exit", () => resolve()));
    createInterface({ input: child.stderr! }).on("line", (line) => this.noise.push(line));
    createInterface({ input: child.stdout! }).on("line", (line) => {
      const parsed = JSON.parse(line) as { event: string; urls?: string[] };
      if (parsed.event === "listening") this.urls = parsed.urls ?? [];
    });
  }

  static async start(args: readonly string[]): Promise<ModelServer> {
    const child = spawn(process.execPath, [CLI_ENTRY, "model", "serve", ...args, "--json"], {
      stdio: ["ignore", "pipe", "pipe"],
      env: environment(),
    });
    const server = new ModelServer(child);
    await until(
      "the models are served, or the process ended",
      () => child.exitCode !== null || server.urls.length > 0,
      { timeoutMs: 60_000 },
    );
    if (server.urls.length === 0) throw new Error(`The model server ended: ${server.noise.join("\n")}`);
    return server;
  }

  /** Start of a provider name for a model of this server: `http`, `grpc` or `unix`. */
  providerPrefix(scheme: "http" | "grpc" | "unix"): string {
    const url = this.urls.find((candidate) => candidate.startsWith(`${scheme}:`));
    return scheme === "unix" ? `oip+${url}:/v2/models/` : `oip+${url}/v2/models/`;
  }

  /** @returns exit code */
  async end(signal: NodeJS.Signals = "SIGTERM"): Promise<number | null> {
    this.#child.kill(signal);
    await this.#exited;
    return this.#child.exitCode;
  }
}

/** Models of a server under the suite, by their name. */
export function servedSubject(prefix: string): ContractSubject {
  const open = async (name: string): ReturnType<ContractSubject["open"]> => {
    const executionProvider = `${prefix}${encodeURIComponent(name)}`;
    return (await backendFor(executionProvider)).openSession("", { threadCount: 1, executionProvider });
  };
  return {
    open: ({ name }) => open(name),
    openBroken: () => open("not-there"),
    reference: cpuReference,
    namesSymbols: false,
  };
}
