import type { Socket } from "node:net";
import { availableParallelism } from "node:os";
import { FieldloopError, toFieldloopError } from "@fieldloop/protocol";
import type { Frame } from "@fieldloop/runtime";
import type { Clock, RandomSource } from "../clock.js";
import type { Activation, Heartbeat, LaneActivation, PackageToRun, StartMessage } from "../ipc.js";
import type { ShadowBeginRequest } from "../ipc-shadow.js";
import { AGENT_LIMITS } from "../limits.js";
import { type PredictionAnswer, predictionAnswer } from "../prediction-answer.js";
import { Governing } from "./governing.js";
import { Lane } from "./lane.js";
import { LocalRuns } from "./local-runs.js";
import { ModelPool } from "./model-pool.js";
import { NumberBlocks } from "./numbers.js";
import type { Send } from "./reporter.js";
import { Scheduler, type Task } from "./scheduler.js";
import { ThreadSharing } from "./thread-sharing.js";

export interface InferenceOptions {
  readonly start: StartMessage;
  readonly send: Send;
  readonly clock: Clock;
  readonly random: RandomSource;
  /** It cannot go on: whoever started it ends the process. */
  readonly onDead: (error: FieldloopError) => void;
}

const TICK_MS = 250;

/** All lanes of a device in one process: their sources, the models that they share, and who runs next. */
export class Inference {
  /** For programs on this machine. */
  readonly local: LocalRuns;
  readonly #start: StartMessage;
  readonly #send: Send;
  readonly #lanes: readonly Lane[];
  readonly #scheduler: Scheduler;
  readonly #governing: Governing;
  readonly #sharing: ThreadSharing;
  #profileIntervalMs: number;
  #timers: NodeJS.Timeout[] = [];

  constructor({ start, send, clock, random, onDead }: InferenceOptions) {
    this.#start = start;
    this.#send = send;
    this.#profileIntervalMs = start.profileIntervalSeconds * 1000;
    const { threadCount } = start;
    // Every lane may run at once within the budget; with more lanes than threads they take turns.
    const perModel = Math.max(1, Math.floor(threadCount / start.lanes.length));
    const onTrouble = ({ code, message }: FieldloopError): void =>
      void send({ kind: "warning", failure: { code, message }, active: true });
    const isShared = start.lanes.length > 1;
    const pool = new ModelPool({ threadCount: perModel, isShared, onProviderFailed: onTrouble });
    this.#sharing = new ThreadSharing({ models: () => pool.models, clock, onTrouble });
    const blocks = new NumberBlocks(start.nextBlock);
    const sampling = partOf(start.sampling, start.lanes.length);
    const onWaiting = (): void => this.#scheduler.wake();
    this.#lanes = start.lanes.map(
      (lane) => new Lane({ start, lane, sampling, blocks, pool, send, clock, random, onWaiting, onDead }),
    );
    this.local = new LocalRuns({ lanes: this.#lanes, pool, clock, onWaiting });
    const tasks = { [Symbol.iterator]: () => this.#tasks() };
    this.#scheduler = new Scheduler({ tasks, threadCount, now: () => clock.monotonic() });
    const { thermalPath, governorTimes: times } = start;
    this.#governing = new Governing({ lanes: this.#lanes, thermalPath, times, clock, send });
  }

  /** Begins to take frames; the source of a lane opens with its first model. */
  async start(): Promise<LaneActivation[]> {
    this.#timers = [
      setInterval(() => void this.#send(this.#heartbeat()), AGENT_LIMITS.heartbeatIntervalMs),
      setInterval(() => this.#tick(), TICK_MS),
    ];
    this.#governing.start();
    this.#sharing.start();
    return Promise.all(
      this.#start.lanes.map(async ({ spec, package: target }) => ({
        lane: spec.name,
        activation: target ? await this.#firstActivation(spec.name, target) : undefined,
      })),
    );
  }

  /** Awaits the runs in hand, then releases everything. */
  async stop(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    this.#governing.stop();
    this.local.close();
    await Promise.all([...this.#lanes.map((lane) => lane.close()), this.#sharing.stop()]);
    await this.#scheduler.stop();
    await Promise.all([...this.#lanes.map((lane) => lane.finish()), this.local.finish()]);
  }

  /** @throws FieldloopError with the old model still running */
  activate(lane: string, target: PackageToRun): Promise<Activation> {
    return this.#lane(lane).activate(target);
  }

  reopen(lane: string, target: PackageToRun): Promise<Activation> {
    return this.#lane(lane).reopen(target);
  }

  deactivate(lane: string): Promise<void> {
    return this.#lane(lane).deactivate();
  }

  /** A frame that a program on this machine gives to a lane. @throws FieldloopError as {@link Lane.push}; `lane_unknown` */
  async predict(lane: string, frame: Frame, signal: AbortSignal): Promise<PredictionAnswer> {
    const { id, prediction } = await this.#lane(lane).push(frame, signal);
    return predictionAnswer(id, prediction);
  }

  /** From now on a candidate sees what the lane answers. @throws FieldloopError `lane_unknown` */
  async beginShadow(request: ShadowBeginRequest, socket: Socket): Promise<void> {
    await this.#lane(request.lane).shadowing.beginShadow(request, socket, availableParallelism());
  }

  /** @throws FieldloopError `lane_unknown` */
  async endShadow(lane: string): Promise<void> {
    await this.#lane(lane).shadowing.endShadow();
  }

  setPolicy(sampling: StartMessage["sampling"], profileIntervalSeconds: number): void {
    // The budget is the device's: each lane gets its part of it.
    for (const lane of this.#lanes) lane.setSampling(partOf(sampling, this.#lanes.length));
    this.#profileIntervalMs = profileIntervalSeconds * 1000;
  }

  /** The next inputs of all lanes that predict, as even as it goes. */
  capture(count: number): void {
    const lanes = this.#lanes.filter(({ model }) => model !== undefined);
    for (let taken = 0; taken < count && lanes.length > 0; taken++) {
      lanes[taken % lanes.length]!.sampler.capture(1);
    }
  }

  /** @throws FieldloopError `invalid_argument`, `conflict` where the source is no simulator, `lane_unknown` */
  setCondition(condition: string, lane: string | undefined): void {
    const named = lane === undefined ? undefined : this.#lane(lane);
    const simulator = named ?? this.#lanes.find(({ source }) => source.isSimulator) ?? this.#lanes[0]!;
    simulator.source.setCondition(condition);
  }

  /** @throws FieldloopError `conflict` where no source is a simulator */
  truth(n: number): string | undefined {
    const simulators = this.#lanes.filter(({ source }) => source.isSimulator);
    if (simulators.length === 0) return this.#lanes[0]!.source.truth(n);
    for (const { source } of simulators) {
      const label = source.truth(n);
      if (label !== undefined) return label;
    }
    return undefined;
  }

  async #firstActivation(lane: string, target: PackageToRun): Promise<Activation | undefined> {
    try {
      return await this.activate(lane, target);
    } catch (error) {
      const { code, message } = toFieldloopError(error);
      await this.#send({ kind: "warning", failure: { code, message }, active: true, lane });
      return undefined;
    }
  }

  #lane(name: string): Lane {
    const lane = this.#lanes.find((candidate) => candidate.name === name);
    if (lane) return lane;
    const known = this.#lanes.map((candidate) => candidate.name).join(", ");
    throw new FieldloopError("lane_unknown", `Ask host: there is no lane "${name}", there are ${known}`);
  }

  *#tasks(): Generator<Task> {
    yield* this.#lanes;
    yield* this.local.tasks;
  }

  #tick(): void {
    for (const lane of this.#lanes) lane.tick(this.#profileIntervalMs, this.#governing.isRestricting);
  }

  #heartbeat(): Heartbeat {
    return {
      kind: "heartbeat",
      lanes: this.#lanes.map((lane) => lane.beat(this.#governing.rateMax(lane.name))),
      localRunningMs: this.local.runningMs,
      residentBytes: process.memoryUsage.rss(),
    };
  }
}

/** One lane's part of what the whole device may take. */
function partOf(sampling: StartMessage["sampling"], lanes: number): StartMessage["sampling"] {
  const { bytesPerHour, worthPerMinute } = sampling;
  return {
    ...sampling,
    bytesPerHour: Math.floor(bytesPerHour / lanes),
    worthPerMinute: worthPerMinute / lanes,
  };
}
