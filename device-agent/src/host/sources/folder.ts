import { readFile, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { FieldloopError, LIMITS } from "@fieldloop/protocol";
import { AGENT_LIMITS } from "../../limits.js";
import type { SpecOf } from "../../source-spec.js";
import { Deliverer } from "./deliver.js";
import { type Attempt, type AttemptEnd, KeepTrying } from "./keep-trying.js";
import type { DropPolicy, Source, SourceContext } from "./source.js";

type FolderSpec = SpecOf<"folder">;

const IMAGE_NAME = /\.(?:jpe?g|png|webp)$/i;

/** The images of a folder in the order of their names, over and over or once. New files are seen at the next round. */
export class FolderSource implements Source {
  readonly dropPolicy: DropPolicy;
  readonly #spec: FolderSpec;
  readonly #context: SourceContext;
  readonly #deliverer: Deliverer;
  readonly #trying: KeepTrying;

  constructor(spec: FolderSpec, context: SourceContext) {
    this.#spec = spec;
    this.#context = context;
    this.dropPolicy = spec.drop;
    this.#deliverer = new Deliverer(context, spec.drop);
    this.#trying = new KeepTrying(context, (attempt) => this.#round(attempt));
  }

  open(): Promise<void> {
    this.#trying.start();
    return Promise.resolve();
  }

  close(): Promise<void> {
    return this.#trying.stop();
  }

  async #round({ signal, healthy }: Attempt): Promise<AttemptEnd> {
    const names = await this.#names();
    healthy();
    for (const name of names) {
      if (signal.aborted) break;
      await this.#deliver(join(this.#spec.path, name), signal);
    }
    return this.#spec.loop ? "again" : "ended";
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

  async #deliver(path: string, signal: AbortSignal): Promise<void> {
    const dueMs = this.#context.clock.monotonic() + 1000 / this.#spec.fps;
    const info = await stat(path).catch(() => undefined);
    if (info?.isFile() === true && info.size <= LIMITS.imageBytesMax) {
      const bytes = new Uint8Array(await readFile(path));
      const time = this.#context.clock.now();
      await this.#deliverer.deliver({ frame: { kind: "encoded", bytes }, time }, signal);
    } else this.#context.sink.noteMissed(1);
    const waitMs = dueMs - this.#context.clock.monotonic();
    if (waitMs > 0) await sleep(waitMs, undefined, { signal }).catch(() => undefined);
  }
}
