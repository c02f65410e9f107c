import { randomBytes } from "node:crypto";
import { stat, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Logger } from "pino";
import { AGENT_LIMITS } from "../limits.js";
import { reasonOf, unlinkIfThere } from "./files.js";

/**
 * What a full disk leaves to the agent: a file that does nothing but take space, and goes where a start finds none. A start writes little
 * (who runs, the boot number, the head of a spool), and without that a device that was switched on with a full disk would not predict at
 * all. Later writes meet the full disk as they do at any time: told, tried again, and no reason to end.
 */
export class DiskReserve {
  readonly #directory: string;
  readonly #path: string;
  readonly #log: Logger;
  #timer: NodeJS.Timeout | undefined;

  constructor(directory: string, log: Logger) {
    this.#directory = directory;
    this.#path = join(directory, "reserve.bin");
    this.#log = log;
  }

  /** Before a start writes anything. */
  async makeRoom(): Promise<void> {
    if ((await this.#free()) >= AGENT_LIMITS.diskReserveBytes || !(await this.#isThere())) return;
    await unlinkIfThere(this.#path);
    this.#log.warn(
      { code: "storage_full" },
      "the disk is full: the agent starts in the space that it had kept",
    );
  }

  /** Once it has started, and from then on: a reserve that was used is taken again when there is space. */
  keep(): void {
    void this.#fill();
    this.#timer = setInterval(() => void this.#fill(), AGENT_LIMITS.diskReserveCheckMs).unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  async #fill(): Promise<void> {
    const { diskReserveBytes } = AGENT_LIMITS;
    try {
      if (await this.#isThere()) return;
      // Not the last that is left for everything else.
      if ((await this.#free()) < 4 * diskReserveBytes) return;
      // Random, because some file systems keep no space for zeros.
      await writeFile(this.#path, randomBytes(diskReserveBytes), { mode: 0o600 });
    } catch (error) {
      await unlinkIfThere(this.#path).catch(() => undefined);
      this.#log.debug(`no space is kept for a start on a full disk: ${reasonOf(error)}`);
    }
  }

  async #isThere(): Promise<boolean> {
    const size = await stat(this.#path).then(
      (found) => found.size,
      () => 0,
    );
    return size >= AGENT_LIMITS.diskReserveBytes;
  }

  async #free(): Promise<number> {
    const { bavail, bsize } = await statfs(this.#directory);
    return bavail * bsize;
  }
}
