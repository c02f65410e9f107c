import { readFile } from "node:fs/promises";
import type { Socket } from "node:net";
import { join } from "node:path";
import { type FieldloopError, LIMITS, type Manifest, toFieldloopError } from "@fieldloop/protocol";
import { disagreement, MANIFEST_FILE, parseManifest, type Frame, type Prediction } from "@fieldloop/runtime";
import { FrameMark } from "../../control/frame-mark.js";
import type { PackageToRun } from "../../ipc.js";
import type { ShadowMessage, ShadowOpened, ShadowOpenRequest } from "../../ipc-shadow.js";
import { STREAMS_MAX } from "../fresh-streams.js";
import { HostModel } from "../model.js";
import { RunTime } from "../run-time.js";
import { carries, type Fit, fitOf } from "./fit.js";
import { Recutter } from "./recut.js";
import { encodeReply, type ShadowFrame, ShadowFrameReader, type ShadowReply } from "./wire.js";

interface CandidateParts {
  readonly model: HostModel;
  readonly active: Manifest;
  readonly fit: Fit;
  readonly mark: FrameMark;
}

/**
 * A candidate in a process of its own: answers the frames that the host shows it, compares, and says how far its answer lies from that of the active
 * version. What it does to this process (crash, hang, fill the memory) it does to no other. Its runs are in a thread of their own, so that
 * this one always hears when control is gone.
 */
export class ShadowCandidate {
  readonly opened: ShadowOpened;
  readonly #parts: CandidateParts;
  readonly #times = new RunTime();
  readonly #recutters = new Map<string, Recutter>();
  readonly #waiting: ShadowFrame[] = [];
  #socket: Socket | undefined;
  #working = false;
  /** Begin of the run in hand. */
  #running: { readonly since: number; readonly cpu: NodeJS.CpuUsage } | undefined;
  #cpu = process.cpuUsage();

  private constructor(parts: CandidateParts) {
    this.#parts = parts;
    const { model, fit } = parts;
    this.opened = {
      origin: model.origin,
      variant: model.variant,
      executionProvider: model.executionProvider,
      isSequential: fit.kind === "recut" || carries(model.manifest),
      fits: fit.kind !== "none",
    };
  }

  /** @throws FieldloopError as {@link HostModel.load}; `manifest_invalid` */
  static async open(request: ShadowOpenRequest): Promise<ShadowCandidate> {
    const active = parseManifest(await readFile(join(request.activeDirectory, MANIFEST_FILE)));
    const model = await openModel(request.package);
    const fit = fitOf(active, model.manifest, request.isCutBySource);
    // The lane tells of the same disk.
    const mark = new FrameMark(request.frameMarkPath, () => undefined);
    return new ShadowCandidate({ model, active, fit, mark });
  }

  /** Answers what comes through the socket until the other end closes it. */
  serve(socket: Socket): void {
    this.#socket = socket;
    const reader = new ShadowFrameReader();
    // What opening cost is nobody's frame.
    this.#cpu = process.cpuUsage();
    socket.on("data", (chunk) => {
      try {
        this.#waiting.push(...reader.push(chunk));
        void this.#work();
      } catch (error) {
        socket.destroy(toFieldloopError(error));
      }
    });
    // The host is gone, or wants no more: control says what is next.
    socket.on("error", () => socket.destroy());
    socket.on("close", () => {
      this.#waiting.length = 0;
    });
  }

  beat(): Extract<ShadowMessage, { kind: "shadow_beat" }> {
    const running = this.#running;
    return {
      kind: "shadow_beat",
      runningMs: running ? performance.now() - running.since : 0,
      runningCpuMs: running ? milliseconds(process.cpuUsage(running.cpu)) : 0,
      expectedMs: this.#times.expectedMs(1),
      residentBytes: process.memoryUsage.rss(),
    };
  }

  async close(): Promise<void> {
    this.#socket?.destroy();
    this.#waiting.length = 0;
    await this.#parts.model.close();
    this.#parts.mark.close();
  }

  async #work(): Promise<void> {
    if (this.#working) return;
    this.#working = true;
    for (let message = this.#waiting.shift(); message; message = this.#waiting.shift()) {
      const begin = performance.now();
      const said = await this.#answer(message);
      const reply = { id: message.id, cpuMs: this.#cost(performance.now() - begin), ...said };
      if (this.#socket?.writable) this.#socket.write(encodeReply(reply));
    }
    this.#working = false;
  }

  async #answer(message: ShadowFrame): Promise<Pick<ShadowReply, "answer" | "failure">> {
    let prediction: Prediction | undefined;
    for (const { frame, fresh } of this.#framesOf(message)) {
      const outcome = await this.#predict(frame, fresh, message);
      if (!outcome.ok) return { failure: failureOf(outcome.error) };
      prediction = outcome.prediction;
    }
    if (!prediction || !message.compare) return {};
    const { manifest } = this.#parts.model;
    const value = disagreement(
      { prediction: message.answer, manifest: this.#parts.active },
      { prediction, manifest },
    );
    return {
      answer: {
        disagreement: value ?? null,
        label: prediction.label,
        confidence: Math.min(1, Math.max(0, prediction.confidence || 0)),
        latencyMs: Math.max(0, prediction.latencyMs),
      },
    };
  }

  async #predict(frame: Frame, fresh: boolean, { stream, sha256 }: ShadowFrame) {
    const { model, mark } = this.#parts;
    const begin = performance.now();
    this.#running = { since: begin, cpu: process.cpuUsage() };
    mark.begin([sha256]);
    try {
      return (await model.predict([frame], stream, fresh))[0]!;
    } finally {
      mark.end();
      this.#running = undefined;
      this.#times.note(1, performance.now() - begin);
    }
  }

  /** What the candidate is shown of a frame: itself, the windows that end in it, or nothing where it lacks what the candidate reads. */
  #framesOf({
    frame,
    fresh,
    stream,
  }: ShadowFrame): readonly { readonly frame: Frame; readonly fresh: boolean }[] {
    const { fit, model } = this.#parts;
    if (frame.kind === "row" && !hasColumns(model.manifest, frame.values)) return [];
    if (fit.kind !== "recut" || frame.kind !== "window") return [{ frame, fresh }];
    const windows = this.#recutterOf(stream, fit).push(frame.samples, fresh);
    return windows.map(({ samples, fresh: isFirst }) => ({
      frame: { kind: "window", samples },
      fresh: isFirst,
    }));
  }

  #recutterOf(stream: string, { from, to }: Extract<Fit, { kind: "recut" }>): Recutter {
    const known = this.#recutters.get(stream);
    if (known) return known;
    if (this.#recutters.size >= STREAMS_MAX) this.#recutters.delete(this.#recutters.keys().next().value!);
    const recutter = new Recutter(from, to);
    this.#recutters.set(stream, recutter);
    return recutter;
  }

  /** Of an accelerator nobody measures how busy it is: the time that it was waited for is its cost. */
  #cost(tookMs: number): number {
    const cpuMs = milliseconds(process.cpuUsage(this.#cpu));
    this.#cpu = process.cpuUsage();
    return this.#parts.model.executionProvider === "cpu" ? cpuMs : Math.max(cpuMs, tookMs);
  }
}

function milliseconds({ user, system }: NodeJS.CpuUsage): number {
  return (user + system) / 1000;
}

/** On the first of its providers that opens it, on the CPU in the end; with one thread. */
async function openModel(target: PackageToRun): Promise<HostModel> {
  const options = { threadCount: 1, isBusy: false, runMsMax: 0 };
  for (const provider of target.providers ?? []) {
    const model = await HostModel.load(target, options, provider).catch(() => undefined);
    if (model) return model;
  }
  return HostModel.load(target, options);
}

/** A row that lacks a column and its stand-in says nothing of the candidate: once it is active the source reads that column too. */
function hasColumns({ inputs }: Manifest, values: Readonly<Record<string, unknown>>): boolean {
  return inputs.every(
    (input) =>
      input.kind !== "table" ||
      input.columns.every(({ name, missing }) => missing !== undefined || Object.hasOwn(values, name)),
  );
}

function failureOf({ code, message }: FieldloopError): ShadowReply["failure"] {
  return { code, message: message.slice(0, LIMITS.textLengthMax) };
}
