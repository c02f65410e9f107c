import type { Overview } from "@fieldloop/protocol";
import type { Clock } from "../context.js";
import type { DeviceService } from "./devices.js";
import type { RateMeter } from "./rates.js";
import type { TelemetryService } from "./telemetry.js";

export interface OverviewServiceOptions {
  readonly serverVersion: string;
  readonly devices: DeviceService;
  readonly telemetry: TelemetryService;
  readonly rates: RateMeter;
  readonly clock: Clock;
  /** What the wire cost for how many predictions, since this process began. */
  readonly wire: () => { bytes: number; predictions: number };
  readonly loopCounts: () => Promise<
    Pick<Overview, "samplesTotal" | "samplesUnlabelled" | "rolloutsRunning" | "trainingRunning">
  >;
}

const ACCURACY_WINDOW_MS = 600_000;

/** The fleet at a glance. */
export class OverviewService {
  readonly #options: OverviewServiceOptions;

  constructor(options: OverviewServiceOptions) {
    this.#options = options;
  }

  async read(): Promise<Overview> {
    const { serverVersion, devices, telemetry, rates, clock, wire, loopCounts } = this.#options;
    const now = clock.now();
    const [counts, predictionsTotal, accuracy, loop] = await Promise.all([
      devices.counts(),
      telemetry.total(),
      telemetry.accuracy({ from: now - ACCURACY_WINDOW_MS }),
      loopCounts(),
    ]);
    const { bytes, predictions } = wire();
    return {
      serverVersion,
      devices: counts,
      predictionsTotal,
      predictionsPerSecond: rates.total(now),
      accuracy,
      ...loop,
      bytesPerPrediction: predictions === 0 ? null : bytes / predictions,
    };
  }
}
