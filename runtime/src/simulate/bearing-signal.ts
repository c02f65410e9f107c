/**
 * The accelerometer on a machine's bearing housing: shaft harmonics, a structural resonance, noise, and faults
 * that develop. Every sample is a pure function of (seed, sample number, condition), so overlapping windows
 * agree with each other and any window can be made without those before it.
 *
 * Fault model after Randall and Antoni, "Rolling element bearing diagnostics - a tutorial" (Mechanical Systems and
 * Signal Processing 25, 2011): impacts at the ball-pass frequencies ring the structure's resonance; the slip of
 * the balls jitters them; a fault on the inner race passes through the load zone once per turn.
 */
import { hashText, normalAt, Random } from "./random.js";

/** Sampling and windowing of the shipped `bearing` model: 20 windows a second. */
export const bearingSampling = { sampleRateHz: 2560, windowLength: 256, hop: 128 } as const;

export const bearingFaults = ["none", "outer-race", "inner-race", "imbalance", "looseness"] as const;
export type BearingFault = (typeof bearingFaults)[number];

/** From this severity on a window counts as faulty: below it nobody would stop the machine. */
export const bearingFaultSeverityMin = 0.3;

export interface BearingCondition {
  readonly fault: BearingFault;
  /** 0 (sound) to 1 (about to fail). */
  readonly severity: number;
}

/** What the simulator knows and a device does not. */
export interface BearingTruth {
  readonly fault: BearingFault;
  readonly severity: number;
  readonly faulty: boolean;
}

export interface BearingWindow {
  readonly seed: number;
  /** Place in the stream in hops of {@link bearingSampling}; between two of them where windows are cut otherwise. */
  readonly index: number;
  /** Acceleration in g, `windowLength` samples unless asked for otherwise; a fresh array for every window. */
  readonly samples: Float32Array;
  readonly sampleRateHz: number;
  readonly truth: BearingTruth;
}

export interface BearingSignalOptions {
  /** Seed of the machine: its speed, its resonance, its noise. */
  readonly seed: number;
  readonly condition?: BearingCondition;
  readonly firstIndex?: number;
}

/** An endless stream of windows; the condition may change between two windows. */
export interface BearingSignal {
  /** The window that begins where the stream is, which moves on by `hop` samples; {@link bearingSampling} has the defaults. */
  next(shape?: { readonly length: number; readonly hop: number }): BearingWindow;
  /** The window at any index, without moving the stream. */
  at(index: number): BearingWindow;
  setCondition(condition: BearingCondition): void;
  readonly condition: BearingCondition;
}

/** Severity of a fault that grows by a smooth step over `windowCount` windows from `startIndex` on, up to `severity`. */
export function developingFault(
  index: number,
  growth: { fault: BearingFault; startIndex: number; windowCount: number; severity: number },
): BearingCondition {
  const share = Math.max(0, Math.min(1, (index - growth.startIndex) / growth.windowCount));
  return { fault: growth.fault, severity: growth.severity * share * share * (3 - 2 * share) };
}

/** Opens the signal of one machine. A window takes well under 1 ms on one core. */
export function createBearingSignal(options: BearingSignalOptions): BearingSignal {
  return new Signal(options);
}

/** Geometry of a common deep-groove ball bearing: ball passes per turn of the shaft. */
const outerPassesPerTurn = 3.585;
const innerPassesPerTurn = 5.415;
const ringSamplesMax = 96;

class Machine {
  readonly shaftHz: number;
  readonly harmonics: readonly { order: number; level: number; phase: number }[];
  readonly meshOrder: number;
  readonly meshLevel: number;
  readonly resonanceHz: number;
  readonly decayPerSecond: number;
  readonly noise: number;
  readonly noiseSeed: number;
  readonly jitterSeed: number;
  /** Impulse response of the structure that colours the background noise. */
  readonly response: Float32Array;

  constructor(seed: number) {
    const random = new Random(seed, hashText("machine"));
    this.shaftHz = random.range(24, 26);
    this.harmonics = [1, 2, 3].map((order) => ({
      order,
      level: (0.3 / order) * random.range(0.85, 1.15),
      phase: random.range(0, 2 * Math.PI),
    }));
    this.meshOrder = 11;
    this.meshLevel = random.range(0.1, 0.14);
    this.resonanceHz = random.range(760, 840);
    this.decayPerSecond = random.range(180, 240);
    this.noise = random.range(0.05, 0.065);
    this.noiseSeed = random.uint32();
    this.jitterSeed = random.uint32();
    this.response = Float32Array.from({ length: 24 }, (_, k) => this.ring(k / bearingSampling.sampleRateHz));
  }

  /** Turns of the shaft at time `s`: the speed wanders by under one percent. */
  turns(seconds: number): number {
    return this.shaftHz * seconds + 0.02 * Math.sin(seconds * 1.3) + 0.008 * Math.sin(seconds * 5.1 + 1);
  }

  /** The structure's answer to a unit impact, `seconds` after it. */
  ring(seconds: number): number {
    return Math.exp(-this.decayPerSecond * seconds) * Math.sin(2 * Math.PI * this.resonanceHz * seconds);
  }
}

class Signal implements BearingSignal {
  readonly #seed: number;
  readonly #machine: Machine;
  #condition: BearingCondition;
  /** Number of the next window's first sample. */
  #first: number;

  constructor(options: BearingSignalOptions) {
    this.#seed = options.seed;
    this.#machine = new Machine(options.seed);
    this.#condition = options.condition ?? { fault: "none", severity: 0 };
    this.#first = (options.firstIndex ?? 0) * bearingSampling.hop;
  }

  get condition(): BearingCondition {
    return this.#condition;
  }

  setCondition(condition: BearingCondition): void {
    this.#condition = condition;
  }

  next(shape?: { readonly length: number; readonly hop: number }): BearingWindow {
    const { length, hop } = shape ?? { length: bearingSampling.windowLength, hop: bearingSampling.hop };
    const window = this.#window(this.#first, length);
    this.#first += hop;
    return window;
  }

  at(index: number): BearingWindow {
    return this.#window(index * bearingSampling.hop, bearingSampling.windowLength);
  }

  #window(first: number, length: number): BearingWindow {
    const { fault, severity } = this.#condition;
    const samples = new Float32Array(length);
    addShaft(samples, first, this.#machine, this.#condition);
    addBackground(samples, first, this.#machine);
    if (fault === "outer-race") addImpacts(samples, first, this.#machine, outerPassesPerTurn, 0, severity);
    if (fault === "inner-race") addImpacts(samples, first, this.#machine, innerPassesPerTurn, 0.8, severity);
    return {
      seed: this.#seed,
      index: first / bearingSampling.hop,
      samples,
      sampleRateHz: bearingSampling.sampleRateHz,
      truth: { fault, severity, faulty: fault !== "none" && severity >= bearingFaultSeverityMin },
    };
  }
}

/** Shaft harmonics and a mesh tone; imbalance raises the first, looseness adds half orders and clips. */
function addShaft(samples: Float32Array, first: number, machine: Machine, condition: BearingCondition): void {
  const imbalance = condition.fault === "imbalance" ? condition.severity : 0;
  const loose = condition.fault === "looseness" ? condition.severity : 0;
  for (let i = 0; i < samples.length; i++) {
    const seconds = (first + i) / bearingSampling.sampleRateHz;
    const turn = 2 * Math.PI * machine.turns(seconds);
    // The load on the machine breathes slowly, and every level with it.
    const load = 1 + 0.12 * Math.sin(seconds * 0.7) + 0.06 * Math.sin(seconds * 2.9 + 2);
    let value = machine.meshLevel * Math.sin(machine.meshOrder * turn);
    for (const { order, level, phase } of machine.harmonics) {
      const grown = order === 1 ? level * (1 + 3 * imbalance) : level * (1 + 1.2 * loose);
      value += grown * Math.sin(order * turn + phase);
    }
    if (loose > 0) value += looseness(turn, loose);
    samples[i] = value * load;
  }
}

/** Rubbing at half orders plus a row of higher harmonics with the rattle of a loose foot at each turn. */
function looseness(turn: number, severity: number): number {
  let value = 0.3 * Math.sin(0.5 * turn) + 0.25 * Math.sin(1.5 * turn + 1) + 0.2 * Math.sin(2.5 * turn + 2);
  for (let order = 4; order <= 9; order++) value += 0.1 * Math.sin(order * turn + order * order);
  return 0.7 * severity * value;
}

/** White noise plus noise coloured by the structure's resonance. */
function addBackground(samples: Float32Array, first: number, machine: Machine): void {
  const { response, noise, noiseSeed } = machine;
  const taps = response.length;
  const source = new Float32Array(samples.length + taps);
  for (let i = 0; i < source.length; i++) source[i] = normalAt(noiseSeed, first + i - taps);
  for (let i = 0; i < samples.length; i++) {
    let coloured = 0;
    for (let k = 0; k < taps; k++) coloured += response[k] * source[i + taps - k];
    samples[i] += noise * (0.6 * source[i + taps] + 0.45 * coloured);
  }
}

/** A train of impacts, each ringing the resonance; `modulation` is how deep the load zone modulates them. */
function addImpacts(
  samples: Float32Array,
  first: number,
  machine: Machine,
  passesPerTurn: number,
  modulation: number,
  severity: number,
): void {
  const rate = bearingSampling.sampleRateHz;
  const start = (first - ringSamplesMax) / rate;
  const end = (first + samples.length) / rate;
  const firstPass = Math.ceil(machine.turns(start) * passesPerTurn) - 1;
  const lastPass = Math.floor(machine.turns(end) * passesPerTurn) + 1;
  for (let pass = firstPass; pass <= lastPass; pass++) {
    // Slip: about one percent of the time between two passes.
    const slipped = (pass + 0.012 * normalAt(machine.jitterSeed, pass)) / passesPerTurn;
    const seconds = timeOfTurn(machine, slipped);
    const zone = 1 - modulation * (0.5 - 0.5 * Math.cos(2 * Math.PI * slipped));
    const strength = 0.9 * severity * zone * (1 + 0.15 * normalAt(machine.jitterSeed + 1, pass));
    const begin = Math.max(0, Math.ceil(seconds * rate) - first);
    const stop = Math.min(samples.length, Math.floor(seconds * rate) - first + ringSamplesMax);
    for (let i = begin; i < stop; i++) samples[i] += strength * machine.ring((first + i) / rate - seconds);
  }
}

/** Inverts {@link Machine.turns} by two Newton steps from the nominal speed (the wander is tiny). */
function timeOfTurn(machine: Machine, turn: number): number {
  let seconds = turn / machine.shaftHz;
  for (let step = 0; step < 2; step++) seconds += (turn - machine.turns(seconds)) / machine.shaftHz;
  return seconds;
}
