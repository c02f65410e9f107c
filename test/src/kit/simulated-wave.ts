import type { DeviceEvidence, DeviceStats, GateEvidence } from "@fieldloop/fleet-server";
import { Random } from "@fieldloop/runtime/simulate";
import { exponential } from "./draws.js";
import { addStats, NO_EFFECT, NOTHING_DONE, SimulatedDevice, type VersionEffect } from "./simulated-fleet.js";

export interface SimulatedWaveSettings {
  readonly seed: readonly number[];
  readonly canaryDevices: number;
  readonly controlDevices: number;
  readonly effect: VersionEffect;
  /** From 1. */
  readonly wave?: number;
  /** Share of updates that fail for reasons of the device: no space, no power. */
  readonly failingShare?: number;
  /** Mean seconds from the wave's start to a connected device's swap. */
  readonly updateSeconds?: number;
}

interface Member {
  readonly device: SimulatedDevice;
  readonly arm: DeviceEvidence["arm"];
  readonly before: DeviceStats;
  readonly fails: boolean;
  /** Seconds of the wave at which its update would be done. */
  readonly ready: number;
  during: DeviceStats;
  state: DeviceEvidence["state"];
}

const HOUR = 3600;
/** Of the devices' past, in stretches of so much. */
const BEFORE_HOURS = 24;
const BEFORE_STRETCH_HOURS = 6;

/** One wave of a fleet and its control group, both drawn at random, after a day under the version before. */
export class SimulatedWave {
  readonly #members: Member[];
  readonly #effect: VersionEffect;
  readonly #wave: number;
  #elapsed = 0;
  #look = 0;

  constructor(settings: SimulatedWaveSettings) {
    const { seed, canaryDevices, controlDevices, effect } = settings;
    this.#effect = effect;
    this.#wave = settings.wave ?? 1;
    const random = new Random(...seed, 1);
    this.#members = Array.from({ length: canaryDevices + controlDevices }, (_, at) => {
      const device = new SimulatedDevice(`dev-${at}`, [...seed, 2, at], -BEFORE_HOURS * HOUR);
      return {
        device,
        arm: at < canaryDevices ? "canary" : "control",
        before: livePast(device),
        fails: random.uniform() < (settings.failingShare ?? 0.004),
        ready: exponential(random, settings.updateSeconds ?? 600),
        during: NOTHING_DONE,
        state: at < canaryDevices ? "offered" : "active",
      };
    });
  }

  /** Canary devices that run or ran the new version. */
  get exposed(): number {
    return this.#members.filter(({ arm, state }) => arm === "canary" && state === "active").length;
  }

  get elapsedSeconds(): number {
    return this.#elapsed;
  }

  advance(seconds: number): void {
    const from = this.#elapsed;
    const to = from + seconds;
    for (const member of this.#members) {
      if (member.arm === "control") {
        member.during = addStats(member.during, member.device.run(from, to, NO_EFFECT));
      } else {
        this.#advanceCanary(member, from, to);
      }
    }
    this.#elapsed = to;
  }

  #advanceCanary(member: Member, from: number, to: number): void {
    let at = from;
    if (member.state === "offered") {
      at = Math.min(to, Math.max(from, member.ready));
      // What it does under the version before is not the new one's.
      if (at > from) member.device.run(from, at, NO_EFFECT);
      if (at < to && member.device.isConnected) {
        member.state = member.fails ? "failed" : "active";
        if (!member.fails) member.device.activate(this.#effect, at);
      }
    }
    if (at >= to) return;
    const active = member.state === "active";
    const done = member.device.run(at, to, active ? this.#effect : NO_EFFECT);
    if (active) member.during = addStats(member.during, done);
  }

  evidence(): GateEvidence {
    return {
      wave: this.#wave,
      devices: this.#members.map(({ device, arm, state, before, during }) => ({
        device: device.device,
        arm,
        state,
        before,
        during,
        silentSeconds: Math.min(this.#elapsed, this.#elapsed - device.lastHeard),
        shadow: null,
      })),
      earlier: { count: 0, failed: 0 },
      elapsedSeconds: this.#elapsed,
      waveTimedOut: false,
      look: this.#look++,
    };
  }
}

function livePast(device: SimulatedDevice): DeviceStats {
  let stats = NOTHING_DONE;
  for (let hour = -BEFORE_HOURS; hour < 0; hour += BEFORE_STRETCH_HOURS) {
    stats = addStats(stats, device.run(hour * HOUR, (hour + BEFORE_STRETCH_HOURS) * HOUR, NO_EFFECT));
  }
  return stats;
}
