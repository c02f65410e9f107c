import { join } from "node:path";
import { sha256Schema, toFieldloopError } from "@fieldloop/protocol";
import { z } from "zod";
import { AGENT_LIMITS } from "../limits.js";
import { readJsonFile, writeJsonFile } from "./files.js";
import type { HostCrash } from "./supervisor.js";
import type { Warnings } from "./warnings.js";

const fileSchema = z.object({ frames: z.array(sha256Schema).max(AGENT_LIMITS.quarantinedFramesMax) });

/** Ends that native code brings about by itself; a SIGKILL comes from outside (a person, the kernel short of memory). */
export const OWN_FAULT: ReadonlySet<string> = new Set([
  "SIGSEGV",
  "SIGFPE",
  "SIGABRT",
  "SIGILL",
  "SIGBUS",
  "SIGTRAP",
]);

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

  /** Frames that were there when a host ended and are not put away: whoever runs them again runs each alone. */
  get suspects(): readonly string[] {
    return [...this.#suspects].filter((sha256) => !this.#frames.has(sha256));
  }

  /**
   * Judges a frame that was running when a host ended. At its first native crash, or when the watchdog had to kill, it is
   * put away; an end from outside may be chance, and one of several frames may be innocent: these want a second time. True where it
   * was put away now.
   */
  async judge(
    frameSha256: string,
    end: { readonly reason: string; readonly unresponsive: boolean; readonly isOnlyOne: boolean },
  ): Promise<boolean> {
    if (this.#frames.has(frameSha256)) return false;
    const isCertain = end.isOnlyOne && (end.unresponsive || OWN_FAULT.has(end.reason));
    if (!isCertain && !this.#suspects.has(frameSha256)) {
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

/** Puts away what ended the host, as far as it can be told: of several frames that ran at once each is a suspect. */
export async function judgeFrames(
  crash: HostCrash,
  quarantine: Quarantine,
  warnings: Warnings,
): Promise<void> {
  const { reason, unresponsive, stuckLane, stuckInference, inferring, frames } = crash;
  if (stuckInference) return;
  const hashes = frames
    .filter(({ lane }) => stuckLane === undefined || lane === stuckLane)
    .flatMap((lane) => lane.hashes);
  try {
    for (const hash of hashes) {
      const end = { reason, unresponsive, isOnlyOne: hashes.length === 1 && inferring === 0 };
      if (!(await quarantine.judge(hash, end))) continue;
      const message = `Frame ${hash.slice(0, 16)} killed the host and is not run again`;
      warnings.raise("frame_quarantined", message);
    }
  } catch (error) {
    warnings.raise("storage_failed", toFieldloopError(error).message, "error");
  }
}
