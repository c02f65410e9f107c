import { readFile, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { FieldloopError, LIMITS, toFieldloopError } from "@fieldloop/protocol";
import { AGENT_LIMITS } from "../../limits.js";
import type { SourceSpec } from "../../source-spec.js";
import type { DropPolicy, Source, SourceContext } from "./source.js";

const IMAGE_NAME = /\.(?:jpe?g|png|webp)$/i;

/** The images of a folder in the order of their names, over and over or once. New files are seen at the next round. */
export class FolderSource implements Source {
  readonly dropPolicy: DropPolicy;
  readonly #spec: Extract<SourceSpec, { kind: "folder" }>;
  readonly #context: SourceContext;
  #closed = false;
  #running: Promise<void> = Promise.resolve();
  #wake: (() => void) | undefined;

  constructor(spec: Extract<SourceSpec, { kind: "folder" }>, context: SourceContext) {
    this.#spec = spec;
    this.#context = context;
    this.dropPolicy = spec.drop;
  }

  open(): Promise<void> {
    this.#running = this.#run();
    return Promise.resolve();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#wake?.();
    await this.#running;
  }

  async #run(): Promise<void> {
    let waitMs = AGENT_LIMITS.sourceRestartMinMs as number;
    while (!this.#closed) {
      try {
        const names = await this.#names();
        this.#context.onTrouble(undefined);
        waitMs = AGENT_LIMITS.sourceRestartMinMs;
        for (const name of names) {
          if (this.#closed) return;
          await this.#deliver(join(this.#spec.path, name));
        }
        if (!this.#spec.loop) return;
      } catch (error) {
        this.#context.onTrouble(toFieldloopError(error));
        await this.#sleep(waitMs);
        waitMs = Math.min(waitMs * 2, AGENT_LIMITS.sourceRestartMaxMs);
      }
    }
  }

  async #names(): Promise<string[]> {
    try {
      const names = (await readdir(this.#spec.path)).filter((name) => IMAGE_NAME.test(name)).sort();
      if (names.length > AGENT_LIMITS.folderFilesMax) {
        throw new FieldloopError("limit_exceeded", `Read folder: ${names.length} images`);
      }
      if (names.length > 0) return names;
    } catch (cause) {
      if (cause instanceof FieldloopError) throw cause;
      throw new FieldloopError("source_failed", `Read folder "${this.#spec.path}": ${String(cause)}`, {
        cause,
      });
    }
    throw new FieldloopError("source_failed", `Read folder "${this.#spec.path}": no JPEG, PNG or WebP in it`);
  }

  async #deliver(path: string): Promise<void> {
    const dueMs = this.#context.clock.monotonic() + 1000 / this.#spec.fps;
    const info = await stat(path).catch(() => undefined);
    if (!info?.isFile()) return;
    if (info.size > LIMITS.imageBytesMax) {
      this.#context.sink.noteMissed(1);
      return;
    }
    const bytes = new Uint8Array(await readFile(path));
    if (this.dropPolicy === "wait") await this.#context.sink.space();
    if (this.#closed) return;
    this.#context.sink.offer({ frame: { kind: "encoded", bytes }, time: this.#context.clock.now() });
    await this.#sleep(dueMs - this.#context.clock.monotonic());
  }

  async #sleep(ms: number): Promise<void> {
    if (ms <= 0 || this.#closed) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = undefined;
  }
}
