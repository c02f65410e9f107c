import { type TestFleet, until } from "@fieldloop/device-agent/testing/fleet";
import { LaneStage } from "@fieldloop/device-agent/testing/lanes";
import { writeTestPackage } from "@fieldloop/device-agent/testing/package";
import type { TufKey } from "@fieldloop/device-agent/testing/tuf-keys";
import type { TufRepository } from "@fieldloop/device-agent/testing/tuf-repository";
import { existsSync } from "node:fs";
import { packageTargetPath, type Assignment, type ErrorCode } from "@fieldloop/protocol";
import type { ModelPackage } from "@fieldloop/runtime/node";
import { join } from "node:path";
import { expect } from "vitest";

const STEP_MS = 60_000;

/** Where a device says why it did not do what it was told. */
export type Told = "refusal" | "waiting" | "warning";

/**
 * One device, the agent that ships with its host process, broker and server around it, and somebody who has some of them in hand. Every
 * attack wants one thing: that the device runs a package which the owners of the targets keys never signed.
 */
export class AttackStage {
  readonly #lanes = new LaneStage();
  #good!: ModelPackage;
  #evil!: ModelPackage;
  #versions = 0;
  #offers = 0;
  #aheadMs = 0;

  get fleet(): TestFleet {
    return this.#lanes.fleet;
  }
  get tuf(): TufRepository {
    return this.fleet.tuf;
  }
  get evil(): ModelPackage {
    return this.#evil;
  }

  async start(): Promise<void> {
    await this.#lanes.open();
    this.#evil = await writeTestPackage(join(this.#lanes.path, "evil"), { version: 666 });
    await this.#lanes.start(["simulator:parts?fps=15&model=brightness"], {
      clock: { now: () => Date.now() + this.#aheadMs, monotonic: () => performance.now() },
      updateTimes: { trustRetryMinMs: 50, trust: { rateWindowMs: 500, stallMs: 3_000, retryMaxMs: 100 } },
    });
    await this.recovers();
  }

  stop(): Promise<void> {
    return this.#lanes.close();
  }

  // What an attacker may do

  /** The device's wall clock, so many days from the true time. */
  moveClock(days: number): void {
    this.#aheadMs = days * 86_400_000;
  }

  /** Has the fleet's director ask for a package: the evil one, or what `change` makes of it. */
  async offer(change: Partial<Assignment> = {}): Promise<string> {
    const deployment = `offer-${++this.#offers}`;
    const assignment = await this.fleet.store(this.#evil, deployment);
    this.fleet.desire([{ ...assignment, ...change, deployment }]);
    return deployment;
  }

  /** Lists the evil package as a target, signed by whoever signs as `targets` then. */
  vouchForEvil(signers: readonly TufKey[]): void {
    const own = this.tuf.signers.get("targets")!;
    this.tuf.signers.set("targets", [...signers]);
    this.fleet.vouch(this.#evil, "brightness", 666);
    this.tuf.signers.set("targets", own);
    delete this.tuf.targets.targets[packageTargetPath("brightness", 666)];
  }

  // What must be true

  /** The device says this, and does not do it. */
  async tells(how: Told, code: ErrorCode, deployment?: string): Promise<void> {
    await until(
      () => {
        const { deployment: current, warnings } = this.#lanes.agent.state();
        if (how === "warning") return warnings.some((warning) => warning.code === code);
        if (current?.deployment !== deployment) return false;
        return how === "waiting" ? current?.waiting?.code === code : current?.error?.code === code;
      },
      `the device tells ${how} ${code}, it is ${JSON.stringify(this.#lanes.agent.state().deployment)}`,
      STEP_MS,
    );
  }

  /** The good version runs, as before, and predicts. */
  async intact(): Promise<void> {
    const { running } = this.#lanes.agent.state();
    expect(running?.packageSha256).toBe(this.#good.packageSha256);
    await this.#lanes.predicts(3, "it predicts as before");
  }

  /** An honest version, published and offered as ever, gets there. */
  async recovers(): Promise<void> {
    const version = ++this.#versions;
    const good = await writeTestPackage(join(this.#lanes.path, `good-${version}`), { version });
    const deployment = `honest-${version}`;
    this.fleet.desire([await this.fleet.publish(good, deployment)]);
    await this.#lanes.isActive(deployment);
    this.#good = good;
    await this.intact();
  }

  /** An honest version that is published and stored, but not offered yet. */
  async prepare(): Promise<{ readonly made: ModelPackage; readonly assignment: Assignment }> {
    const version = ++this.#versions;
    const made = await writeTestPackage(join(this.#lanes.path, `good-${version}`), { version });
    return { made, assignment: await this.fleet.publish(made, `prepared-${version}`) };
  }

  /** Whether the device has, or ever told to run, the evil package. */
  evilArrived(): boolean {
    const { packageSha256 } = this.#evil;
    if (existsSync(join(this.#lanes.stateDir, "packages", packageSha256))) return true;
    return this.fleet.predictions.some(({ versionRef }) =>
      packageSha256.startsWith(versionRef.packagePrefix),
    );
  }
}
