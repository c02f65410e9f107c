import type { EngineSources } from "../domain/rollout-engine.js";
import type { DeviceStats, ShadowCounts } from "../domain/gate-evidence.js";
import type { FitCheck } from "../domain/compatibility.js";
import type { LiveRollout } from "../domain/rollout-live.js";
import { deploymentId, type RolloutDevice, type Watch } from "../domain/rollout.js";
import type { StatsQuery } from "../store/device-stats.js";

/** How far back the version before is looked at. */
const BEFORE_WINDOW_MS = 3_600_000;
const NOTHING: DeviceStats = {
  predictions: 0,
  seconds: 0,
  latencyMs: { count: 0, mean: 0, m2: 0 },
  confidence: { count: 0, mean: 0, m2: 0 },
  classes: {},
  crashes: 0,
  feedback: { successes: 0, count: 0 },
};
/** Devices asked about between two breaths of the event loop. */
const DEVICES_PER_BREATH = 50;

export interface RolloutEvidenceOptions {
  readonly stats: { read(query: StatsQuery): Promise<DeviceStats> };
  /** Candidate beside active version, of deployments that ran in shadow. */
  readonly shadowOf?: (deployment: string) => Promise<ShadowCounts | null>;
  readonly fits: (live: LiveRollout) => FitCheck;
}

/** What the engine is told about devices: read before a gate is judged, kept until the next time. */
export class RolloutEvidence implements EngineSources {
  readonly #options: RolloutEvidenceOptions;
  readonly #during = new WeakMap<RolloutDevice, DeviceStats>();
  readonly #shadow = new WeakMap<RolloutDevice, ShadowCounts>();

  constructor(options: RolloutEvidenceOptions) {
    this.#options = options;
  }

  during(_live: LiveRollout, entry: RolloutDevice): DeviceStats {
    return this.#during.get(entry) ?? NOTHING;
  }

  shadow(_live: LiveRollout, entry: RolloutDevice): ShadowCounts | null {
    return this.#shadow.get(entry) ?? null;
  }

  fits(live: LiveRollout): FitCheck {
    return this.#options.fits(live);
  }

  /** From now on it is compared: how it ran until now is read once. */
  async watch(live: LiveRollout, entry: RolloutDevice, now: number): Promise<Watch> {
    const { subject } = live.record;
    const version =
      subject.kind === "config" ? null : entry.previous?.kind === "package" ? entry.previous : undefined;
    const from = now - BEFORE_WINDOW_MS;
    // A device that had nothing before has nothing to be compared with.
    const before =
      version === undefined && entry.offered !== null
        ? null
        : await this.#options.stats.read({ device: entry.device, version: version ?? null, from, to: now });
    return { since: now, before: before && before.predictions > 0 ? before : null };
  }

  /** Reads what the gate of the open wave looks at. */
  async refresh(live: LiveRollout, now: number): Promise<void> {
    const wave = live.openWave;
    if (!wave) return;
    let read = 0;
    for (const entry of live.devices.values()) {
      if (!entry.watch || (entry.wave !== wave.wave && entry.state !== "waiting")) continue;
      await this.#read(live, entry, now);
      if (++read % DEVICES_PER_BREATH === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** Feedback of both versions over all devices of a rollout. */
  async accuracy(live: LiveRollout, now: number): Promise<{ before: Counted; after: Counted }> {
    const sum = { before: { successes: 0, count: 0 }, after: { successes: 0, count: 0 } };
    for (const entry of live.devices.values()) {
      if (entry.offered === null || !entry.watch) continue;
      await this.#read(live, entry, live.record.finished ?? now);
      add(sum.before, entry.watch.before?.feedback);
      add(sum.after, this.#during.get(entry)?.feedback);
    }
    return sum;
  }

  async #read(live: LiveRollout, entry: RolloutDevice, now: number): Promise<void> {
    const { subject } = live.record;
    const from = entry.watch!.since;
    const asked = entry.offered !== null && entry.state !== "waiting";
    const version = asked && subject.kind === "package" ? subject : null;
    this.#during.set(entry, await this.#options.stats.read({ device: entry.device, version, from, to: now }));
    const { shadowOf } = this.#options;
    if (!asked || !shadowOf || live.record.request.shadow === null) return;
    const shadow = await shadowOf(deploymentId(live.id, entry.device, "offer", entry.attempt));
    if (shadow) this.#shadow.set(entry, shadow);
  }
}

interface Counted {
  successes: number;
  count: number;
}

function add(to: Counted, counted: Counted | undefined): void {
  to.successes += counted?.successes ?? 0;
  to.count += counted?.count ?? 0;
}
