import {
  canTransition,
  DEPLOYMENT,
  FieldloopError,
  toFieldloopError,
  type Assignment,
  type DeploymentState,
  type DeviceState,
  type WireError,
} from "@fieldloop/protocol";
import type { PackageToRun } from "../ipc.js";
import { AGENT_LIMITS } from "../limits.js";
import type { DeploymentFile, Installed } from "./deployment-file.js";
import { DeploymentKeeper } from "./deployment-keeper.js";
import {
  finalState,
  giveUp,
  isSettled,
  isTaken,
  type Measured,
  measuredOf,
  sleep,
  stateTimeoutMs,
  withoutInternal,
} from "./deployment-rules.js";
import { DeploymentSteps, type StepContext, type StepEnd } from "./deployment-steps.js";
import { cancelled } from "./download.js";
import type { Probation } from "./probation.js";
import { StepTimer } from "./step-timer.js";
import type { UpdaterOptions } from "./updater-options.js";

/** Somebody who wants the version before, and waits for it. */
interface Returning {
  /** A candidate was left for it: the version before runs already. */
  isDone: boolean;
  readonly done: () => void;
  readonly failed: (error: FieldloopError) => void;
}

/**
 * Walks a deployment through the states of {@link DEPLOYMENT}: each is on disk before its step begins, and told as an event.
 * Until `probation` the old version is the one that a start runs, from then on the new one, from `rolled_back` on the old
 * one again: a power cut at any byte ends on a whole old or a whole new version. What is `active` or `previous` on disk has passed its
 * probation: nothing else is ever returned to.
 */
export class Updater {
  readonly #options: UpdaterOptions;
  readonly #keeper: DeploymentKeeper;
  readonly #steps: DeploymentSteps;
  /** What the fleet wants; null: nothing, undefined: it has not said so in this start. */
  #wanted: Assignment | null | undefined;
  #returning: Returning | undefined;
  #abort = new AbortController();
  readonly #stop = new AbortController();
  /** A stop does not wait any longer for a version that is being loaded. */
  readonly #lastCall = new AbortController();
  #working: Promise<void> | undefined;
  #probation: Probation | undefined;

  constructor(options: UpdaterOptions) {
    this.#options = options;
    this.#keeper = new DeploymentKeeper(options, this.#stop.signal);
    this.#steps = new DeploymentSteps(options, this.#keeper.cleaner);
  }

  /**
   * Reads where an earlier start stopped, and counts this one, before anything of it runs: a version that ends the whole agent at once must
   * not find itself running again for ever. Packages that no lane needs go with {@link resume}: then every lane has said what it needs.
   */
  async load(): Promise<void> {
    await this.#keeper.load();
    this.#keeper.cleaner.register((packageSha256) => this.#needs(packageSha256));
    const current = this.#file.deployment;
    if (!current || isSettled(current.state)) return;
    // A state that only waits for its window is not to blame for a stop.
    const attempts = current.ready ? current.attempts : current.attempts + 1;
    const reason = giveUp(current.state, attempts);
    if (reason) await this.#keeper.tryKeep(this.#ended(current.state, reason), "start");
    else await this.#keeper.tryKeep({ deployment: { ...current, attempts } }, "start");
  }

  /** What a host has to run: the candidate in probation, else the active version. */
  get toRun(): PackageToRun | undefined {
    const { deployment, active } = this.#file;
    if (deployment?.state === "probation") {
      return this.#options.packages.toRun(deployment.assignment.packageSha256);
    }
    return active ? this.#options.packages.toRun(active.packageSha256) : undefined;
  }
  get revisionFloor(): number {
    return this.#file.revisionFloor;
  }
  get deployment(): DeviceState["deployment"] {
    const current = this.#file.deployment;
    if (!current) return null;
    return {
      deployment: current.assignment.deployment,
      state: current.state,
      ...(current.error ? { error: current.error } : {}),
      ...(this.#keeper.waiting ? { waiting: this.#keeper.waiting } : {}),
    };
  }
  /** In probation the version that runs is the candidate, and the one before it is still `active`. */
  get previous(): Installed | null {
    return this.#file.deployment?.state === "probation" ? this.#file.active : this.#file.previous;
  }

  /** Says where an earlier start stopped, and goes on from there. */
  async resume(): Promise<void> {
    await this.#keeper.clean();
    if (!this.#file.deployment) return;
    this.#report({ resumed: 1 });
    this.#work();
  }

  /** The desired state was accepted: follow this lane's assignment, the first where there are several. */
  async follow(assignments: readonly Assignment[], revision: number): Promise<void> {
    if (revision > this.#file.revisionFloor)
      await this.#keeper.tryKeep({ revisionFloor: revision }, "revision");
    this.#wanted = assignments[0] ?? null;
    if (this.#isUnwanted()) this.#abort.abort();
    this.#work();
  }

  /**
   * Back to the version before, which is installed. A deployment in hand ends with it; the desired state does not bring the version back
   * from which was returned, a new deployment may. That version is no target of a return itself.
   * @throws FieldloopError `conflict` where there is none before; why it does not load, with the present one still running
   */
  returnPrevious(): Promise<void> {
    const { deployment, previous } = this.#file;
    const target = deployment && isTaken(deployment.state) ? this.#file.active : previous;
    if (!target || this.#returning || this.#stopped) {
      const why = this.#returning ? "it is on its way already" : "there is no version before this one";
      return Promise.reject(new FieldloopError("conflict", `Return to the version before: ${why}`));
    }
    return new Promise((done, failed) => {
      this.#returning = { isDone: false, done, failed };
      this.#abort.abort(returned());
      this.#work();
    });
  }

  /** @param latencyMs of all of them together */
  notePredictions(packageSha256: string, count: number, latencyMs?: number): void {
    if (this.#inProbation(packageSha256)) this.#probation?.notePredictions(count, latencyMs);
  }
  noteFramesFailed(count: number): void {
    this.#probation?.noteFramesFailed(count);
  }
  noteHostCrash(): void {
    this.#probation?.noteHostCrash();
  }
  noteMemoryExceeded(): void {
    this.#probation?.noteMemoryExceeded();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    this.#abort.abort();
    const waitMs = this.#options.times?.activationStopMs ?? AGENT_LIMITS.activationStopMs;
    const timer = setTimeout(() => this.#lastCall.abort(), waitMs);
    await this.#working;
    clearTimeout(timer);
    this.#returning?.failed(new FieldloopError("cancelled", "Return to the version before: the agent stops"));
    this.#returning = undefined;
  }

  get #file(): DeploymentFile {
    return this.#keeper.file;
  }
  get #stopped(): boolean {
    return this.#stop.signal.aborted;
  }

  #inProbation(packageSha256: string): boolean {
    const current = this.#file.deployment;
    return current?.state === "probation" && current.assignment.packageSha256 === packageSha256;
  }

  /** The deployment in hand is not what the fleet wants any more. */
  #isUnwanted(): boolean {
    const current = this.#file.deployment;
    if (!current || isSettled(current.state) || this.#wanted === undefined) return false;
    return this.#wanted?.deployment !== current.assignment.deployment;
  }

  /** What is wanted and not in hand, nor was it before. */
  get #next(): Assignment | undefined {
    const wanted = this.#wanted;
    if (!wanted || wanted.deployment === this.#file.deployment?.assignment.deployment) return undefined;
    return wanted;
  }

  #work(): void {
    if (this.#stopped) return;
    this.#working ??= this.#run().finally(() => {
      this.#working = undefined;
      if (this.#next || this.#returning || this.#isUnwanted()) this.#work();
    });
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      try {
        const current = this.#file.deployment;
        if (current && !isSettled(current.state)) await this.#step(current.state);
        else if (this.#returning) await this.#return(this.#returning);
        else if (this.#next) await this.#offer(this.#next);
        else return;
      } catch (error) {
        if (this.#stopped) return;
        this.#options.log.error({ error }, "the updater met something unexpected and tries again");
        await sleep(this.#options.times?.updaterRetryMs ?? AGENT_LIMITS.updaterRetryMs, this.#stop.signal);
      }
    }
  }

  async #offer(assignment: Assignment): Promise<void> {
    // A package that is being removed must not be found half gone.
    await this.#keeper.cleaner.idle();
    const deployment = { assignment, attempts: 0, ready: false };
    await this.#keeper.keep({ deployment: { ...deployment, state: "offered" } }, "state:offered");
    this.#report({});
  }

  /** One state's work, and the transition that ends it. */
  async #step(state: DeploymentState): Promise<void> {
    const abort = new AbortController();
    this.#abort = abort;
    const assignment = this.#assignment;
    const { clock } = this.#options;
    const workMs = stateTimeoutMs(state, assignment);
    const timer = new StepTimer(clock, state, abort, { workMs, waitMaxMs: AGENT_LIMITS.waitTimeoutMs });
    let end: StepEnd;
    try {
      if (this.#stopped) return;
      if (this.#returning) throw returned();
      if (this.#isUnwanted()) throw cancelled(abort.signal);
      end = await this.#steps.run(state, this.#context(assignment, abort.signal, timer));
    } catch (error) {
      // A stop is no verdict: the next start goes on from the state on disk.
      if (this.#stopped) return;
      // A step that was interrupted fails in its own way (a killed process, a closed socket): the interruption is the reason.
      const { signal } = abort;
      await this.#end(state, signal.aborted ? cancelled(signal) : toFieldloopError(error));
      return;
    } finally {
      timer.stop();
      this.#keeper.setWaiting(undefined);
    }
    await this.#to(end);
  }

  /** As it is on disk, with the terms of today: the fleet may have moved its window meanwhile. */
  get #assignment(): Assignment {
    const stored = this.#file.deployment!.assignment;
    const wanted = this.#wanted;
    const isSame = wanted?.deployment === stored.deployment && wanted.packageSha256 === stored.packageSha256;
    if (!isSame) return stored;
    const { window, expires, shadow, probation } = wanted;
    return { ...stored, window, expires, shadow, probation };
  }

  #context(assignment: Assignment, signal: AbortSignal, timer: StepTimer): StepContext {
    return {
      assignment,
      file: this.#file,
      signal,
      lastCall: this.#lastCall.signal,
      waiting: (waiting) => {
        // A server that does not answer takes the state's own time: its tries are counted.
        timer.waits(waiting !== undefined && waiting.reason !== "server");
        this.#keeper.setWaiting(waiting);
      },
      allow: (workMs) => timer.allow(workMs),
      ready: async () => {
        await this.#keeper.tryKeep({ deployment: { ...this.#file.deployment!, ready: true } }, "ready");
      },
      makeRoom: (bytesMissing) => this.#makeRoom(bytesMissing),
      onProbation: (probation) => {
        this.#probation = probation;
      },
    };
  }

  async #makeRoom(bytesMissing: number): Promise<boolean> {
    const { previous } = this.#file;
    if (!previous || (await this.#options.packages.bytesOf(previous.packageSha256)) < bytesMissing)
      return false;
    this.#options.log.warn({ package: `${previous.model}@${previous.version}` }, "removed to make room");
    await this.#keeper.keep({ previous: null }, "returned");
    await this.#keeper.clean();
    return true;
  }

  async #to({ next, measured = {}, also = {} }: StepEnd): Promise<void> {
    const current = this.#file.deployment!;
    if (!canTransition(DEPLOYMENT, current.state, next)) {
      throw new FieldloopError("internal", `Deployment: "${next}" may not follow "${current.state}"`);
    }
    const attempts = next === "active" ? current.attempts : 0;
    const change = { ...also, deployment: { ...current, state: next, attempts, ready: false } };
    // A disk that takes nothing must not keep somebody from ending what is in hand.
    const isMoot = (): boolean => this.#returning !== undefined || this.#isUnwanted();
    if (!(await this.#keeper.keep(change, `state:${next}`, isMoot))) return;
    if (next === "active") this.#keeper.lost = false;
    this.#report(measured);
    if (isSettled(next)) await this.#keeper.clean();
  }

  /** A step failed: which final state that is, and what runs then. */
  async #end(state: DeploymentState, error: FieldloopError): Promise<void> {
    const change = this.#ended(state, error);
    const final = change.deployment!.state;
    this.#options.log.warn({ code: error.code, state, final }, error.message);
    // Where the disk takes nothing, what runs goes back all the same, and what is on disk follows.
    const kept = await this.#keeper.tryKeep(change, `state:${final}`);
    const measured = isTaken(state) ? await this.#runActive() : {};
    if (this.#returning && isTaken(state)) this.#returning.isDone = true;
    this.#report(measured);
    if (!kept) await this.#keeper.keep(change, `state:${final}`, () => this.#returning !== undefined);
    await this.#keeper.clean();
  }

  #ended(state: DeploymentState, error: FieldloopError): Partial<DeploymentFile> {
    const { code, message } = withoutInternal(error, state);
    const wireError: WireError = { code, message: message.slice(0, 2_000) };
    const current = this.#file.deployment!;
    return { deployment: { ...current, state: finalState(state, error), error: wireError, ready: false } };
  }

  /** The version that is committed, which is still installed, in place of a candidate. */
  async #runActive(): Promise<Measured> {
    const { active } = this.#file;
    try {
      const target = active ? this.#options.packages.toRun(active.packageSha256) : undefined;
      const activation = await this.#options.activate(target, this.#lastCall.signal);
      return activation ? measuredOf(activation) : {};
    } catch (error) {
      // The host is down: it loads the version of the file when it is started again.
      const text = toFieldloopError(error).message;
      this.#options.log.warn({ error: text }, "the host takes the old version at its restart");
      return {};
    }
  }

  /** No deployment is in hand any more. */
  async #return(returning: Returning): Promise<void> {
    this.#returning = undefined;
    try {
      if (!returning.isDone) await this.#swapBack();
      returning.done();
    } catch (error) {
      returning.failed(toFieldloopError(error));
    }
  }

  async #swapBack(): Promise<void> {
    const { previous, deployment: current } = this.#file;
    if (!previous) throw new FieldloopError("conflict", "Return to the version before: it is gone");
    const { activate, packages } = this.#options;
    const activation = await activate(packages.toRun(previous.packageSha256), this.#lastCall.signal);
    const { code, message } = returned();
    const left = current?.state === "active" ? { ...current, state: "rolled_back" as const } : current;
    const deployment = left && { ...left, error: { code, message } };
    await this.#keeper.keep({ active: previous, previous: null, deployment }, "returned");
    if (deployment?.state === "rolled_back") this.#report(activation ? measuredOf(activation) : {});
    await this.#keeper.clean();
  }

  #report(measured: Measured): void {
    const current = this.#file.deployment!;
    const { deployment, model, version, packageSha256 } = current.assignment;
    const { state, error } = current;
    this.#options.log.info({ deployment, state, package: `${model}@${version}`, ...measured }, "deployment");
    const event = { deployment, model, version, packageSha256, state, ...(error ? { error } : {}), measured };
    this.#options.emit({ type: "deployment", ...event });
    this.#options.onChange();
  }

  #needs(packageSha256: string): boolean {
    const { active, previous, deployment } = this.#file;
    if (this.#keeper.lost) return true;
    if (active?.packageSha256 === packageSha256 || previous?.packageSha256 === packageSha256) return true;
    // What is about to be offered, and was begun under another deployment, is gone on with.
    if (this.#next?.packageSha256 === packageSha256) return true;
    if (!deployment || isSettled(deployment.state)) return false;
    return deployment.assignment.packageSha256 === packageSha256;
  }
}

function returned(): FieldloopError {
  return new FieldloopError(
    "returned_locally",
    "Deployment: somebody had the device return to the version before",
  );
}
