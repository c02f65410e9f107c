import { FieldloopError, type EventData, toFieldloopError } from "@fieldloop/protocol";
import type { PackageToRun } from "../../ipc.js";
import type { ShadowDelta, ShadowTerms } from "../../ipc-shadow.js";
import { AGENT_LIMITS } from "../../limits.js";
import { sleep } from "../deployment-rules.js";
import { judgeShadow } from "./judge.js";
import { ShadowSession, type ShadowSessionOptions } from "./session.js";
import { type ShadowPair, ShadowTotals } from "./totals.js";

/** The active version of a lane. */
export interface ActiveVersion {
  readonly version: number;
  readonly packageSha256: string;
}

export interface ShadowTrialOptions
  extends Omit<ShadowSessionOptions, "against" | "cpuShareMax" | "candidate"> {
  readonly candidate: PackageToRun;
  readonly terms: ShadowTerms;
  /** What the lane runs right now; undefined between two hosts, and before its first version. */
  readonly running: () => ActiveVersion | undefined;
  /** What the lane is to run; undefined before its first version. */
  readonly active: PackageToRun | undefined;
  /** Threads that the active version runs with. */
  readonly activeThreads: number;
  readonly cores: number;
  readonly emit: (event: EventData) => void;
  /** Those of the limits by default. */
  readonly times?: { readonly pollMs: number; readonly intervalMs: number };
}

export interface ShadowOutcome {
  /**
   * `passed`: seen enough, and nothing against it. `nothing_to_compare`: the lane runs nothing yet, or the very package. `not_comparable`: the
   * candidate wants to be given something else than the source gives to the active version.
   */
  readonly ended: "passed" | "nothing_to_compare" | "not_comparable";
  /** Predictions of the active version; those that both answered, that the candidate was not asked, that it could not answer. */
  readonly frames: number;
  readonly compared: number;
  readonly skipped: number;
  readonly failed: number;
  /** Of those compared: the decision was another. */
  readonly disagreements: number;
  /** Over those compared; 0 where there is none. */
  readonly candidateMeanMs: number;
  readonly activeMeanMs: number;
  /** Of all cores' time, 0..1. */
  readonly cpuShare: number;
}

/** A candidate beside the active version of one lane, from its begin to its end: over ends of the host, which are not its fault. */
export class ShadowTrial {
  readonly #options: ShadowTrialOptions;
  readonly #totals = new ShadowTotals();
  readonly #from: number;
  readonly #startedAt: number;
  #pair: ShadowPair | undefined;
  #hostEnded = false;
  #toldAt = Number.NEGATIVE_INFINITY;

  constructor(options: ShadowTrialOptions) {
    this.#options = options;
    this.#from = options.clock.now();
    this.#startedAt = options.clock.monotonic();
  }

  get deployment(): string {
    return this.#options.deployment;
  }

  received(delta: ShadowDelta): void {
    this.#totals.add(delta);
  }

  /** The host that showed the candidate its frames is gone: with the next one it begins anew. */
  hostEnded(): void {
    this.#hostEnded = true;
  }

  /** @throws FieldloopError `shadow_failed`, `timed_out`, `cancelled` once `signal` aborts */
  async run(signal: AbortSignal): Promise<ShadowOutcome> {
    const { active, candidate } = this.#options;
    if (!active || active.packageSha256 === candidate.packageSha256) {
      return this.#outcome("nothing_to_compare");
    }
    try {
      for (let start = 0; start < AGENT_LIMITS.shadowStartsMax; start++) {
        const ended = await this.#session(active, signal);
        if (ended !== "host_ended") return this.#outcome(ended);
        this.#check(signal);
      }
      throw failed(`the host ended ${AGENT_LIMITS.shadowStartsMax} times meanwhile`);
    } finally {
      this.#tell();
    }
  }

  async #session(
    against: PackageToRun,
    signal: AbortSignal,
  ): Promise<"passed" | "not_comparable" | "host_ended"> {
    this.#hostEnded = false;
    const { cpuShareMax } = this.#options.terms;
    const session = await ShadowSession.open({ ...this.#options, against, cpuShareMax }, signal);
    let isShown = false;
    try {
      if (!session.opened.fits) return "not_comparable";
      const running = await this.#untilRunning(against, session, signal);
      this.#pair = pairOf(this.#options.deployment, session, running);
      try {
        await session.begin(signal);
        isShown = true;
      } catch (error) {
        this.#check(signal);
        this.#options.log.debug(
          { error: toFieldloopError(error).message },
          "no host shows the candidate frames",
        );
        await sleep(AGENT_LIMITS.hostRestartMinMs, signal);
        return "host_ended";
      }
      return await this.#watch(against, session, signal);
    } finally {
      await session.end(isShown && !this.#hostEnded);
    }
  }

  /** A host that is started anew needs its time until the lane runs again. */
  async #untilRunning(
    against: PackageToRun,
    session: ShadowSession,
    signal: AbortSignal,
  ): Promise<ActiveVersion> {
    for (;;) {
      this.#check(signal, session);
      const running = this.#options.running();
      if (running) return this.#sameAs(against, running);
      await sleep(this.#pollMs, signal);
    }
  }

  async #watch(
    against: PackageToRun,
    session: ShadowSession,
    signal: AbortSignal,
  ): Promise<"passed" | "host_ended"> {
    for (;;) {
      await sleep(this.#pollMs, signal);
      // A host that ended has closed the socket and the candidate's process is well: first things first.
      if (this.#hostEnded) return "host_ended";
      const isOver = this.#check(signal, session);
      const running = this.#options.running();
      if (running) this.#sameAs(against, running);
      if (isOver) return "passed";
      this.#tellInTime();
    }
  }

  /** True where it is over. @throws FieldloopError where it cannot go on */
  #check(signal: AbortSignal, session?: ShadowSession): boolean {
    if (signal.aborted) throw new FieldloopError("cancelled", "Shadow: nobody wants it any more");
    const trouble = session?.trouble();
    if (trouble) throw trouble;
    const { terms, activeThreads } = this.#options;
    return judgeShadow(terms, { elapsedMs: this.#elapsedMs, totals: this.#totals, activeThreads });
  }

  #sameAs(against: PackageToRun, running: ActiveVersion): ActiveVersion {
    if (running.packageSha256 === against.packageSha256) return running;
    throw failed(`the lane runs version ${running.version} meanwhile`);
  }

  get #pollMs(): number {
    return this.#options.times?.pollMs ?? AGENT_LIMITS.shadowPollMs;
  }
  get #elapsedMs(): number {
    return this.#options.clock.monotonic() - this.#startedAt;
  }
  get #cpuShare(): number {
    return this.#totals.cpuShare(this.#elapsedMs, this.#options.cores);
  }

  /** The longer it goes on, the less often: nobody waits for its numbers of today when it ends next week. */
  #tellInTime(): void {
    const { shadowIntervalMs, shadowIntervalMaxMs, shadowIntervalShare } = AGENT_LIMITS;
    const intervalMs = this.#options.times?.intervalMs ?? shadowIntervalMs;
    const grown = Math.min(shadowIntervalMaxMs, Math.max(intervalMs, this.#elapsedMs * shadowIntervalShare));
    if (this.#options.clock.monotonic() - this.#toldAt >= grown) this.#tell();
  }

  #tell(): void {
    const { clock, emit } = this.#options;
    if (!this.#pair) return;
    this.#toldAt = clock.monotonic();
    const to = Math.max(this.#from, clock.now());
    emit(this.#totals.event(this.#pair, { from: this.#from, to, cpuShare: this.#cpuShare }));
  }

  #outcome(ended: ShadowOutcome["ended"]): ShadowOutcome {
    const { frames, compared, skipped, failed: failures, disagreements } = this.#totals;
    const { candidateMeanMs, activeMeanMs } = this.#totals;
    const counts = { frames, compared, skipped, failed: failures, disagreements };
    return { ended, ...counts, candidateMeanMs, activeMeanMs, cpuShare: this.#cpuShare };
  }
}

function pairOf(deployment: string, { opened }: ShadowSession, running: ActiveVersion): ShadowPair {
  const { model, version, packageSha256 } = opened.origin;
  const against = { version: running.version, packageSha256: running.packageSha256 };
  return { deployment, model, version, packageSha256, against };
}

function failed(what: string): FieldloopError {
  return new FieldloopError("shadow_failed", `Shadow: ${what}`);
}
