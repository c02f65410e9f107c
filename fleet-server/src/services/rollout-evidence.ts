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

export interface RolloutEvidenceOptions {
  readonly stats: {
    read(query: StatsQuery): Promise<DeviceStats>;
    readMany(
      devices: readonly string[],
      query: Omit<StatsQuery, "device">,
    ): Promise<ReadonlyMap<string, DeviceStats>>;
  };
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
    const watched = [...live.devices.values()].filter(
      (entry) => entry.watch && (entry.wave === wave.wave || entry.state === "waiting"),
    );
    await this.#read(live, watched, wave.started ?? now, now);
    await this.#readShadow(live, watched);
  }

  /** Feedback of both versions over all devices of a rollout. */
  async accuracy(live: LiveRollout, now: number): Promise<{ before: Counted; after: Counted }> {
    const sum = { before: { successes: 0, count: 0 }, after: { successes: 0, count: 0 } };
    const asked = [...live.devices.values()].filter((entry) => entry.offered !== null && entry.watch);
    await this.#read(live, asked, live.record.started ?? now, live.record.finished ?? now);
    for (const entry of asked) {
      add(sum.before, entry.watch!.before?.feedback);
      add(sum.after, this.#during.get(entry)?.feedback);
    }
    return sum;
  }

  /** The new version on devices that were asked, whatever it is on the others. */
  async #read(live: LiveRollout, entries: readonly RolloutDevice[], from: number, to: number): Promise<void> {
    const { subject } = live.record;
    const isAsked = (entry: RolloutDevice): boolean => entry.offered !== null && entry.state !== "waiting";
    for (const asked of [true, false]) {
      const part = entries.filter((entry) => isAsked(entry) === asked);
      const version = asked && subject.kind === "package" ? subject : null;
      const ids = part.map(({ device }) => device);
      const stats = await this.#options.stats.readMany(ids, { version, from, to });
      for (const entry of part) this.#during.set(entry, stats.get(entry.device)!);
    }
  }

  async #readShadow(live: LiveRollout, entries: readonly RolloutDevice[]): Promise<void> {
    const { shadowOf } = this.#options;
    if (!shadowOf || live.record.request.shadow === null) return;
    for (const entry of entries) {
      if (entry.offered === null) continue;
      const shadow = await shadowOf(deploymentId(live.id, entry.device, "offer", entry.attempt));
      if (shadow) this.#shadow.set(entry, shadow);
    }
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
