import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { EventData, SampleMetadata, SamplingPolicy, ShadowEvent } from "@fieldloop/protocol";
import type { Frame } from "@fieldloop/runtime";
import type { ModelPackage } from "@fieldloop/runtime/node";
import { systemClock } from "../clock.js";
import { Shadows } from "../control/shadow/shadows.js";
import type { ShadowOutcome } from "../control/shadow/trial.js";
import { Supervisor } from "../control/supervisor.js";
import type { HostMessage, LaneBeat, PackageToRun } from "../ipc.js";
import type { ShadowTerms } from "../ipc-shadow.js";
import { parseLaneSpecs } from "../lane-spec.js";
import { createAgentLog } from "../log.js";
import type { PredictionAnswer } from "../prediction-answer.js";
import { until } from "./fleet.test.kit.js";
import { scratchFolder } from "./package.test.kit.js";

const log = createAgentLog({
  level: process.env["FIELDLOOP_TEST_LOG"] === "1" ? "debug" : "error",
  write: (line) => void process.stderr.write(line),
});

export const EVERY_FRAME: SamplingPolicy = {
  bytesPerHour: 100_000_000_000,
  randomShare: 1,
  worthMin: 0,
  worthPerMinute: 0,
};

export interface ShadowStageOptions {
  readonly source?: string;
  readonly sampling?: SamplingPolicy;
}

/** A real host with one lane, and what control needs to run candidates beside it. */
export class ShadowStage {
  said: HostMessage[] = [];
  events: EventData[] = [];
  /** Ends of the host. */
  readonly crashes: string[] = [];
  #scratch!: Awaited<ReturnType<typeof scratchFolder>>;
  #supervisor!: Supervisor;
  #shadows!: Shadows;
  #active!: ModelPackage;
  #running: ReturnType<typeof versionOf> | undefined;
  /** Resident memory that a candidate's process may have. */
  bytesMax = 2 ** 30;
  #shadowing: Promise<unknown> = Promise.resolve();
  #begun = 0;
  #deployments = 0;
  #blocks = 0;
  #stop = new AbortController();

  async open(): Promise<void> {
    this.#scratch = await scratchFolder();
  }

  get path(): string {
    return this.#scratch.path;
  }

  async start(active: ModelPackage, options: ShadowStageOptions = {}): Promise<void> {
    this.#active = active;
    const { source = "http:0", sampling = EVERY_FRAME } = options;
    const bytesMax = (): number => this.bytesMax;
    const [spec] = parseLaneSpecs([source]);
    const workingDirectory = join(this.path, "empty");
    await mkdir(workingDirectory, { recursive: true });
    const frameMarkPath = join(this.path, "frame.mark");
    this.#supervisor = new Supervisor({
      directory: this.path,
      workingDirectory,
      frameMarks: new Map([["main", frameMarkPath]]),
      env: process.env,
      clock: systemClock,
      log,
      startMessage: () => ({
        kind: "start",
        device: "cam-1",
        boot: 1,
        lanes: [{ spec: spec!, package: toRun(active), numbers: { next: 0, end: 0 }, frameMarkPath }],
        // A host before it used no more of them.
        nextBlock: 1_000 * this.#blocks++,
        sampling,
        profileIntervalSeconds: 1,
        quarantined: [],
        suspects: [],
        threadCount: 1,
        thermalPath: undefined,
        governorTimes: undefined,
      }),
      onReady: () => {
        this.#running = versionOf(active);
      },
      onMessage: (message) => this.#received(message),
      onCrash: ({ reason }) => {
        this.crashes.push(reason);
        this.#running = undefined;
        this.#shadows.hostEnded();
      },
      onEnd: () => undefined,
    });
    this.#shadows = new Shadows({
      directory: this.path,
      host: { workingDirectory, env: process.env, log },
      threadCount: 1,
      get hostBytesMax() {
        return bytesMax();
      },
      clock: systemClock,
      log,
      lanes: [spec!],
      supervisor: {
        request: async (request, ...rest) => {
          const answer = await this.#supervisor.request(request, ...rest);
          if (request.kind === "shadow_begin") this.#begun++;
          return answer;
        },
      },
      running: () => this.#running,
      emit: (event) => this.events.push(event),
      times: { pollMs: 20, intervalMs: 50 },
    });
    this.#supervisor.start();
    await until(() => this.#supervisor.ready, "the host is ready");
  }

  /** Before another test: what was said and told is of no interest any more, and what a test that failed began is ended. */
  async forget(): Promise<void> {
    this.#stop.abort();
    this.#stop = new AbortController();
    await this.#shadowing;
    this.said = [];
    this.events = [];
  }

  async close(): Promise<void> {
    await this.forget();
    await this.#supervisor?.stop();
    await this.#scratch.remove();
  }

  /** Of the last shadow. */
  get deployment(): string {
    return `dep-${this.#deployments}`;
  }
  get hostPid(): number {
    return this.#supervisor.pid!;
  }
  get ready(): boolean {
    return this.#supervisor.ready;
  }
  get restarts(): number {
    return this.#supervisor.restarts;
  }
  /** Candidates that a host was told to show its frames to. */
  get candidates(): number {
    return this.#begun;
  }
  get beat(): LaneBeat | undefined {
    return this.#supervisor.heartbeat?.lanes[0];
  }
  get predictions(): number {
    return this.said.reduce(
      (sum, message) => sum + (message.kind === "predictions" ? message.rows.length : 0),
      0,
    );
  }
  get samples(): SampleMetadata[] {
    return this.said.flatMap((message) => (message.kind === "sample" ? [message.metadata] : []));
  }
  get told(): ShadowEvent[] {
    return this.events.filter((event) => event.type === "shadow");
  }
  /** What was counted so far. */
  counted(what: "frames" | "compared" | "skipped" | "failed" | "disagreements"): number {
    return this.said.reduce((sum, message) => sum + (message.kind === "shadow" ? message.delta[what] : 0), 0);
  }

  /** A candidate beside the active version. */
  shadow(
    candidate: ModelPackage,
    terms: Partial<ShadowTerms> = {},
    signal?: AbortSignal,
  ): Promise<ShadowOutcome> {
    this.#deployments++;
    const { deployment } = this;
    const request = {
      deployment,
      candidate: toRun(candidate),
      terms: { seconds: 0, predictions: 1, cpuShareMax: 1, ...terms },
    };
    const outcome = this.#shadows.run("main", toRun(this.#active), request, signal ?? this.#stop.signal);
    this.#shadowing = outcome.catch(() => undefined);
    return outcome;
  }

  /** The host shows the candidate what comes from now on: control tells its first numbers then. */
  get isBegun(): boolean {
    return this.told.length > 0;
  }

  /** A frame from another program. */
  push(frame: Frame): Promise<PredictionAnswer> {
    return this.#supervisor.request({ kind: "predict", lane: "main", frame });
  }

  #received(message: HostMessage): void {
    this.said.push(message);
    if (message.kind === "shadow") this.#shadows.received(message);
  }
}

function toRun({ dir, packageSha256 }: ModelPackage): PackageToRun {
  return { directory: dir, packageSha256 };
}

function versionOf({ manifest, packageSha256 }: ModelPackage) {
  return { version: manifest.version, packageSha256 };
}
