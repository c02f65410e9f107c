import {
  canTransition,
  DEPLOYMENT,
  FieldloopError,
  MAIN_LANE,
  toFieldloopError,
  type Assignment,
  type DeploymentState,
  type DeviceState,
} from "@fieldloop/protocol";
import type { PackageToRun } from "../ipc.js";
import { AGENT_LIMITS } from "../limits.js";
import {
  type DeploymentFile,
  type Installed,
  loadDeploymentFile,
  saveDeploymentFile,
} from "./deployment-file.js";
import {
  finalState,
  installedOf,
  isSettled,
  type Measured,
  measuredOf,
  sleep,
  STATE_TIMEOUT_MS,
  withoutInternal,
} from "./deployment-rules.js";
import { cancelled } from "./download.js";
import { deploymentPath } from "./lane-files.js";
import { PackageCleaner } from "./package-cleaner.js";
import { verifyStatement } from "./package-store.js";
import { Probation } from "./probation.js";
import type { UpdaterOptions } from "./updater-options.js";

/**
 * Walks a deployment through the states of {@link DEPLOYMENT}: each is on disk before its step begins, and told as an event.
 * Until `probation` the old version is the one that a start runs, from then on the new one, from `rolled_back` on the old
 * one again: a power cut at any byte ends on a whole old or a whole new version.
 */
export class Updater {
  readonly #options: UpdaterOptions;
  readonly #path: string;
  readonly #cleaner: PackageCleaner;
  #file!: DeploymentFile;
  #saving: Promise<void> = Promise.resolve();
  #assignment: Assignment | undefined;
  #waiting: Assignment | undefined;
  #abort = new AbortController();
  #working: Promise<void> | undefined;
  #stopped = false;
  #probation: Probation | undefined;

  constructor(options: UpdaterOptions) {
    this.#options = options;
    this.#path = deploymentPath(options.directory, options.lane ?? MAIN_LANE);
    this.#cleaner = options.cleaner ?? new PackageCleaner(options.packages);
  }

  /** Reads where an earlier start stopped. Packages that no lane needs go with {@link resume}: then every lane has said what it needs. */
  async load(): Promise<void> {
    this.#file = await loadDeploymentFile(this.#path, this.#options.onCorrupt);
    this.#cleaner.register((packageSha256) => this.#needs(packageSha256));
    const stored = this.#file.deployment?.assignment;
    if (stored) {
      this.#assignment = { ...stored, statement: Uint8Array.from(Buffer.from(stored.statement, "base64")) };
    }
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
    };
  }
  /** In probation the version that runs is the candidate, and the one before it is still `active`. */
  get previous(): Installed | null {
    return this.#file.deployment?.state === "probation" ? this.#file.active : this.#file.previous;
  }

  /** Says where an earlier start stopped, and goes on from there. */
  async resume(): Promise<void> {
    await this.#cleaner.clean();
    const current = this.#file.deployment;
    if (!current) return;
    if (current.state === "activating" || current.state === "probation") {
      await this.#save({ deployment: { ...current, attempts: current.attempts + 1 } });
    }
    this.#report({ resumed: 1 });
    this.#work();
  }

  /** The desired state was accepted: follow this lane's assignment, the first where there are several. */
  async follow(assignments: readonly Assignment[], revision: number): Promise<void> {
    if (revision > this.#file.revisionFloor) await this.#save({ revisionFloor: revision });
    const target = assignments[0];
    const current = this.#file.deployment;
    if (target === undefined) {
      this.#waiting = undefined;
      if (current && !isSettled(current.state)) this.#abort.abort();
      return;
    }
    if (current?.assignment.deployment === target.deployment) {
      this.#waiting = undefined;
      return;
    }
    this.#waiting = target;
    if (current && !isSettled(current.state)) this.#abort.abort();
    this.#work();
  }

  notePredictions(packageSha256: string, count: number): void {
    if (this.#inProbation(packageSha256)) this.#probation?.notePredictions(count);
  }
  noteFramesFailed(count: number): void {
    this.#probation?.noteFramesFailed(count);
  }
  noteHostCrash(): void {
    this.#probation?.noteHostCrash();
  }

  #inProbation(packageSha256: string): boolean {
    const current = this.#file.deployment;
    return current?.state === "probation" && current.assignment.packageSha256 === packageSha256;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#abort.abort();
    await this.#working;
  }

  #work(): void {
    this.#working ??= this.#run()
      .catch((error: unknown) => {
        this.#options.log.error({ error }, "updater stopped by an unexpected error");
      })
      .finally(() => {
        this.#working = undefined;
        if (this.#waiting && !this.#stopped) this.#work();
      });
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      const current = this.#file.deployment;
      if (!current || isSettled(current.state)) {
        const next = this.#waiting;
        if (!next) return;
        this.#waiting = undefined;
        await this.#offer(next);
        continue;
      }
      this.#abort = new AbortController();
      if (this.#waiting) this.#abort.abort();
      await this.#step(current.state);
    }
  }

  async #offer(assignment: Assignment): Promise<void> {
    // A package that is being removed must not be found half gone.
    await this.#cleaner.idle();
    this.#assignment = assignment;
    const statement = Buffer.from(assignment.statement).toString("base64");
    await this.#save({
      deployment: { assignment: { ...assignment, statement }, state: "offered", attempts: 0 },
    });
    this.#report({});
  }

  /** One state's work, and the transition that ends it. */
  async #step(state: DeploymentState): Promise<void> {
    const timer = this.#startTimeout(state);
    try {
      if (this.#abort.signal.aborted) throw cancelled(this.#abort.signal);
      await this.#doStep(state);
    } catch (error) {
      // A stop is no verdict: the next start goes on from the state on disk.
      if (this.#stopped) return;
      // A step that was interrupted fails in its own way (a killed process, a closed socket): the interruption is the reason.
      const { signal } = this.#abort;
      await this.#end(state, signal.aborted ? cancelled(signal) : toFieldloopError(error));
    } finally {
      clearTimeout(timer);
    }
  }

  #startTimeout(state: DeploymentState): NodeJS.Timeout | undefined {
    const limitMs = STATE_TIMEOUT_MS[state];
    if (limitMs === undefined) return undefined;
    const abort = this.#abort;
    return setTimeout(
      () =>
        abort.abort(new FieldloopError("timed_out", `Deployment: "${state}" took more than ${limitMs} ms`)),
      limitMs,
    );
  }

  async #doStep(state: DeploymentState): Promise<void> {
    const assignment = this.#assignment!;
    switch (state) {
      case "offered":
        verifyStatement(assignment, this.#options.fleetKeys);
        return this.#to("downloading");
      case "downloading":
        return this.#to("verifying", await this.#download(assignment));
      case "verifying":
        verifyStatement(assignment, this.#options.fleetKeys);
        await this.#cleaner.inTurn(assignment.packageSha256, async () => {
          await this.#options.packages.verify(assignment);
          await this.#options.packages.install(assignment.packageSha256);
        });
        return this.#to("installed");
      case "installed":
        return this.#to("self_testing");
      case "self_testing":
        return this.#to("activating", await this.#selfTest(assignment));
      case "shadowing":
        return this.#to("activating");
      case "activating":
        return this.#activate(assignment);
      case "probation":
        return this.#watch(assignment);
      case "active":
      case "rejected":
      case "failed":
      case "timed_out":
      case "rolled_back":
      case "cancelled":
        throw new FieldloopError("internal", `Deployment: no step in "${state}"`);
    }
  }

  async #download(assignment: Assignment): Promise<Measured> {
    const begin = this.#options.clock.monotonic();
    const { server, credential, fetch, random } = this.#options;
    const { signal } = this.#abort;
    const fetched = await this.#cleaner.inTurn(assignment.packageSha256, () =>
      this.#options.packages.fetch(assignment, { server, credential, fetch, random, signal }),
    );
    return { ...fetched, downloadMs: Math.round(this.#options.clock.monotonic() - begin) };
  }

  async #selfTest(assignment: Assignment): Promise<Measured> {
    const candidate = this.#options.packages.toRun(assignment.packageSha256);
    const result = await this.#options.selfTest(candidate, this.#abort.signal);
    return {
      goldenCases: result.goldenCases,
      differenceMax: result.differenceMax,
      selfTestLoadMs: result.loadMs,
    };
  }

  async #activate(assignment: Assignment): Promise<void> {
    const current = this.#file.deployment!;
    if (current.attempts >= AGENT_LIMITS.activationAttemptsMax) {
      throw new FieldloopError(
        "host_crashed",
        `Activate: the agent stopped ${current.attempts} times while doing it`,
      );
    }
    const activation = await this.#options.activate(this.#options.packages.toRun(assignment.packageSha256));
    await this.#to("probation", activation ? measuredOf(activation) : {});
  }

  async #watch(assignment: Assignment): Promise<void> {
    const current = this.#file.deployment!;
    if (current.attempts >= AGENT_LIMITS.probationAttemptsMax) {
      throw new FieldloopError(
        "probation_failed",
        `Probation: the agent stopped ${current.attempts} times in it`,
      );
    }
    const probation = new Probation(this.#options.clock, assignment.probation);
    this.#probation = probation;
    try {
      while (!probation.passed()) {
        await sleep(this.#options.pollMs ?? 200, this.#abort.signal);
        if (this.#abort.signal.aborted) throw cancelled(this.#abort.signal);
      }
    } finally {
      this.#probation = undefined;
    }
    const active = installedOf(assignment);
    const before = this.#file.active;
    const previous = before && before.packageSha256 !== active.packageSha256 ? before : this.#file.previous;
    await this.#to("active", probation.measured, { active, previous });
    await this.#cleaner.clean();
  }

  /** A step failed: which final state that is, and what runs then. */
  async #end(state: DeploymentState, error: FieldloopError): Promise<void> {
    const coded = withoutInternal(error, state);
    const final = finalState(state, coded);
    const wireError = { code: coded.code, message: coded.message.slice(0, 2_000) };
    this.#options.log.warn({ code: coded.code, state, final }, coded.message);
    const current = this.#file.deployment!;
    await this.#save({ deployment: { ...current, state: final, error: wireError } });
    const measured = state === "probation" ? await this.#return() : {};
    this.#report(measured);
    if (final === "rejected") await this.#options.packages.discardStaged(current.assignment.packageSha256);
    await this.#cleaner.clean();
  }

  /** Back to the version before, which is still installed. */
  async #return(): Promise<Measured> {
    const { active } = this.#file;
    try {
      const target = active ? this.#options.packages.toRun(active.packageSha256) : undefined;
      const activation = await this.#options.activate(target);
      return activation ? measuredOf(activation) : {};
    } catch (error) {
      // The host is down: it loads the version of the file when it is started again.
      this.#options.log.warn(
        { error: toFieldloopError(error).message },
        "the host takes the old version at its restart",
      );
      return {};
    }
  }

  async #to(
    state: DeploymentState,
    measured: Measured = {},
    also: Partial<DeploymentFile> = {},
  ): Promise<void> {
    const current = this.#file.deployment!;
    if (!canTransition(DEPLOYMENT, current.state, state)) {
      throw new FieldloopError("internal", `Deployment: "${state}" may not follow "${current.state}"`);
    }
    const attempts = state === "active" ? current.attempts : 0;
    await this.#save({ ...also, deployment: { ...current, state, attempts } });
    this.#report(measured);
  }

  /** One after the other: a change made while another is being written (a new revision during a step) must not undo it. */
  #save(change: Partial<DeploymentFile>): Promise<void> {
    const saved = this.#saving.then(() => this.#write({ ...this.#file, ...change }));
    this.#saving = saved.catch(() => undefined);
    return saved;
  }

  async #write(file: DeploymentFile): Promise<void> {
    await saveDeploymentFile(this.#path, file);
    this.#file = file;
    if (file.deployment) this.#options.onPersisted?.(file.deployment.state);
    this.#options.onChange();
  }

  #report(measured: Measured): void {
    const current = this.#file.deployment!;
    const { deployment, model, version, packageSha256 } = current.assignment;
    const { state, error } = current;
    this.#options.log.info({ deployment, state, package: `${model}@${version}`, ...measured }, "deployment");
    this.#options.emit({
      type: "deployment",
      deployment,
      model,
      version,
      packageSha256,
      state,
      ...(error ? { error } : {}),
      measured,
    });
    this.#options.onChange();
  }

  #needs(packageSha256: string): boolean {
    const { active, previous, deployment } = this.#file;
    if (active?.packageSha256 === packageSha256 || previous?.packageSha256 === packageSha256) return true;
    if (!deployment || isSettled(deployment.state)) return false;
    return deployment.assignment.packageSha256 === packageSha256;
  }
}
