import { MAIN_LANE, toFieldloopError, type DeploymentWaiting } from "@fieldloop/protocol";
import { AGENT_LIMITS } from "../limits.js";
import { type DeploymentFile, loadDeploymentFile, saveDeploymentFile } from "./deployment-file.js";
import { sleep } from "./deployment-rules.js";
import { cancelled } from "./download.js";
import type { PersistPoint } from "./durable.js";
import { deploymentPath } from "./lane-files.js";
import { PackageCleaner } from "./package-cleaner.js";
import type { UpdaterOptions } from "./updater-options.js";

/** What a lane's updater knows on disk: changes it one after the other, as often as the disk takes, and says what it waits for. */
export class DeploymentKeeper {
  readonly cleaner: PackageCleaner;
  readonly #options: UpdaterOptions;
  readonly #path: string;
  /** Ends every try. */
  readonly #stop: AbortSignal;
  #file!: DeploymentFile;
  #saving: Promise<void> = Promise.resolve();
  #waiting: DeploymentWaiting | undefined;
  /** What the file said was lost: no package is removed before it is known again what is needed. */
  lost = false;

  constructor(options: UpdaterOptions, stop: AbortSignal) {
    this.#options = options;
    this.#path = deploymentPath(options.directory, options.lane ?? MAIN_LANE);
    this.#stop = stop;
    this.cleaner = options.cleaner ?? new PackageCleaner(options.packages);
  }

  get file(): DeploymentFile {
    return this.#file;
  }
  get waiting(): DeploymentWaiting | undefined {
    return this.#waiting;
  }

  async load(): Promise<void> {
    const { packages, onCorrupt } = this.#options;
    const { file, lost } = await loadDeploymentFile(this.#path, packages.durable, onCorrupt);
    this.#file = file;
    this.lost = lost;
  }

  setWaiting(waiting: DeploymentWaiting | undefined): void {
    const before = this.#waiting;
    if (
      before?.reason === waiting?.reason &&
      before?.until === waiting?.until &&
      before?.code === waiting?.code
    )
      return;
    this.#waiting = waiting;
    if (waiting && before?.reason !== waiting.reason) {
      const { deployment } = this.#file.deployment?.assignment ?? {};
      this.#options.log.info({ deployment, ...waiting }, "deployment waits");
    }
    this.#options.onChange();
  }

  /**
   * Changes what is on disk, as often as it takes: nothing goes on before it is there. False where it is moot before that.
   * @throws FieldloopError `cancelled` at a stop
   */
  async keep(
    change: Partial<DeploymentFile>,
    point: PersistPoint,
    isMoot: () => boolean = () => false,
  ): Promise<boolean> {
    let waitMs = this.#options.times?.storageRetryMinMs ?? AGENT_LIMITS.storageRetryMinMs;
    while (!(await this.tryKeep(change, point))) {
      if (this.#stop.aborted) throw cancelled(this.#stop);
      if (isMoot()) return false;
      this.setWaiting({ reason: "storage", until: Math.round(this.#options.clock.now() + waitMs) });
      await sleep(waitMs, this.#stop);
      waitMs = Math.min(waitMs * 2, AGENT_LIMITS.storageRetryMaxMs);
    }
    if (this.#waiting?.reason === "storage") this.setWaiting(undefined);
    return true;
  }

  /** The same, once. What could not be written is true for this start all the same where it undoes something: see the callers. */
  async tryKeep(change: Partial<DeploymentFile>, point: PersistPoint): Promise<boolean> {
    try {
      await this.#save(change, point);
      return true;
    } catch (error) {
      const { code, message } = toFieldloopError(error);
      this.#options.log.error({ code, point }, message);
      if (!canGoAhead(point)) return false;
      this.#file = { ...this.#file, ...change };
      return false;
    }
  }

  /** Removes what no lane needs; where the disk does not let it, again later. */
  async clean(): Promise<void> {
    try {
      await this.cleaner.clean();
    } catch (error) {
      const { code, message } = toFieldloopError(error);
      this.#options.log.warn({ code }, message);
      const waitMs = this.#options.times?.storageRetryMinMs ?? AGENT_LIMITS.storageRetryMaxMs;
      void sleep(waitMs, this.#stop).then(() => (this.#stop.aborted ? undefined : this.clean()));
    }
  }

  /** One after the other: a change made while another is being written (a new revision during a step) must not undo it. */
  #save(change: Partial<DeploymentFile>, point: PersistPoint): Promise<void> {
    const saved = this.#saving.then(() => this.#write({ ...this.#file, ...change }, point));
    this.#saving = saved.catch(() => undefined);
    return saved;
  }

  async #write(file: DeploymentFile, point: PersistPoint): Promise<void> {
    await saveDeploymentFile(this.#path, file, this.#options.packages.durable, point);
    this.#file = file;
    this.#options.onChange();
  }
}

/** Ends and counts hold for this start also where they could not be written; a state that goes forward does not. */
function canGoAhead(point: PersistPoint): boolean {
  return ["start", "revision", "returned", ...ENDS].includes(point);
}
const ENDS: readonly PersistPoint[] = [
  "state:rejected",
  "state:failed",
  "state:timed_out",
  "state:rolled_back",
  "state:cancelled",
];
