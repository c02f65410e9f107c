import { spawnSync } from "node:child_process";
import type { FieldloopError } from "@fieldloop/protocol";
import { systemClock } from "../../clock.js";
import { parseSourceSpec } from "../../source-spec.js";
import { FrameQueue } from "../frame-queue.js";
import { createSource } from "./open.js";
import type { Source, SourceContext, SourceFrame, WindowShape } from "./source.js";

/** One source with a real queue behind it, and everything that it told. */
export class SourceStage {
  readonly queue: FrameQueue;
  readonly troubles: (FieldloopError | undefined)[] = [];
  /** What the model would want. */
  window: WindowShape | undefined;
  columns: readonly string[] | undefined;
  stdin: SourceContext["stdin"];
  #source: Source | undefined;

  constructor(places = 2) {
    this.queue = new FrameQueue(places);
  }

  get context(): SourceContext {
    return {
      sink: this.queue,
      clock: systemClock,
      onTrouble: (error) => this.troubles.push(error),
      onFeedback: () => undefined,
      window: () => this.window,
      columns: () => this.columns,
      ...(this.stdin ? { stdin: this.stdin } : {}),
    };
  }

  get source(): Source {
    return this.#source!;
  }

  get codes(): (string | undefined)[] {
    return this.troubles.map((error) => error?.code);
  }

  async open(text: string): Promise<Source> {
    this.#source = createSource(parseSourceSpec(text), this.context, 0);
    await this.#source.open();
    return this.#source;
  }

  async take(count: number): Promise<SourceFrame[]> {
    const frames: SourceFrame[] = [];
    while (frames.length < count) frames.push((await this.queue.take())!);
    return frames;
  }

  async close(): Promise<void> {
    await this.#source?.close();
    this.#source = undefined;
    this.queue.close();
  }
}

/** The samples of windows, for comparing. */
export function windowsOf(frames: readonly SourceFrame[]): number[][] {
  return frames.map(({ frame }) => (frame.kind === "window" ? [...frame.samples] : []));
}

export function rowsOf(frames: readonly SourceFrame[]): unknown[] {
  return frames.map(({ frame }) => (frame.kind === "row" ? frame.values : undefined));
}

/** Says why what wants a program is skipped where it is missing. */
export function hasProgram(
  program: string,
  arguments_: readonly string[],
  what: string,
  search = process.env.PATH,
): boolean {
  const { error } = spawnSync(program, arguments_, {
    stdio: "ignore",
    env: { ...process.env, PATH: search },
  });
  if (error) console.warn(`skipped: ${what}, because ${program} is not installed`);
  return error === undefined;
}
