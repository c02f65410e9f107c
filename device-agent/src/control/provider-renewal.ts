import { setTimeout as sleep } from "node:timers/promises";
import { toFieldloopError } from "@fieldloop/protocol";
import type { Logger } from "pino";
import type { PackageToRun } from "../ipc.js";
import { AGENT_LIMITS } from "../limits.js";
import { isSettled } from "./deployment-rules.js";
import { PROVIDER_SHOWN_MAX } from "./host-link-options.js";
import type { HostLink } from "./host-link.js";
import type { ProviderPlans } from "./provider-plans.js";
import type { Updater } from "./updater.js";

export interface ProviderRenewalOptions {
  readonly host: Pick<HostLink, "states" | "selfTest" | "restart">;
  readonly providers: Pick<ProviderPlans, "isOutdated" | "planFor">;
  readonly updater: (lane: string) => Pick<Updater, "toRun" | "deployment">;
  readonly log: Logger;
  /** Of the limits by default. */
  readonly pollMs?: number;
}

/**
 * Looks anew for what the versions that run already are best run on, where that was found out under another `--provider` or on another
 * machine: another driver, another library, another number of threads. Until it is known they run on; where it is something else, the host
 * is started anew with it, once. Deployments go first.
 */
export class ProviderRenewal {
  readonly #options: ProviderRenewalOptions;
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();

  constructor(options: ProviderRenewalOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#outdated().length === 0) return;
    this.#running = this.#renew().catch((error: unknown) => {
      if (this.#stop.signal.aborted) return;
      const { code, message } = toFieldloopError(error);
      this.#options.log.warn({ code }, `looking anew for what runs on what ended: ${message}`);
    });
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
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
      try {
        await host.selfTest(target, this.#stop.signal);
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        const { code, message } = toFieldloopError(error);
        log.warn({ code }, `it stays on what it runs on: ${message}`);
      }
    }
    if (this.#isElsewhere()) await host.restart();
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

  /** A lane runs on something else than what is best now. */
  #isElsewhere(): boolean {
    const { host, providers, updater } = this.#options;
    return host.states.some(({ name, running }) => {
      const target = updater(name).toRun;
      const best = target && providers.planFor(target).providers?.[0];
      if (!best || !running) return false;
      const { executionProvider, variant } = best;
      return (
        executionProvider.slice(0, PROVIDER_SHOWN_MAX) !== running.executionProvider ||
        variant !== running.variant
      );
    });
  }
}
