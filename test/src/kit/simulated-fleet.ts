import type { DeviceStats, Moments } from "@fieldloop/fleet-server";
import { Random } from "@fieldloop/runtime/simulate";
import { binomial, exponential, gamma, heavyTailed, logistic, normal, pareto, poisson } from "./draws.js";

/**
 * A fleet whose devices differ in everything that a gate compares: hardware, load, scenes, accuracy, networks and crashes; and
 * which changes by itself, over the day as a whole and each device on its own. What a device does in a stretch of time is drawn at
 * once, so ten thousand of them run a day in seconds.
 */

/** What a version does otherwise than the one before. */
export interface VersionEffect {
  /** Factor on every latency. */
  readonly latencyRatio: number;
  /** Mean drop in accuracy over the devices, 0..1; each device's own is between none and several times that. */
  readonly accuracyDrop: number;
  /** Share of devices that crash `crashesPerHour` times an hour under it, for as long as they run it. */
  readonly crashingShare: number;
  readonly crashesPerHour: number;
  /** Share of devices that fall silent under it within hours, for good. */
  readonly silentShare: number;
  /** Added to the mean confidence. */
  readonly confidenceShift: number;
}
export const NO_EFFECT: VersionEffect = {
  latencyRatio: 1,
  accuracyDrop: 0,
  crashingShare: 0,
  crashesPerHour: 1,
  silentShare: 0,
  confidenceShift: 0,
};

const HOUR = 3600;
const CLASS_NAMES = ["ok", "scratch", "dent", "stain", "crack", "other"] as const;
const CLASS_SHARES = [0.4, 0.25, 0.15, 0.1, 0.07, 0.03];
/** Hardware of the fleet: share of devices, typical latency. */
const HARDWARE = [
  { share: 0.5, latencyMs: 4 },
  { share: 0.35, latencyMs: 11 },
  { share: 0.15, latencyMs: 32 },
] as const;
/** Mean hours of connected stretches, and median hours of the gaps between (log-normal, sigma 1.5: a few last for days). */
const NETWORKS = {
  steady: { upHours: 24, downHours: 0.4 },
  flaky: { upHours: 4, downHours: 0.5 },
} as const;
const FLAKY_SHARE = 0.1;
const CHRONIC_SHARE = 0.003;
/** Of single predictions around their device's mean: logarithmic for latencies. */
const LATENCY_SIGMA = 0.35;
const CONFIDENCE_SIGMA = 0.12;
const SPIKE_SHARE = 0.01;
const SPIKE_SHAPE = 1.8;
/** Spikes of one stretch that are drawn one by one; of more, so many stand for all. */
const SPIKES_DRAWN_MAX = 16;

export class SimulatedDevice {
  readonly device: string;
  readonly #random: Random;
  readonly #latencyMs: number;
  readonly #predictionsPerHour: number;
  readonly #feedbackPerHour: number;
  readonly #accuracyLogit: number;
  readonly #confidence: number;
  readonly #classes: number[];
  readonly #crashesPerHour: number;
  readonly #network: (typeof NETWORKS)[keyof typeof NETWORKS];
  /** In 0..1, fixed: what a version that harms some devices only does to this one. */
  readonly #fate: { readonly crash: number; readonly silence: number; readonly accuracy: number };
  #latencyDrift = 0;
  #accuracyDrift = 0;
  #throttledUntil = 0;
  #connected: boolean;
  /** Seconds of the simulation. */
  #changes: number;
  #lastHeard: number;
  #silentFrom = Number.POSITIVE_INFINITY;

  /** @param begin seconds of the simulation at which it starts, connected or not as in the long run */
  constructor(device: string, seed: readonly number[], begin = 0) {
    const random = new Random(...seed);
    this.device = device;
    this.#random = random;
    this.#latencyMs = drawHardware(random).latencyMs * Math.exp(0.25 * normal(random));
    this.#predictionsPerHour = 600 * Math.exp(0.8 * normal(random));
    // Not every site says what was right.
    this.#feedbackPerHour = random.uniform() < 0.4 ? 6 * Math.exp(0.7 * normal(random)) : 0;
    this.#accuracyLogit = 2.95 + 0.5 * normal(random);
    this.#confidence = Math.min(0.97, 0.85 + 0.05 * normal(random));
    this.#classes = normalized(CLASS_SHARES.map((share) => gamma(random, 12 * share)));
    this.#crashesPerHour =
      random.uniform() < CHRONIC_SHARE ? 5 / 24 : (0.03 / 24) * (gamma(random, 0.3) / 0.3);
    this.#network = random.uniform() < FLAKY_SHARE ? NETWORKS.flaky : NETWORKS.steady;
    this.#fate = { crash: random.uniform(), silence: random.uniform(), accuracy: gamma(random, 2) / 2 };
    const { upHours, downHours } = this.#network;
    const meanDownHours = downHours * Math.exp(1.5 ** 2 / 2);
    this.#connected = random.uniform() < upHours / (upHours + meanDownHours);
    this.#lastHeard = begin;
    this.#changes = begin + this.#stretch();
    // A gap that is met at a random instant is a long one: part of it is over.
    if (!this.#connected) this.#lastHeard = begin - random.uniform() * (this.#changes - begin);
  }

  get lastHeard(): number {
    return this.#lastHeard;
  }

  get isConnected(): boolean {
    return this.#connected;
  }

  /** From now on it runs a version with this effect; says what it does to this device. */
  activate(effect: VersionEffect, now: number): void {
    if (this.#fate.silence < effect.silentShare) {
      this.#silentFrom = now + exponential(this.#random, 2 * HOUR);
    }
  }

  /** Its version is taken back: it talks again, when its network does. */
  restore(): void {
    this.#silentFrom = Number.POSITIVE_INFINITY;
  }

  /** What it does in [from, to), seconds of the simulation, under a version. Stretches follow each other. */
  run(from: number, to: number, effect: VersionEffect): DeviceStats {
    const seconds = this.#connect(from, to);
    const random = this.#random;
    const hours = seconds / HOUR;
    const day = Math.sin((2 * Math.PI * to) / (24 * HOUR));
    this.#latencyDrift = 0.8 * this.#latencyDrift + 0.05 * heavyTailed(random);
    this.#accuracyDrift = 0.8 * this.#accuracyDrift + 0.1 * normal(random);
    for (let at = 0; at < this.#classes.length; at++) this.#classes[at]! *= Math.exp(0.05 * normal(random));
    if (random.uniform() < 0.003) this.#throttledUntil = to + exponential(random, 6 * HOUR);
    const throttled = this.#throttledUntil > from ? 1.6 : 1;
    const predictions = poisson(random, this.#predictionsPerHour * hours * (1 + 0.3 * day));
    const meanMs =
      this.#latencyMs *
      Math.exp(this.#latencyDrift + 0.1 * day) *
      throttled *
      (predictions > 0 ? drawMeanFactor(random, predictions) : 1) *
      effect.latencyRatio;
    const accuracy = logistic(this.#accuracyLogit + this.#accuracyDrift + 0.2 * day);
    const right = Math.max(0, accuracy - effect.accuracyDrop * this.#fate.accuracy);
    const judged = Math.min(predictions, poisson(random, this.#feedbackPerHour * hours));
    const crashing = this.#fate.crash < effect.crashingShare ? effect.crashesPerHour : 0;
    const confidence =
      this.#confidence +
      effect.confidenceShift +
      0.1 * (accuracy - 0.95) +
      (CONFIDENCE_SIGMA * normal(random)) / Math.sqrt(Math.max(predictions, 1));
    return {
      predictions,
      seconds,
      latencyMs: moments(predictions, meanMs, meanMs * LATENCY_SIGMA),
      confidence: moments(predictions, Math.min(1, Math.max(0, confidence)), CONFIDENCE_SIGMA),
      classes: drawClasses(random, predictions, normalized(this.#classes)),
      crashes: poisson(random, (this.#crashesPerHour * (1 + 0.5 * day) + crashing) * hours),
      feedback: { successes: binomial(random, judged, right), count: judged },
    };
  }

  /** Goes through the stretches of its network; seconds in which it was connected. */
  #connect(from: number, to: number): number {
    let at = from;
    let seconds = 0;
    while (at < to) {
      const until = Math.min(to, this.#changes);
      const talks = this.#connected ? Math.max(0, Math.min(until, this.#silentFrom) - at) : 0;
      seconds += talks;
      if (talks > 0) this.#lastHeard = at + talks;
      at = until;
      if (at >= this.#changes) {
        this.#connected = !this.#connected;
        this.#changes = at + this.#stretch();
      }
    }
    return seconds;
  }

  #stretch(): number {
    const { upHours, downHours } = this.#network;
    if (this.#connected) return exponential(this.#random, upHours) * HOUR;
    return Math.max(10, downHours * HOUR * Math.exp(1.5 * normal(this.#random)));
  }
}

function drawHardware(random: Random): (typeof HARDWARE)[number] {
  let left = random.uniform();
  return HARDWARE.find(({ share }) => (left -= share) < 0) ?? HARDWARE[0];
}

/** Mean of so many latencies over the typical one: log-normal with spikes of infinite variance. */
function drawMeanFactor(random: Random, count: number): number {
  const body = Math.exp(LATENCY_SIGMA ** 2 / 2) * (1 + (LATENCY_SIGMA * normal(random)) / Math.sqrt(count));
  const spikes = poisson(random, SPIKE_SHARE * count);
  const drawn = Math.min(spikes, SPIKES_DRAWN_MAX);
  let sum = 0;
  for (let spike = 0; spike < drawn; spike++) sum += 4 * pareto(random, SPIKE_SHAPE);
  return Math.max(body, 0.2) + (drawn > 0 ? (sum * spikes) / drawn / count : 0);
}

function drawClasses(random: Random, count: number, shares: readonly number[]): Record<string, number> {
  const classes: Record<string, number> = {};
  let left = count;
  let rest = 1;
  for (const [at, share] of shares.entries()) {
    const drawn = at === shares.length - 1 ? left : binomial(random, left, Math.min(1, share / rest));
    classes[CLASS_NAMES[at]!] = drawn;
    left -= drawn;
    rest -= share;
  }
  return classes;
}

function moments(count: number, mean: number, deviation: number): Moments {
  return count === 0 ? { count: 0, mean: 0, m2: 0 } : { count, mean, m2: (count - 1) * deviation ** 2 };
}

function normalized(values: readonly number[]): number[] {
  const sum = values.reduce((total, value) => total + value, 0);
  return values.map((value) => value / sum);
}

export const NOTHING_DONE: DeviceStats = {
  predictions: 0,
  seconds: 0,
  latencyMs: { count: 0, mean: 0, m2: 0 },
  confidence: { count: 0, mean: 0, m2: 0 },
  classes: {},
  crashes: 0,
  feedback: { successes: 0, count: 0 },
};

/** Both stretches together. */
export function addStats(a: DeviceStats, b: DeviceStats): DeviceStats {
  const classes: Record<string, number> = { ...a.classes };
  for (const [name, count] of Object.entries(b.classes)) classes[name] = (classes[name] ?? 0) + count;
  return {
    predictions: a.predictions + b.predictions,
    seconds: a.seconds + b.seconds,
    latencyMs: addMoments(a.latencyMs, b.latencyMs),
    confidence: addMoments(a.confidence, b.confidence),
    classes,
    crashes: a.crashes + b.crashes,
    feedback: {
      successes: a.feedback.successes + b.feedback.successes,
      count: a.feedback.count + b.feedback.count,
    },
  };
}

/** Chan, Golub and LeVeque 1983. */
function addMoments(a: Moments, b: Moments): Moments {
  const count = a.count + b.count;
  if (count === 0) return a;
  const shift = b.mean - a.mean;
  return {
    count,
    mean: a.mean + (shift * b.count) / count,
    m2: a.m2 + b.m2 + (shift * shift * a.count * b.count) / count,
  };
}
