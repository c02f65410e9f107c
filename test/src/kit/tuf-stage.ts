import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { TufRepository } from "@fieldloop/device-agent/testing/tuf-repository";
import type { Mount, TufServer } from "@fieldloop/device-agent/testing/tuf-server";
import type { ErrorCode } from "@fieldloop/protocol";
import { main } from "fieldloop";
import { expect, vi } from "vitest";
import { scratchFolder } from "./fleet.js";
import { runCli } from "./run-cli.js";

const DAY_MS = 86_400_000;

/** How `fieldloop tuf-client …` is run: as a program of its own, or in this process by the function that the program calls. */
export type Driver = (args: readonly string[], daysAhead: number) => Promise<Outcome>;

export interface Outcome {
  /** Exit code. */
  readonly code: number | null;
  /** What it refused, where it did. */
  readonly error: string | undefined;
}

export const inProcess: Driver = async (args, daysAhead) => {
  let stderr = "";
  const write = vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    stderr += String(text);
    return true;
  });
  if (daysAhead > 0) vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + daysAhead * DAY_MS });
  const before = process.exitCode;
  process.exitCode = undefined;
  try {
    await main(["node", "fieldloop", ...args]);
    return { code: Number(process.exitCode ?? 0), error: errorIn(stderr) };
  } finally {
    process.exitCode = before;
    vi.useRealTimers();
    write.mockRestore();
  }
};

export const asProgram: Driver = async (args, daysAhead) => {
  // The program's clock is moved before anything of it is loaded.
  const ahead = `const now = Date.now; Date.now = () => now() + ${daysAhead * DAY_MS};`;
  const clock = `--import=data:text/javascript,${encodeURIComponent(ahead)}`;
  const env: Record<string, string> = daysAhead > 0 ? { NODE_OPTIONS: clock } : {};
  const { code, stderr } = await runCli(args, { env, timeoutMs: 60_000 });
  return { code, error: errorIn(stderr) };
};

function errorIn(stderr: string): string | undefined {
  // oxlint-disable-next-line no-control-regex -- colours of a terminal
  return /error(?:\u001b\[\d+m)? ([a-z_]+):/.exec(stderr)?.[1];
}

/** One case: a repository that may do anything, and a client that knows nothing but what it verified. */
export class TufStage {
  readonly repository: TufRepository;
  readonly mount: Mount;
  readonly metadataDir: string;
  readonly targetDir: string;
  readonly #folder: ReturnType<typeof scratchFolder>;
  readonly #driver: Driver;
  calls = 0;

  constructor(server: TufServer, driver: Driver) {
    this.#driver = driver;
    this.#folder = scratchFolder("tuf");
    this.metadataDir = join(this.#folder.path, "metadata");
    this.targetDir = join(this.#folder.path, "targets");
    for (const folder of [this.metadataDir, this.targetDir]) mkdirSync(folder);
    this.repository = new TufRepository();
    this.mount = server.mount(this.repository);
  }

  remove(): void {
    this.#folder.remove();
  }

  // What the client is told to do

  /** Starts from the first root, or from other bytes. */
  async init(root: Uint8Array = this.repository.factoryRoot): Promise<Outcome> {
    const path = join(this.#folder.path, "initial-root.json");
    writeFileSync(path, root);
    return this.#call(["init", path], 0);
  }

  refresh(daysAhead = 0): Promise<Outcome> {
    return this.#call(["--metadata-url", this.mount.metadataUrl, "refresh"], daysAhead);
  }

  download(names: string | readonly string[], daysAhead = 0): Promise<Outcome> {
    const wanted = typeof names === "string" ? [names] : names;
    const args = [
      ...["--metadata-url", this.mount.metadataUrl],
      ...wanted.flatMap((name) => ["--target-name", name]),
      ...["--target-base-url", this.mount.targetsUrl, "--target-dir", this.targetDir],
    ];
    return this.#call([...args, "download"], daysAhead);
  }

  #call(args: readonly string[], daysAhead: number): Promise<Outcome> {
    this.calls++;
    return this.#driver(["tuf-client", "--metadata-dir", this.metadataDir, ...args], daysAhead);
  }

  // What is expected of it

  async starts(root?: Uint8Array): Promise<void> {
    expect(await this.init(root)).toEqual({ code: 0, error: undefined });
  }

  async refreshes(daysAhead?: number): Promise<void> {
    expect(await this.refresh(daysAhead)).toEqual({ code: 0, error: undefined });
  }

  async refuses(code: ErrorCode, daysAhead?: number): Promise<void> {
    expect(await this.refresh(daysAhead)).toEqual({ code: 1, error: code });
  }

  async downloads(names: string | readonly string[], daysAhead?: number): Promise<void> {
    expect(await this.download(names, daysAhead)).toEqual({ code: 0, error: undefined });
  }

  async refusesTarget(names: string | readonly string[], code: ErrorCode, daysAhead?: number): Promise<void> {
    expect(await this.download(names, daysAhead)).toEqual({ code: 1, error: code });
  }

  /** `{ root: 1, timestamp: 2 }`: what is trusted, role by role as their files are named. */
  trusted(): Record<string, number> {
    const files = readdirSync(this.metadataDir).filter((name) => name.endsWith(".json"));
    const entries = files.map((name) => [name.replace(/\.json$/, ""), this.#versionIn(name)] as const);
    return Object.fromEntries(entries);
  }

  #versionIn(name: string): number {
    const text = readFileSync(join(this.metadataDir, name), "utf8");
    return (JSON.parse(text) as { signed: { version: number } }).signed.version;
  }

  /** Byte for byte what was published. */
  trusts(role: string, bytes: Buffer): void {
    expect(readFileSync(join(this.metadataDir, `${role}.json`)).equals(bytes)).toBe(true);
  }

  /** Contents in the target folder, the oldest first. */
  downloaded(): string[] {
    const files = readdirSync(this.targetDir, { withFileTypes: true }).filter((entry) => entry.isFile());
    return files
      .map(({ name }) => join(this.targetDir, name))
      .sort((a, b) => statSync(a).mtimeMs - statSync(b).mtimeMs)
      .map((path) => readFileSync(path, "utf8"));
  }

  /** What a bad medium does to a downloaded target. */
  harm(target: string): void {
    writeFileSync(join(this.targetDir, target), "harmed");
  }

  /** The last metadata that were asked for. */
  lastAsked(): readonly [string, number | null] | undefined {
    return this.mount.metadata.at(-1);
  }
}

/** One case of the table. */
export interface TufCase {
  readonly name: string;
  /** What the tuf-conformance suite calls it; absent where that suite has no such case. */
  readonly outside?: string;
  /** Also run as a program of its own: a few of each kind, for each call costs a start. */
  readonly program?: true;
  readonly run: (stage: TufStage) => Promise<void>;
}
