import { setTimeout as sleep } from "node:timers/promises";
import { type LaneState, toFieldloopError } from "@fieldloop/protocol";
import type { Logger } from "pino";
import type { Clock } from "../clock.js";
import type { PackageToRun, ProviderToRun } from "../ipc.js";
import { AGENT_LIMITS } from "../limits.js";
import { isSettled } from "./deployment-rules.js";
import { PROVIDER_SHOWN_MAX } from "./host-link-options.js";
import type { HostLink } from "./host-link.js";
import type { ProviderPlans } from "./provider-plans.js";
import type { Updater } from "./updater.js";

export interface ProviderRenewalOptions {
  readonly host: Pick<HostLink, "states" | "selfTest" | "restart" | "returnToBest">;
  readonly providers: Pick<ProviderPlans, "isOutdated" | "lacksServer" | "planFor">;
  readonly updater: (lane: string) => Pick<Updater, "toRun" | "deployment">;
  readonly clock: Clock;
  readonly log: Logger;
  /** Of the limits by default. */
  readonly pollMs?: number;
}

/** A lane that runs what it should, and what that is best run on. */
interface Place {
  readonly lane: string;
  readonly target: PackageToRun;
  readonly running: NonNullable<LaneState["running"]>;
  /** Undefined where there was nothing to choose from. */
  readonly best: ProviderToRun | undefined;
}

/**
 * Looks anew for what the versions that run already are best run on, where that was found out under another `--provider` or on another
 * machine: another driver, another library, another number of threads. Until it is known they run on; where it is something else, the host
 * is started anew with it, once. Deployments go first.
 *
 * From then on it takes lanes back to the best provider that they left when it failed, or that was not there yet: a server on the board
 * that was started again, or after the agent. Each look waits twice as long as the one before; after a long calm they begin anew.
 */
export class ProviderRenewal {
  readonly #options: ProviderRenewalOptions;
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();

  constructor(options: ProviderRenewalOptions) {
    this.#options = options;
  }

  start(): void {
    this.#running = this.#work().catch((error: unknown) => {
      if (this.#stop.signal.aborted) return;
      const { code, message } = toFieldloopError(error);
      this.#options.log.warn({ code }, `looking anew for what runs on what ended: ${message}`);
    });
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  /** Ends when `stop` is called: then it rejects. */
  async #work(): Promise<void> {
    if (this.#outdated().length > 0) await this.#renew();
    await this.#watch();
  }

  /** Ends when all is known, or `stop` is called: then it rejects. */
  async #renew(): Promise<void> {
    const { host, log } = this.#options;
    const tried = new Set<string>();
    for (;;) {
      await this.#untilSettled();
      const target = this.#outdated().find(({ packageSha256 }) => !tried.has(packageSha256));
      if (!target) break;
      const { packageSha256 } = target;
      tried.add(packageSha256);
      log.info({ package: packageSha256.slice(0, 16) }, "looking anew for what it runs on");
      await this.#try(() => host.selfTest(target, this.#stop.signal));
    }
    if (this.#places().some((place) => this.#isElsewhere(place) || this.#isOtherVariant(place)))
      await host.restart();
  }

  async #watch(): Promise<void> {
    const { providerReturnMinMs, providerReturnMaxMs } = AGENT_LIMITS;
    const { clock } = this.#options;
    let waitMs: number = providerReturnMinMs;
    let tried = Number.NEGATIVE_INFINITY;
    for (;;) {
      await sleep(waitMs, undefined, { signal: this.#stop.signal, ref: false });
      const isCalm = clock.monotonic() - tried > 2 * providerReturnMaxMs;
      if (isCalm) waitMs = providerReturnMinMs;
      if (!(await this.#look())) continue;
      tried = clock.monotonic();
      waitMs = Math.min(2 * waitMs, providerReturnMaxMs);
    }
  }

  /** True where there was something to try. */
  async #look(): Promise<boolean> {
    const { host, providers } = this.#options;
    const waiting = this.#places().filter(({ target }) => providers.lacksServer(target.packageSha256));
    const looked = new Map(waiting.map(({ target }) => [target.packageSha256, target]));
    for (const target of looked.values()) await this.#try(() => host.selfTest(target, this.#stop.signal));
    const away = this.#places().filter((place) => this.#isElsewhere(place));
    for (const { lane, target } of away) {
      await this.#try(() => host.returnToBest(lane, target, this.#stop.signal));
    }
    return waiting.length > 0 || away.length > 0;
  }

  async #try(work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#stop.signal.throwIfAborted();
      const { code, message } = toFieldloopError(error);
      this.#options.log.warn({ code }, `it stays on what it runs on: ${message}`);
    }
  }

  /** What runs in order; a lane with a deployment in hand is left alone. */
  #places(): Place[] {
    const { host, providers, updater } = this.#options;
    return host.states.flatMap(({ name, running }) => {
      const { toRun, deployment } = updater(name);
      const isQuiet = deployment === null || isSettled(deployment.state);
      return running && toRun?.packageSha256 === running.packageSha256 && isQuiet
        ? [{ lane: name, target: toRun, running, best: providers.planFor(toRun).providers?.[0] }]
        : [];
    });
  }

  /** It runs on another provider than what is best now; with which variant, the governor may have decided. */
  #isElsewhere({ best, running }: Place): boolean {
    return (
      best !== undefined && best.executionProvider.slice(0, PROVIDER_SHOWN_MAX) !== running.executionProvider
    );
  }

  #isOtherVariant({ best, running }: Place): boolean {
    return best !== undefined && best.variant !== running.variant;
  }

  /** Every lane runs what it should, and no deployment is in hand. */
  async #untilSettled(): Promise<void> {
    const { pollMs = AGENT_LIMITS.providerRenewalPollMs } = this.#options;
    do await sleep(pollMs, undefined, { signal: this.#stop.signal, ref: false });
    while (!this.#isSettled());
  }

  #isSettled(): boolean {
    const { host, updater } = this.#options;
    return host.states.every(({ name, running }) => {
      const { toRun, deployment } = updater(name);
      return (
        (deployment === null || isSettled(deployment.state)) && (toRun === undefined || running !== null)
      );
    });
  }

  #outdated(): PackageToRun[] {
    const { host, providers, updater } = this.#options;
    const targets = host.states
      .map(({ name }) => updater(name).toRun)
      .filter((target) => target !== undefined);
    return targets.filter(({ packageSha256 }) => providers.isOutdated(packageSha256));
  }
}
