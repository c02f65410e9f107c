import { startServer, type ServerHandle } from "@fieldloop/fleet-server";
import { vi } from "vitest";
import { main } from "../program.js";

/** How a command line ended, and what it printed. */
export interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs `fieldloop …` in this process. */
export async function runHere(...args: readonly string[]): Promise<Outcome> {
  let out = "";
  let err = "";
  const stdout = vi
    .spyOn(process.stdout, "write")
    .mockImplementation((text) => ((out += text.toString()), true));
  const stderr = vi
    .spyOn(process.stderr, "write")
    .mockImplementation((text) => ((err += text.toString()), true));
  process.exitCode = 0;
  try {
    await main(["node", "fieldloop", ...args]);
    return { code: Number(process.exitCode), out, err };
  } finally {
    stdout.mockRestore();
    stderr.mockRestore();
    process.exitCode = undefined;
  }
}

const quiet = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

/** A server on free ports, whom commands speak to by the environment (`vi.unstubAllEnvs` ends that). */
export async function startServerHere(dataDir: string): Promise<ServerHandle> {
  const server = await startServer({ dataDir, httpPort: 0, mqttPort: 0, logger: quiet });
  vi.stubEnv("FIELDLOOP_URL", server.httpUrl);
  vi.stubEnv("FIELDLOOP_TOKEN", server.adminToken!);
  return server;
}
