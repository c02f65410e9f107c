import { join } from "node:path";
import { sha256Schema } from "@fieldloop/protocol";
import { z } from "zod";
import { AGENT_LIMITS } from "../limits.js";
import { readJsonFile, writeJsonFile } from "./files.js";

const fileSchema = z.object({ frames: z.array(sha256Schema).max(AGENT_LIMITS.quarantinedFramesMax) });

/** Ends that native code brings about by itself; a SIGKILL comes from outside (a person, the kernel short of memory). */
const OWN_FAULT = new Set(["SIGSEGV", "SIGFPE", "SIGABRT", "SIGILL", "SIGBUS", "SIGTRAP"]);

/** Frames that killed a host, by hash: they are not run again, so that one of them cannot become a crash loop. */
export class Quarantine {
  readonly #path: string;
  readonly #frames: Set<string>;
  readonly #suspects = new Set<string>();

  private constructor(path: string, frames: readonly string[]) {
    this.#path = path;
    this.#frames = new Set(frames);
  }

  static async load(directory: string, onCorrupt: (message: string) => void): Promise<Quarantine> {
    const path = join(directory, "quarantine.json");
    const file = await readJsonFile(path, fileSchema, onCorrupt);
    return new Quarantine(path, file?.frames ?? []);
  }

  get frames(): readonly string[] {
    return [...this.#frames];
  }

  /**
   * Judges the frame that was running when a host ended. At its first native crash, or when the watchdog had to kill, it is
   * put away; an end from outside may be chance and wants a second time. True where it was put away now.
   */
  async judge(frameSha256: string, reason: string, unresponsive: boolean): Promise<boolean> {
    if (this.#frames.has(frameSha256)) return false;
    if (!unresponsive && !OWN_FAULT.has(reason) && !this.#suspects.has(frameSha256)) {
      this.#suspects.add(frameSha256);
      if (this.#suspects.size > AGENT_LIMITS.quarantinedFramesMax) {
        this.#suspects.delete(this.#suspects.values().next().value!);
      }
      return false;
    }
    this.#frames.add(frameSha256);
    if (this.#frames.size > AGENT_LIMITS.quarantinedFramesMax) {
      this.#frames.delete(this.#frames.values().next().value!);
    }
    await writeJsonFile(this.#path, { frames: this.frames });
    return true;
  }
}
