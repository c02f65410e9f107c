import { formatModelVersion } from "@fieldloop/protocol";
import type { EngineSources } from "../domain/rollout-engine.js";
import type { DeviceStats, ShadowCounts } from "../domain/gate-evidence.js";
import type { FitCheck } from "../domain/compatibility.js";
import type { LiveRollout } from "../domain/rollout-live.js";
import { deploymentId, type RolloutDevice } from "../domain/rollout.js";
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
    readMany(
      devices: readonly string[],
      query: Omit<StatsQuery, "device">,
    ): Promise<ReadonlyMap<string, DeviceStats>>;
  };
  /** Candidate beside active version, of deployments that ran in shadow. */
  readonly shadowOf?: (deployment: string) => Promise<ShadowCounts | null>;
  readonly fits: (live: LiveRollout) => FitCheck;
}

/** Devices whose evidence one tick reads. */
const READ_PER_TICK = 250;
/** Up to so many devices the accuracy of a rollout is read whenever it is asked for. */
const ACCURACY_FRESH_DEVICES = 500;
const ACCURACY_KEPT_MS = 10_000;

/** What a look reads, a part in each tick. */
interface Reading {
  readonly wave: number;
  readonly entries: readonly RolloutDevice[];
  at: number;
}

/** What the engine is told about devices: read before a gate is judged, kept until the next time. */
export class RolloutEvidence implements EngineSources {
  readonly #options: RolloutEvidenceOptions;
  readonly #readings = new WeakMap<LiveRollout, Reading>();
  readonly #accuracies = new WeakMap<LiveRollout, { readonly until: number; readonly counted: Accuracy }>();
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

  /** From now on they are compared: how they ran until now is read once. */
  async watch(live: LiveRollout, entries: readonly RolloutDevice[], now: number): Promise<void> {
    const { subject } = live.record;
    const versions = new Map<string, { version: StatsQuery["version"]; entries: RolloutDevice[] }>();
    for (const entry of entries) {
      entry.watch = { since: now, before: null };
      const previous = entry.previous?.kind === "package" ? entry.previous : null;
      // A device that had nothing before has nothing to be compared with.
      if (subject.kind === "package" && previous === null && entry.offered !== null) continue;
      const version = subject.kind === "package" ? previous : null;
      const key = version === null ? "" : formatModelVersion(version.model, version.version);
      const group = versions.get(key);
      if (group) group.entries.push(entry);
      else versions.set(key, { version, entries: [entry] });
    }
    for (const { version, entries: group } of versions.values()) {
      const ids = group.map(({ device }) => device);
      const query = { version, from: now - BEFORE_WINDOW_MS, to: now };
      const stats = await this.#options.stats.readMany(ids, query);
      for (const entry of group) {
        const before = stats.get(entry.device)!;
        if (before.predictions > 0) entry.watch = { since: now, before };
      }
    }
  }

  isFresh(live: LiveRollout): boolean {
    const reading = this.#readings.get(live);
    return reading?.wave === live.openWave?.wave && reading?.at === reading?.entries.length;
  }

  /** Reads what the gate of the open wave looks at: all of it of a few hundred devices, of more the next part. */
  async refresh(live: LiveRollout, now: number): Promise<void> {
    const wave = live.openWave;
    if (!wave) return;
    let reading = this.#readings.get(live);
    if (!reading || this.isFresh(live) || reading.wave !== wave.wave) {
      const watched = [...live.watched[wave.wave - 1]!, ...live.compared];
      reading = { wave: wave.wave, entries: watched.filter((entry) => entry.watch), at: 0 };
      this.#readings.set(live, reading);
    }
    const part = reading.entries.slice(reading.at, reading.at + READ_PER_TICK);
    await this.#read(live, part, wave.started ?? now, now);
    await this.#readShadow(live, part);
    reading.at += part.length;
  }

  /** Feedback of both versions over the devices of a rollout that its gates look at. Of many it is kept for some seconds. */
  async accuracy(live: LiveRollout, now: number): Promise<Accuracy> {
    const kept = this.#accuracies.get(live);
    if (kept && kept.until > now) return kept.counted;
    const sum = { before: { successes: 0, count: 0 }, after: { successes: 0, count: 0 } };
    const watched = live.watched.flatMap((entries) => [...entries]);
    const asked = watched.filter((entry) => entry.offered !== null && entry.watch);
    if (asked.length > ACCURACY_FRESH_DEVICES)
      this.#accuracies.set(live, { until: now + ACCURACY_KEPT_MS, counted: sum });
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
      if (part.length === 0) continue;
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

interface Accuracy {
  readonly before: Counted;
  readonly after: Counted;
}

interface Counted {
  successes: number;
  count: number;
}

function add(to: Counted, counted: Counted | undefined): void {
  to.successes += counted?.successes ?? 0;
  to.count += counted?.count ?? 0;
}
