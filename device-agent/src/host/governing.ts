import { toFieldloopError } from "@fieldloop/protocol";
import { BusyMeter } from "../busy-meter.js";
import type { Clock } from "../clock.js";
import { AGENT_LIMITS } from "../limits.js";
import { Governor, type GovernorDecision, type GovernorTimes } from "./governor.js";
import type { Lane } from "./lane.js";
import type { ProviderToRun } from "../ipc.js";
import type { HostModel } from "./model.js";
import { readTemperature } from "./readings.js";
import type { Send } from "./reporter.js";

const CODES = { temperature: "device_hot", load: "device_overloaded" } as const;

interface Measured {
  readonly at: number;
  readonly seen: number;
}

/** What the governor has a lane run. */
interface Cheaper {
  readonly model: HostModel;
  /** The variant that it ran before. */
  readonly before: string;
}

/** What it wants of a lane. */
export type GovernedSource = Pick<
  Lane,
  "name" | "priority" | "rateOwn" | "model" | "providers" | "beat" | "limitRate" | "useVariant"
>;

/** Applies what the governor decides to the lanes of a host, and says so. */
export class Governing {
  readonly #lanes: readonly GovernedSource[];
  readonly #thermalPath: string | undefined;
  readonly #clock: Clock;
  readonly #send: Send;
  readonly #governor: Governor;
  readonly #busy: Pick<BusyMeter, "read">;
  readonly #rates = new Map<string, number>();
  readonly #measured = new Map<string, Measured>();
  readonly #rateMax = new Map<string, number>();
  /** Lanes that were given a cheaper variant. */
  readonly #cheaper = new Map<string, Cheaper>();
  #dropped = 0;
  #told: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  #ticking = false;
  #isRestricting = false;
  readonly #intervalMs: number;

  constructor(options: {
    lanes: readonly GovernedSource[];
    thermalPath: string | undefined;
    times: GovernorTimes | undefined;
    clock: Clock;
    send: Send;
    /** The machine's own by default. */
    busy?: Pick<BusyMeter, "read">;
  }) {
    this.#lanes = options.lanes;
    this.#thermalPath = options.thermalPath;
    this.#clock = options.clock;
    this.#send = options.send;
    this.#busy = options.busy ?? new BusyMeter();
    this.#governor = new Governor(options.lanes, options.times);
    this.#intervalMs = options.times?.intervalMs ?? AGENT_LIMITS.governorIntervalMs;
  }

  start(): void {
    this.#timer = setInterval(() => {
      // Loading a variant may take longer than one interval.
      if (this.#ticking) return;
      this.#ticking = true;
      void this.#tick().finally(() => {
        this.#ticking = false;
      });
    }, this.#intervalMs);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** The device cannot do all that it is asked for: what need not run does not. */
  get isRestricting(): boolean {
    return this.#isRestricting;
  }

  /** Frames a second that a lane may have at the moment; null where nothing limits it. */
  rateMax(lane: string): number | null {
    return this.#rateMax.get(lane) ?? null;
  }

  async #tick(): Promise<void> {
    const temperatureC =
      this.#thermalPath === undefined ? undefined : await readTemperature(this.#thermalPath);
    const decision = this.#governor.update(this.#clock.monotonic(), {
      temperatureC,
      busyShare: this.#busy.read(),
      framesDropped: this.#droppedByHighest(),
    });
    this.#isRestricting = decision.level > 0;
    for (const lane of this.#lanes) {
      // One that gave nothing when the restriction began has no limit yet, and gets it as soon as it gives something.
      if (!this.#rateMax.has(lane.name)) this.#measure(lane);
      this.#limit(lane, decision.rateShares.get(lane.name));
      await this.#choose(lane, decision.cheaper.has(lane.name));
    }
    this.#tell(decision, temperatureC);
  }

  /** Frames that the lanes of the highest priority dropped since the last call. */
  #droppedByHighest(): number {
    const highest = Math.max(...this.#lanes.map(({ priority }) => priority));
    const dropped = this.#lanes
      .filter(({ priority }) => priority === highest)
      .reduce((sum, lane) => sum + lane.beat(null).framesDropped, 0);
    const since = dropped - this.#dropped;
    this.#dropped = dropped;
    return since;
  }

  /** The rate that a lane has when nothing limits it: shares are of that. */
  #measure(lane: GovernedSource): void {
    const now = { at: this.#clock.monotonic(), seen: lane.beat(null).framesSeen };
    const before = this.#measured.get(lane.name);
    this.#measured.set(lane.name, now);
    // One that had given nothing before began somewhere within this time: what it gave in it is less than its rate.
    if (before && before.seen > 0 && now.at > before.at) {
      this.#rates.set(lane.name, ((now.seen - before.seen) / (now.at - before.at)) * 1000);
    }
  }

  #limit(lane: GovernedSource, share: number | undefined): void {
    const measured = this.#rates.get(lane.name);
    // A lane that gives nothing needs no limit.
    if (share === undefined || !measured) {
      this.#rateMax.delete(lane.name);
      lane.limitRate(undefined);
      return;
    }
    this.#measured.delete(lane.name);
    const rate = Math.min(measured, lane.rateOwn);
    const rateMax = Math.max(AGENT_LIMITS.governorRateMin, rate * share);
    this.#rateMax.set(lane.name, Math.round(rateMax * 100) / 100);
    lane.limitRate(rateMax);
  }

  /** To the variant of 8 bits and back. */
  async #choose(lane: GovernedSource, cheaper: boolean): Promise<void> {
    const { model } = lane;
    if (!model) return;
    const last = this.#cheaper.get(lane.name);
    // A new version, or the same one on another provider, begins with its best variant, whatever the one before had to make do with.
    const before = last?.model === model ? last.before : undefined;
    if (before === undefined) this.#cheaper.delete(lane.name);
    if (cheaper === (before !== undefined)) return;
    try {
      if (before !== undefined) {
        this.#cheaper.delete(lane.name);
        await lane.useVariant(before, model);
        return;
      }
      const other = cheaperVariant(model, lane.providers);
      if (other === undefined) return;
      // One that does not open is not tried again.
      this.#cheaper.set(lane.name, { model, before: model.variant });
      const now = await lane.useVariant(other, model);
      if (now) this.#cheaper.set(lane.name, { model: now, before: model.variant });
    } catch (error) {
      const { code, message } = toFieldloopError(error);
      void this.#send({ kind: "warning", failure: { code, message }, active: true, lane: lane.name });
    }
  }

  #tell(decision: GovernorDecision, temperatureC: number | undefined): void {
    const code = decision.cause && CODES[decision.cause];
    if (this.#told !== undefined && this.#told !== code) {
      void this.#send({ kind: "warning", failure: { code: codeOf(this.#told), message: "" }, active: false });
    }
    this.#told = code;
    if (code === undefined) return;
    const slowed = [...this.#rateMax].map(([lane, rateMax]) => `${lane} at most ${rateMax} a second`);
    const cheaper = [...this.#cheaper.keys()].map((lane) => `${lane} in its cheaper variant`);
    const done = [...slowed, ...cheaper];
    const why = code === "device_hot" ? `${Math.round(temperatureC ?? Number.NaN)} °C` : "all cores are busy";
    const message = `${why}: ${done.length > 0 ? done.join(", ") : "nothing is slowed down yet"}`;
    void this.#send({ kind: "warning", failure: { code, message }, active: true });
  }
}

/** A variant of 8 bits on the provider that runs; where they were tried, only one that gave the right results and is no slower. */
function cheaperVariant(model: HostModel, tried: readonly ProviderToRun[] | undefined): string | undefined {
  const { manifest, variant, executionProvider } = model;
  if (manifest.variants.find(({ name }) => name === variant)?.precision === "int8") return undefined;
  const triedAs = (name: string): ProviderToRun | undefined =>
    tried?.find((one) => one.executionProvider === executionProvider && one.variant === name);
  const currentMs = triedAs(variant)?.medianMs ?? Number.POSITIVE_INFINITY;
  return manifest.variants.find(
    ({ name, precision, executionProviders }) =>
      precision === "int8" &&
      executionProviders.includes(executionProvider) &&
      (tried === undefined || (triedAs(name)?.medianMs ?? Number.POSITIVE_INFINITY) <= currentMs),
  )?.name;
}

function codeOf(told: string): (typeof CODES)[keyof typeof CODES] {
  return told === CODES.temperature ? CODES.temperature : CODES.load;
}
