import { type FileHandle, open } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { FieldloopError } from "@fieldloop/protocol";
import { codeOf, reasonOf } from "../../control/files.js";
import type { RowReading, SpecOf } from "../../source-spec.js";
import { Deliverer } from "./deliver.js";
import { type FfmpegPlan, runFfmpeg } from "./ffmpeg.js";
import { FloatChunks } from "./float-chunks.js";
import { afterFile, type Attempt, type AttemptEnd, KeepTrying, untilAborted } from "./keep-trying.js";
import { RowFrames, RowLedger } from "./row-frames.js";
import type { DropPolicy, Source, SourceContext } from "./source.js";
import { decodeWav, readWavFormat, wavBlockBytes, type WavFormat } from "./wav.js";

type AudioSpec = SpecOf<"audio">;

/** Channels that a model may want of sound without `channels=`: 7.1. Beyond it they are features that something else computes. */
const SOUND_CHANNELS_MAX = 8;

/** Sound is read in pieces of so many seconds, so that a window comes when it is due. */
const PIECE_SECONDS = 0.01;
const PIECE_SAMPLES_MIN = 256;

/** Sound from a microphone or a file, cut into windows of samples −1..1. WAV of the right rate is read here, all else through ffmpeg. */
export class AudioSource implements Source {
  readonly dropPolicy: DropPolicy;
  readonly #spec: AudioSpec;
  readonly #context: SourceContext;
  readonly #action: string;
  readonly #deliverer: Deliverer;
  readonly #trying: KeepTrying;
  #windows = 0;

  constructor(spec: AudioSpec, context: SourceContext) {
    this.#spec = spec;
    this.#context = context;
    this.dropPolicy = spec.drop;
    this.#action = `Read sound "${spec.input === "file" ? spec.name : `${spec.input}:${spec.name}`}"`;
    this.#deliverer = new Deliverer(context, spec.drop);
    this.#trying = new KeepTrying(context, (attempt) => this.#play(attempt));
  }

  open(): Promise<void> {
    this.#trying.start();
    return Promise.resolve();
  }

  close(): Promise<void> {
    return this.#trying.stop();
  }

  counts(): Readonly<Record<string, number>> {
    return { windows: this.#windows, restarts: this.#trying.restarts };
  }

  async #play(attempt: Attempt): Promise<AttemptEnd> {
    const { input, name, loop } = this.#spec;
    if (input === "file") {
      const before = this.#windows;
      const handle = await this.#openFile(name);
      try {
        const format = await readWavFormat(handle);
        const hz = this.#hz(format);
        if (format && hz === format.hz && this.#channels() <= Math.max(2, format.channels)) {
          await this.#readWav(handle, format, attempt);
        } else await this.#readFfmpeg(attempt);
      } finally {
        await handle.close();
      }
      // A source that is closed within its first window has not failed.
      return attempt.signal.aborted ? "ended" : afterFile(loop, this.#windows - before, this.#action);
    }
    await this.#readFfmpeg(attempt);
    return "again";
  }

  async #readWav(handle: FileHandle, format: WavFormat, attempt: Attempt): Promise<void> {
    const cut = this.#cutter();
    const channels = this.#channels();
    const block = wavBlockBytes(format);
    const piece = Buffer.alloc(block * Math.max(PIECE_SAMPLES_MIN, Math.round(format.hz * PIECE_SECONDS)));
    const begin = this.#context.clock.monotonic();
    let done = 0;
    while (!attempt.signal.aborted && done < format.dataBytes) {
      const wanted = Math.min(piece.length, format.dataBytes - done);
      const { bytesRead } = await handle.read(piece, 0, wanted, format.dataOffset + done);
      if (bytesRead === 0) return;
      done += bytesRead;
      if (this.#spec.pace === "realtime") {
        const dueMs = begin + (done / block / format.hz) * 1000;
        const waitMs = dueMs - this.#context.clock.monotonic();
        if (waitMs > 1) await untilAborted(attempt.signal, sleep(waitMs, undefined, { ref: false }));
      }
      await this.#deliver(cut, decodeWav(piece.subarray(0, bytesRead), format, channels), attempt);
    }
  }

  async #readFfmpeg(attempt: Attempt): Promise<void> {
    const cut = this.#cutter();
    const floats = new FloatChunks();
    const channels = this.#channels();
    const plan = audioPlan(this.#spec, { action: this.#action, hz: this.#hz(undefined), channels });
    await runFfmpeg(plan, attempt.signal, (chunk) =>
      this.#deliver(cut, floats.push(chunk, channels), attempt),
    );
  }

  async #deliver(cut: RowFrames, values: Float32Array, attempt: Attempt): Promise<void> {
    attempt.healthy();
    for (const frame of cut.signal(values)) {
      this.#windows++;
      await this.#deliverer.deliver(frame, attempt.signal);
    }
  }

  /** The rate asked for, else that of the model, else that of the file. */
  #hz(format: WavFormat | undefined): number | undefined {
    return this.#spec.hz ?? this.#context.window?.()?.sampleRateHz ?? format?.hz;
  }

  #channels(): number {
    const wanted = this.#context.window?.()?.channels ?? 1;
    if (this.#spec.channels === undefined && wanted > SOUND_CHANNELS_MAX) {
      throw new FieldloopError(
        "source_failed",
        `${this.#action}: the model takes ${wanted} values a sample, which are features and no channels of sound; give it rows, tensors or say channels=`,
      );
    }
    return this.#spec.channels ?? wanted;
  }

  #cutter(): RowFrames {
    const { hz, length, hop } = this.#spec;
    const columns = Array.from({ length: this.#channels() }, (_, channel) => String(channel));
    const reading: RowReading = { ...SIGNAL, columns, hz, length, hop };
    return new RowFrames(reading, this.#context, new RowLedger(this.#context, this.#action));
  }

  async #openFile(path: string): Promise<FileHandle> {
    try {
      return await open(path, "r");
    } catch (cause) {
      const what = codeOf(cause) ?? reasonOf(cause);
      throw new FieldloopError("source_failed", `${this.#action}: ${what}`, { cause });
    }
  }
}

const SIGNAL = {
  format: "float32",
  time: undefined,
  gap: 1,
  missing: "hold",
  shape: "window",
  separator: ",",
  header: "0",
} as const;

/** The command line of ffmpeg for sound; samples come as float32, interleaved. */
export function audioPlan(
  spec: AudioSpec,
  wanted: { readonly action: string; readonly hz: number | undefined; readonly channels: number },
): FfmpegPlan {
  const { action, hz, channels } = wanted;
  const device = ["-f", spec.input, "-channels", String(channels)];
  const input =
    spec.input === "file"
      ? [
          "-protocol_whitelist",
          "file,pipe",
          ...(spec.pace === "realtime" ? ["-re"] : []),
          "-i",
          `file:${spec.name}`,
        ]
      : [...device, ...(hz === undefined ? [] : ["-sample_rate", String(hz)]), "-i", spec.name];
  return {
    ...{ action, live: spec.input !== "file" },
    arguments: [
      ...["-nostdin", "-threads", "1", ...input, "-vn", "-sn", "-ac", String(channels)],
      ...(hz === undefined ? [] : ["-ar", String(hz)]),
      ...["-f", "f32le", "-flush_packets", "1", "pipe:1"],
    ],
  };
}
