import {
  budgetOf,
  FieldloopError,
  MAIN_LANE,
  manifestFiles,
  requireCompatible,
  toFieldloopError,
  windowState,
  type Assignment,
  type DeploymentState,
  type DeploymentWaiting,
} from "@fieldloop/protocol";
import type { SelfTest } from "../ipc.js";
import { AGENT_LIMITS } from "../limits.js";
import type { DeploymentFile } from "./deployment-file.js";
import { DeltaFetch } from "./delta-fetch.js";
import { downloadTimeMs, installedOf, type Measured, measuredOf, sleep } from "./deployment-rules.js";
import { cancelled } from "./download.js";
import type { PackageCleaner } from "./package-cleaner.js";
import { PackageFetch } from "./package-fetch.js";
import { requireSamePackage, trustRetries, type TrustedPackage } from "./package-trust.js";
import { Probation } from "./probation.js";
import type { ShadowOutcome, UpdaterOptions } from "./updater-options.js";

/** What a step may ask of the one who walks from state to state. */
export interface StepContext {
  readonly assignment: Assignment;
  readonly file: DeploymentFile;
  readonly signal: AbortSignal;
  /** Ends what {@link signal} does not: the agent has waited for it long enough, and stops. */
  readonly lastCall: AbortSignal;
  /** Says what is waited for, undefined: nothing any more. The state's time stands still meanwhile. */
  readonly waiting: (waiting: DeploymentWaiting | undefined) => void;
  /** The work turned out to be longer than the state usually takes. */
  readonly allow: (workMs: number) => void;
  /** Notes on disk that this state's work is done, and only its window is waited for. */
  readonly ready: () => Promise<void>;
  /** Gives up the version before the active one, where the disk has room enough then. False where it does not help. */
  readonly makeRoom: (bytesMissing: number) => Promise<boolean>;
  readonly onProbation: (probation: Probation | undefined) => void;
}

/** How a state's work ended well. */
export interface StepEnd {
  readonly next: DeploymentState;
  readonly measured?: Measured;
  /** What else changes on disk with the state. */
  readonly also?: Partial<DeploymentFile>;
}

/** The work of each state of a deployment. None of them changes what is on disk about it: that is the updater's, when a step has ended. */
export class DeploymentSteps {
  readonly #options: UpdaterOptions;
  readonly #cleaner: PackageCleaner;

  constructor(options: UpdaterOptions, cleaner: PackageCleaner) {
    this.#options = options;
    this.#cleaner = cleaner;
  }

  /** @throws FieldloopError why the deployment ends here */
  async run(state: DeploymentState, context: StepContext): Promise<StepEnd> {
    switch (state) {
      case "offered":
        return this.#offered(context);
      case "downloading":
        return this.#downloading(context);
      case "verifying":
        return this.#verifying(context);
      case "installed":
        return this.#installed(context);
      case "self_testing":
        return this.#selfTesting(context);
      case "shadowing":
        return this.#shadowing(context);
      case "activating":
        return this.#activating(context);
      case "probation":
        return this.#probation(context);
      case "active":
      case "rejected":
      case "failed":
      case "timed_out":
      case "rolled_back":
      case "cancelled":
        throw new FieldloopError("internal", `Deployment: no step in "${state}"`);
    }
  }

  async #offered(context: StepContext): Promise<StepEnd> {
    const { assignment } = context;
    if (this.#runsAlready(context)) {
      return { next: "active", measured: { alreadyRunning: 1 }, also: { active: installedOf(assignment) } };
    }
    this.#refuseExpired(assignment);
    const trusted = await this.#trusted(context);
    const { packages, facts, lane = MAIN_LANE, laneModel = null } = this.#options;
    const fetch = this.#fetch(context);
    await this.#inTurn(context, async () => {
      const manifest = await fetch.manifest();
      const { deviceClasses } = trusted;
      requireCompatible(manifest, facts, { deviceClasses, lane: { name: lane, model: laneModel } });
      if (await packages.isInstalled(assignment.packageSha256)) return;
      await this.#requireSpace(context, () => fetch.requireSpace(manifest));
    });
    // The manifest's: each transition tells what its own step took.
    return { next: "downloading", measured: { bytesDownloaded: fetch.bytesDownloaded } };
  }

  /** The host's own word for the session that answers at this moment, about the version that was committed. */
  #runsAlready({ assignment, file }: StepContext): boolean {
    const { packageSha256 } = assignment;
    return (
      file.active?.packageSha256 === packageSha256 && this.#options.running()?.packageSha256 === packageSha256
    );
  }

  async #requireSpace(context: StepContext, require: () => Promise<void>): Promise<void> {
    try {
      await require();
    } catch (error) {
      const missing = error instanceof FieldloopError ? error.detail?.["bytesMissing"] : undefined;
      if (typeof missing !== "number" || !(await context.makeRoom(missing))) throw error;
      await require();
    }
  }

  async #downloading(context: StepContext): Promise<StepEnd> {
    const begin = this.#options.clock.monotonic();
    const fetched = await this.#inTurn(context, async () => {
      const fetch = this.#fetch(context);
      const files = manifestFiles(await fetch.manifest(), "running");
      context.allow(downloadTimeMs(files.reduce((sum, { bytes }) => sum + bytes, 0)));
      return fetch.files();
    });
    const downloadMs = Math.round(this.#options.clock.monotonic() - begin);
    return { next: "verifying", measured: { ...fetched, downloadMs } };
  }

  async #verifying(context: StepContext): Promise<StepEnd> {
    const { assignment } = context;
    // What was trusted when it was offered may have been withdrawn since.
    await this.#trusted(context);
    const { packages } = this.#options;
    await this.#inTurn(context, async () => {
      // A power cut in the midst of its move may have left the package in neither place.
      if (await packages.isGone(assignment.packageSha256)) await this.#fetch(context).files();
      await packages.verify(assignment);
      await packages.install(assignment.packageSha256);
    });
    return { next: "installed" };
  }

  async #installed(context: StepContext): Promise<StepEnd> {
    this.#refuseExpired(context.assignment);
    // A shadow run wants the frames of an ordinary day, and serves nothing: it waits afterwards.
    if (!this.#willShadow(context)) await this.#window(context);
    return { next: "self_testing" };
  }

  async #selfTesting(context: StepContext): Promise<StepEnd> {
    const { assignment, file } = context;
    let measured: Measured = {};
    if (!file.deployment?.ready) {
      const candidate = this.#options.packages.toRun(assignment.packageSha256);
      const result = await this.#options.selfTest(candidate, context.signal);
      await this.#requireBudget(assignment, result);
      measured = measuredSelfTest(result);
    }
    if (this.#willShadow(context)) return { next: "shadowing", measured };
    await this.#windowAfterWork(context);
    return { next: "activating", measured };
  }

  /** @throws FieldloopError `self_test_failed` where the package costs more than its maker says */
  async #requireBudget(assignment: Assignment, result: SelfTest): Promise<void> {
    const manifest = await this.#options.packages.manifestOf(assignment.packageSha256);
    const variant = manifest?.variants.find(({ name }) => name === result.variant);
    if (!variant) return;
    const { latencyMsMax, memoryBytesMax } = budgetOf(variant, this.#options.facts.deviceClass);
    const { runMs, memoryBytes, executionProvider } = result;
    const where = `variant "${variant.name}" on "${executionProvider}"`;
    if (latencyMsMax !== undefined && runMs !== undefined && runMs > latencyMsMax) {
      const text = `Self test: ${where} takes ${runMs.toFixed(2)} ms for a run, at most ${latencyMsMax} ms are allowed`;
      throw new FieldloopError("self_test_failed", text);
    }
    if (memoryBytesMax !== undefined && memoryBytes !== undefined && memoryBytes > memoryBytesMax) {
      const text = `Self test: ${where} takes ${memoryBytes} bytes of memory, at most ${memoryBytesMax} are allowed`;
      throw new FieldloopError("self_test_failed", text);
    }
  }

  /** Beside nothing there is nothing to compare with. */
  #willShadow({ assignment, file }: StepContext): boolean {
    return assignment.shadow !== null && this.#options.shadow !== undefined && file.active !== null;
  }

  async #shadowing(context: StepContext): Promise<StepEnd> {
    const { assignment, file, signal } = context;
    const { shadow, packages } = this.#options;
    const { deployment, shadow: terms } = assignment;
    let measured: Measured = {};
    if (!file.deployment?.ready && terms && shadow) {
      const candidate = packages.toRun(assignment.packageSha256);
      measured = measuredShadow(await shadow({ deployment, candidate, terms }, signal));
    }
    await this.#windowAfterWork(context);
    return { next: "activating", measured };
  }

  async #activating({ assignment, lastCall }: StepContext): Promise<StepEnd> {
    const { activate, packages } = this.#options;
    const activation = await activate(packages.toRun(assignment.packageSha256), lastCall);
    return { next: "probation", measured: activation ? measuredOf(activation) : {} };
  }

  async #probation(context: StepContext): Promise<StepEnd> {
    const { assignment, file, signal, onProbation } = context;
    const { packageSha256 } = assignment;
    const { clock, packages, running, facts, pollMs = 200 } = this.#options;
    const manifest = await packages.manifestOf(packageSha256);
    const probation = new Probation(clock, assignment.probation);
    onProbation(probation);
    try {
      for (;;) {
        const now = running();
        const runs = now?.packageSha256 === packageSha256;
        const variant = runs ? manifest?.variants.find(({ name }) => name === now.variant) : undefined;
        const latencyMsMax = variant && budgetOf(variant, facts.deviceClass).latencyMsMax;
        // Committed is what the host says that it runs, nothing else.
        if (probation.passed({ runs, latencyMsMax })) break;
        await sleep(pollMs, signal);
        if (signal.aborted) throw cancelled(signal);
      }
    } finally {
      onProbation(undefined);
    }
    const active = installedOf(assignment);
    const before = file.active;
    const previous = before && before.packageSha256 !== active.packageSha256 ? before : file.previous;
    return { next: "active", measured: probation.measured, also: { active, previous } };
  }

  #fetch({ assignment, file, signal, waiting }: StepContext): PackageFetch {
    const { packages, server, credential, fetch, clock, random, bandwidth, times } = this.#options;
    const onWaiting = waiting;
    const terms = times?.download;
    const link = { server, credential, fetch, deltas: this.#deltas(file), clock, random, bandwidth };
    return new PackageFetch(packages, assignment, { ...link, signal, onWaiting, terms });
  }

  /** What the lane runs is what a new version most often came from. */
  #deltas({ active, previous }: DeploymentFile): DeltaFetch | undefined {
    const { packages, rebuild, log, times } = this.#options;
    const preferred = [active, previous].flatMap((installed) => installed?.packageSha256 ?? []);
    return rebuild && new DeltaFetch({ store: packages, rebuild, preferred, log, terms: times?.delta });
  }

  /** Two lanes that want the same package bring it in one after the other; who gives up need not wait for the other. */
  #inTurn<Result>({ assignment, signal }: StepContext, work: () => Promise<Result>): Promise<Result> {
    return this.#cleaner.inTurn(assignment.packageSha256, work, signal);
  }

  /** Waits while the trust cannot say: the version that runs keeps running. @throws FieldloopError where it says no */
  async #trusted(context: StepContext): Promise<TrustedPackage> {
    const { assignment, signal, waiting } = context;
    const { trust, clock, random, times } = this.#options;
    let waitMs = times?.trustRetryMinMs ?? AGENT_LIMITS.trustRetryMinMs;
    for (let tries = 1; ; tries++) {
      try {
        const trusted = await trust.package(assignment, signal);
        requireSamePackage(assignment, trusted);
        return trusted;
      } catch (error) {
        if (signal.aborted) throw cancelled(signal);
        const coded = toFieldloopError(error);
        const retries = trustRetries(coded);
        const isLast = retries === "some" && tries >= AGENT_LIMITS.trustUnknownTriesMax;
        if (retries === "never" || isLast) throw coded;
        this.#refuseExpired(assignment);
        const ms = waitMs * (0.5 + 0.5 * random());
        waiting({ reason: "trust", until: Math.round(clock.now() + ms), code: coded.code });
        await sleep(ms, signal);
        waiting(undefined);
        if (signal.aborted) throw cancelled(signal);
        waitMs = Math.min(waitMs * 2, AGENT_LIMITS.trustRetryMaxMs);
      }
    }
  }

  /** After work that must not be done again for a window that is not open yet. */
  async #windowAfterWork(context: StepContext): Promise<void> {
    const { assignment, file } = context;
    if (assignment.window && !this.#isOpen(assignment) && !file.deployment?.ready) await context.ready();
    await this.#window(context);
  }

  /** Waits until the maintenance window is open. @throws FieldloopError `timed_out` where the offer expires before */
  async #window(context: StepContext): Promise<void> {
    const { assignment, signal, waiting } = context;
    const { window } = assignment;
    const { clock, times } = this.#options;
    const pollMs = times?.windowPollMs ?? AGENT_LIMITS.windowPollMs;
    while (window) {
      const state = windowState(window, clock.now(), this.#timeZone());
      if (state.open) break;
      this.#refuseExpired(assignment);
      waiting({ reason: "window", until: state.opensAt });
      await sleep(Math.min(pollMs, Math.max(1, state.opensAt - clock.now())), signal);
      if (signal.aborted) throw cancelled(signal);
    }
    waiting(undefined);
  }

  #isOpen({ window }: Assignment): boolean {
    return window === null || windowState(window, this.#options.clock.now(), this.#timeZone()).open;
  }

  #timeZone(): string {
    return this.#options.timeZone?.() ?? Intl.DateTimeFormat().resolvedOptions().timeZone;
  }

  #refuseExpired({ expires }: Assignment): void {
    if (expires === null || this.#options.clock.now() <= expires) return;
    const text = `Deployment: the offer was good until ${new Date(expires).toISOString()}`;
    throw new FieldloopError("timed_out", text);
  }
}

function measuredSelfTest(result: SelfTest): Measured {
  const { goldenCases, differenceMax, loadMs, runMs, memoryBytes } = result;
  return {
    goldenCases,
    differenceMax,
    selfTestLoadMs: loadMs,
    ...(runMs === undefined ? {} : { selfTestRunMs: runMs }),
    ...(memoryBytes === undefined ? {} : { selfTestMemoryBytes: memoryBytes }),
  };
}

function measuredShadow(outcome: ShadowOutcome): Measured {
  const { frames, compared, disagreements, skipped, candidateMeanMs, activeMeanMs } = outcome;
  return {
    shadowFrames: frames,
    shadowCompared: compared,
    shadowDisagreements: disagreements,
    shadowSkipped: skipped,
    shadowCandidateMeanMs: candidateMeanMs,
    shadowActiveMeanMs: activeMeanMs,
  };
}
