import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Assignment, LaneState } from "@fieldloop/protocol";
import type { ModelPackage } from "@fieldloop/runtime/node";
import { expect } from "vitest";
import { type AgentHandle, type AgentOptions, startAgent } from "../control/agent.js";
import { createAgentLog } from "../log.js";
import { TestFleet, until } from "./fleet.test.kit.js";
import { scratchFolder, writeTestPackage, writeWindowPackage } from "./package.test.kit.js";

const log = createAgentLog({
  level: process.env["FIELDLOOP_TEST_LOG"] === "1" ? "debug" : "error",
  write: (line) => void process.stderr.write(line),
});

/** Two lanes with a model each. */
export const CAMERA = "simulator:parts?fps=30&model=brightness&priority=80";
export const SPINDLE = "spindle=simulator:bearing?fps=30&model=loudness&priority=20";

/** What a device is does not change between two tests: the first agent of a file finds it out. */
let facts: string | undefined;

/** A fleet, and one agent with several lanes, for one test. */
export class LaneStage {
  readonly fleet = new TestFleet();
  #scratch: Awaited<ReturnType<typeof scratchFolder>> | undefined;
  #agent: AgentHandle | undefined;

  async open(): Promise<void> {
    this.#scratch = await scratchFolder();
    await this.fleet.start();
  }

  async close(): Promise<void> {
    await this.#agent?.stop();
    await this.fleet.stop();
    await this.#scratch?.remove();
  }

  get path(): string {
    return this.#scratch!.path;
  }
  get stateDir(): string {
    return join(this.path, "state");
  }
  get agent(): AgentHandle {
    return this.#agent!;
  }
  get predictions(): number {
    return this.agent.state().counters.predictions;
  }

  /** `ownFacts`: the device is another one than in other tests. */
  async start(
    source: readonly string[],
    { ownFacts = false, ...options }: Partial<AgentOptions> & { readonly ownFacts?: boolean } = {},
  ): Promise<AgentHandle> {
    const path = join(this.stateDir, "facts.json");
    await mkdir(this.stateDir, { recursive: true, mode: 0o700 });
    if (facts !== undefined && !ownFacts) await writeFile(path, facts);
    this.#agent = await startAgent({
      directory: this.stateDir,
      server: this.fleet.serverUrl,
      token: "fle_once",
      source,
      env: process.env,
      log,
      ...options,
    });
    if (!ownFacts) facts ??= await readFile(path, "utf8");
    return this.#agent;
  }

  async publish(pkg: Promise<ModelPackage>, deployment: string, lane?: string): Promise<Assignment> {
    const assignment = await this.fleet.publish(await pkg, deployment);
    return lane === undefined ? assignment : { ...assignment, lane };
  }

  image(version = 1): Promise<ModelPackage> {
    return writeTestPackage(join(this.path, `image-${version}`), { version });
  }
  sound(version = 1): Promise<ModelPackage> {
    return writeWindowPackage(join(this.path, `sound-${version}`), { version });
  }

  async isActive(...deployments: string[]): Promise<void> {
    for (const deployment of deployments) {
      const { fleet } = this;
      await until(() => fleet.deploymentStates(deployment).includes("active"), `${deployment} is active`);
    }
  }

  async predicts(count: number, what: string): Promise<void> {
    const before = this.predictions;
    await until(() => this.predictions > before + count, what);
  }

  lane(name: string): LaneState {
    return this.agent.state().lanes.find((candidate) => candidate.name === name)!;
  }

  /** Numbers of what the server stored of a boot, in the order of its messages. */
  stored(boot: number, model?: string): number[] {
    return this.fleet.predictions
      .filter((batch) => batch.boot === boot && (model === undefined || batch.versionRef.model === model))
      .flatMap(({ firstN, count }) => Array.from({ length: count }, (_, index) => firstN + index));
  }

  /** After a stop: each number once, and as many as the agent says that it made. */
  expectAllStored(): void {
    const numbers = this.stored(this.agent.boot);
    expect(new Set(numbers).size).toBe(numbers.length);
    expect(numbers.length).toBe(this.predictions);
  }
}
