import { FieldloopError, type Dataset, type MediaType, type Snapshot } from "@fieldloop/protocol";
import type { Clock } from "../context.js";
import { snapshotHash, sortItems, type SnapshotItem } from "../domain/split.js";
import { AuditStore } from "../store/audit.js";
import type { Database } from "../store/database.js";
import { DatasetStore, type StoredDataset, type StoredSnapshot } from "../store/datasets.js";
import { SampleStore, type LabelledQuery } from "../store/samples-annotations.js";
import type { NewId } from "./ids.js";

export interface DatasetServiceOptions {
  readonly database: Database;
  readonly clock: Clock;
  readonly newId: NewId;
}

/** Samples in one snapshot at most. */
export const SNAPSHOT_ITEMS_MAX = 100_000;
const LIST_MAX = 200;
const EXPORT_PAGE = 1_000;

/** Living queries over labelled samples, and their frozen, content-hashed versions. */
export class DatasetService {
  readonly #options: DatasetServiceOptions;
  readonly #store: DatasetStore;
  readonly #samples: SampleStore;

  constructor(options: DatasetServiceOptions) {
    this.#options = options;
    this.#store = new DatasetStore(options.database);
    this.#samples = new SampleStore(options.database);
  }

  async create(request: Pick<Dataset, "name" | "model" | "query">, actor: string): Promise<Dataset> {
    const dataset: StoredDataset = {
      dataset: this.#options.newId("dst"),
      name: request.name,
      model: request.model,
      query: request.query,
      created: this.#options.clock.now(),
    };
    await this.#options.database.transaction(async (tx) => {
      await new DatasetStore(tx).add(dataset, actor);
      await this.#audit(tx, actor, "dataset.created", `dataset:${dataset.dataset}`, { name: dataset.name });
    });
    return this.#view(dataset);
  }

  async list(): Promise<Dataset[]> {
    const views: Dataset[] = [];
    for (const dataset of await this.#store.list(LIST_MAX)) views.push(await this.#view(dataset));
    return views;
  }

  /** @throws FieldloopError `not_found` */
  async get(dataset: string): Promise<Dataset> {
    return this.#view(await this.#require(dataset));
  }

  /**
   * Freezes what the dataset holds now. The same content is the same snapshot.
   * @throws FieldloopError `not_found`, `training_no_labels` where it holds nothing, `limit_exceeded`
   */
  async freeze(dataset: string, actor: string): Promise<Snapshot> {
    const stored = await this.#require(dataset);
    const items = sortItems(await this.#samples.labelled(toQuery(stored), SNAPSHOT_ITEMS_MAX + 1));
    if (items.length === 0)
      throw new FieldloopError(
        "training_no_labels",
        `Freeze dataset "${dataset}": it holds no labelled sample`,
      );
    if (items.length > SNAPSHOT_ITEMS_MAX) {
      throw new FieldloopError(
        "limit_exceeded",
        `Freeze dataset "${dataset}": more than ${SNAPSHOT_ITEMS_MAX} samples`,
      );
    }
    const snapshot: StoredSnapshot = {
      snapshot: snapshotHash(items),
      dataset,
      model: stored.model,
      created: this.#options.clock.now(),
      sampleCount: items.length,
      labels: countLabels(items),
    };
    return this.#options.database.transaction(async (tx) => {
      const frozen = await new DatasetStore(tx).addSnapshot(snapshot, items, actor);
      await this.#audit(tx, actor, "dataset.frozen", `snapshot:${frozen.snapshot}`, {
        dataset,
        samples: items.length,
      });
      return viewSnapshot(frozen);
    });
  }

  /** @throws FieldloopError `not_found` */
  async snapshots(dataset: string): Promise<Snapshot[]> {
    await this.#require(dataset);
    return (await this.#store.snapshots(dataset, LIST_MAX)).map(viewSnapshot);
  }

  /** @throws FieldloopError `not_found` */
  async snapshot(snapshot: string): Promise<Snapshot> {
    return viewSnapshot(await this.requireSnapshot(snapshot));
  }

  /** @throws FieldloopError `not_found` */
  async requireSnapshot(snapshot: string): Promise<StoredSnapshot> {
    const stored = await this.#store.getSnapshot(snapshot);
    if (!stored) throw new FieldloopError("not_found", `Read snapshot: there is no snapshot "${snapshot}"`);
    return stored;
  }

  /** In the hashed order. */
  async *items(snapshot: string): AsyncGenerator<SnapshotItem> {
    for (let at = 0; ; at += EXPORT_PAGE) {
      const page = await this.#store.items(snapshot, at, EXPORT_PAGE);
      yield* page;
      if (page.length < EXPORT_PAGE) return;
    }
  }

  /** The same, with the type that each sample was captured as. */
  async *itemsWithMedia(snapshot: string): AsyncGenerator<SnapshotItem & { mediaType: MediaType }> {
    for await (const item of this.items(snapshot)) {
      const sample = await this.#samples.get(item.sample);
      if (sample) yield { ...item, mediaType: sample.mediaType };
    }
  }

  async #require(dataset: string): Promise<StoredDataset> {
    const stored = await this.#store.get(dataset);
    if (!stored) throw new FieldloopError("not_found", `Read dataset: there is no dataset "${dataset}"`);
    return stored;
  }

  async #view(dataset: StoredDataset): Promise<Dataset> {
    return { ...dataset, sampleCount: await this.#samples.countLabelled(toQuery(dataset)) };
  }

  async #audit(
    tx: Database,
    actor: string,
    action: string,
    subject: string,
    detail: Record<string, unknown>,
  ): Promise<void> {
    const time = this.#options.clock.now();
    await new AuditStore(tx).add({ entry: this.#options.newId("aud"), time, actor, action, subject, detail });
  }
}

function toQuery({ model, query }: StoredDataset): LabelledQuery {
  const { labelled, devices, after, versions } = query;
  return {
    model,
    annotatedOnly: labelled,
    ...(devices ? { devices } : {}),
    ...(versions ? { versions } : {}),
    ...(after === undefined ? {} : { after }),
  };
}

function countLabels(items: readonly SnapshotItem[]): Record<string, number> {
  const counts = new Map<string, number>();
  for (const { label } of items) counts.set(label, (counts.get(label) ?? 0) + 1);
  return Object.fromEntries([...counts].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function viewSnapshot({ snapshot, dataset, created, sampleCount, labels }: StoredSnapshot): Snapshot {
  return { snapshot, dataset, created, sampleCount, labels };
}
