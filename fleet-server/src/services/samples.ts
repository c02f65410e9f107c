import {
  FieldloopError,
  type Annotation,
  type FailureStatus,
  type LiveEvent,
  type Page,
  type SampleQuery,
  type SampleView,
  type Stratum,
} from "@fieldloop/protocol";
import type { BlobStore } from "../blob/blob.js";
import type { Clock } from "../context.js";
import { wilson } from "../domain/intervals.js";
import { AuditStore } from "../store/audit.js";
import type { Database } from "../store/database.js";
import { DatasetStore } from "../store/datasets.js";
import { SampleStore, type StoredSample } from "../store/samples-annotations.js";
import type { NewId } from "./ids.js";

export interface SampleServiceOptions {
  readonly database: Database;
  readonly blobs: BlobStore;
  readonly clock: Clock;
  readonly newId: NewId;
  readonly labels: { get(model: string, version: number): Promise<readonly string[] | undefined> };
  readonly live: { publish(event: LiveEvent): void };
}

export interface StratumStatistics {
  readonly stratum: Stratum;
  readonly samples: number;
  readonly wrong: number;
  readonly right: number;
  /** Share of wrong ones among those whose truth is known. */
  readonly errorShare: ReturnType<typeof wilson>;
}

/** Label of a detector's "there is nothing": always allowed beside the version's own. */
const NOTHING_LABEL = "none";

/** Samples as failure cases: looked at in the order of their worth, labelled, triaged. */
export class SampleService {
  readonly #options: SampleServiceOptions;
  readonly #store: SampleStore;

  constructor(options: SampleServiceOptions) {
    this.#options = options;
    this.#store = new SampleStore(options.database);
  }

  async list(query: SampleQuery): Promise<Page<SampleView>> {
    const { samples, next } = await this.#store.list(query);
    return { items: samples.map(viewSample), next };
  }

  /** @throws FieldloopError `not_found` */
  async get(sample: string): Promise<SampleView> {
    return viewSample(await this.#require(sample));
  }

  /** Every label it was given, newest first, and the snapshots that hold it. */
  async history(sample: string): Promise<{ annotations: Annotation[]; snapshots: string[] }> {
    await this.#require(sample);
    return {
      annotations: await this.#store.annotations(sample),
      snapshots: await new DatasetStore(this.#options.database).snapshotsOf(sample),
    };
  }

  /** The captured input. @throws FieldloopError `not_found` where there is no such sample, or retention has removed its bytes */
  async payload(sample: string): Promise<{ mediaType: SampleView["mediaType"]; bytes: Uint8Array }> {
    const { mediaType, sha256 } = await this.#require(sample);
    return { mediaType, bytes: await this.#options.blobs.get(sha256) };
  }

  /**
   * Labels a sample. The label before it stays in the history. A label unlike the prediction confirms the failure, one like it
   * takes it out of the inbox; a status beyond triage is kept.
   * @throws FieldloopError `not_found`, `invalid_argument` for a label that the version does not have
   */
  async annotate(sample: string, label: string, author: string): Promise<SampleView> {
    const stored = await this.#require(sample);
    const known = await this.#labelsFor(stored);
    if (known.length > 0 && label !== NOTHING_LABEL && !known.includes(label)) {
      throw new FieldloopError(
        "invalid_argument",
        `Label sample "${sample}": "${label}" is none of ${known.slice(0, 20).join(", ")}`,
      );
    }
    const created = this.#options.clock.now();
    const status = label === stored.label ? "ignored" : "confirmed";
    await this.#options.database.transaction(async (tx) => {
      const samples = new SampleStore(tx);
      await samples.annotate({ annotation: this.#options.newId("ann"), sample, label, author, created });
      if (TRIAGE.has(stored.status)) await samples.setStatus(sample, status);
      await this.#audit(tx, author, "sample.labelled", sample, { label, predicted: stored.label });
    });
    return this.#changed(sample, stored.device);
  }

  /** @throws FieldloopError `not_found` */
  async setStatus(sample: string, status: FailureStatus, actor: string): Promise<SampleView> {
    const stored = await this.#require(sample);
    await this.#options.database.transaction(async (tx) => {
      await new SampleStore(tx).setStatus(sample, status);
      await this.#audit(tx, actor, "sample.status", sample, { from: stored.status, to: status });
    });
    return this.#changed(sample, stored.device);
  }

  /** How often samples of each stratum are wrong: what the sampler's worth is worth against plain chance. */
  async statistics(
    query: Pick<SampleQuery, "model" | "version" | "device" | "after" | "before">,
  ): Promise<StratumStatistics[]> {
    return (await this.#store.statistics(query)).map(({ stratum, count, wrong, right }) => ({
      stratum,
      samples: count,
      wrong,
      right,
      errorShare: wilson({ successes: wrong, count: wrong + right }),
    }));
  }

  count(): Promise<{ total: number; unlabelled: number }> {
    return this.#store.count();
  }

  /** Those of the version that predicted, and of the candidate beside it, which may have classes of its own; empty where nobody knows. */
  async #labelsFor({ model, version, shadow }: StoredSample): Promise<readonly string[]> {
    const { labels } = this.#options;
    const own = (await labels.get(model, version)) ?? [];
    const others = shadow ? ((await labels.get(model, shadow.version)) ?? []) : [];
    return own.length === 0 ? [] : [...new Set([...own, ...others])];
  }

  async #require(sample: string): Promise<StoredSample> {
    const stored = await this.#store.get(sample);
    if (!stored) throw new FieldloopError("not_found", `Read sample: there is no sample "${sample}"`);
    return stored;
  }

  async #changed(sample: string, device: string): Promise<SampleView> {
    this.#options.live.publish({ type: "sample", id: sample, device });
    return this.get(sample);
  }

  async #audit(
    tx: Database,
    actor: string,
    action: string,
    sample: string,
    detail: Record<string, unknown>,
  ): Promise<void> {
    const time = this.#options.clock.now();
    await new AuditStore(tx).add({
      entry: this.#options.newId("aud"),
      time,
      actor,
      action,
      subject: `sample:${sample}`,
      detail,
    });
  }
}

const TRIAGE: ReadonlySet<FailureStatus> = new Set(["new", "confirmed", "ignored"]);

function viewSample(stored: StoredSample): SampleView {
  const { sha256: _sha256, packageSha256: _packageSha256, ...sample } = stored;
  return { ...sample, payloadUrl: `/api/v1/samples/${sample.sample}/payload` };
}
