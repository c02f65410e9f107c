import { FieldloopError, formatPredictionId, type PredictionRow } from "@fieldloop/protocol";
import type { HostMessage } from "../ipc.js";
import { AGENT_LIMITS } from "../limits.js";
import type { CatalogEntry, PackageCatalog } from "./package-catalog.js";
import type { PredictionOrigin } from "./prediction-batcher.js";

export type PredictionsMessage = Extract<HostMessage, { kind: "predictions" }>;

/** What a subscriber wants to hear of; everything where nothing is said. */
export interface FeedFilter {
  readonly lane: string | undefined;
  readonly model: string | undefined;
  readonly minConfidence: number;
}

/** A prediction as subscribers get it. */
export interface FeedItem {
  /** `BOOT-N`. */
  readonly prediction: string;
  readonly lane: string;
  readonly model: string;
  readonly version: number;
  /** Milliseconds since the epoch. */
  readonly time: number;
  readonly class: number;
  readonly label: string;
  readonly confidence: number;
  readonly latencyMs: number;
  readonly signals: Readonly<Record<string, number | null>>;
  readonly boxes?: readonly Readonly<Record<string, unknown>>[];
}

/** Packages whose labels are remembered: as many as lanes may run, before and after an update. */
const LABELS_KEPT = 2 * AGENT_LIMITS.lanesMax;

/** A row as it waits: it is put into words only when somebody takes it. */
interface Waiting {
  readonly lane: string;
  readonly origin: PredictionOrigin;
  readonly labels: CatalogEntry | undefined;
  readonly n: number;
  readonly row: PredictionRow;
}

/** Hands the predictions that the host tells of to whoever listens on this machine. Costs nothing while nobody does. */
export class PredictionFeed {
  readonly #boot: number;
  readonly #catalog: PackageCatalog;
  readonly #subscribers = new Set<FeedSubscriber>();
  /** What classes mean, by package; undefined where its manifest could not be read. */
  readonly #labels = new Map<string, CatalogEntry | undefined>();
  /** Messages that wait until the labels of their version are read: they stay in their order. */
  #turn: Promise<void> | undefined;

  constructor(boot: number, catalog: PackageCatalog) {
    this.#boot = boot;
    this.#catalog = catalog;
  }

  get listeners(): number {
    return this.#subscribers.size;
  }

  /** @throws FieldloopError `rate_limited` */
  subscribe(filter: FeedFilter): FeedSubscriber {
    const { localSubscribersMax } = AGENT_LIMITS;
    if (this.#subscribers.size >= localSubscribersMax) {
      throw new FieldloopError("rate_limited", `Subscribe: ${localSubscribersMax} listen already`);
    }
    const subscriber = new FeedSubscriber(this.#boot, filter, () => this.#subscribers.delete(subscriber));
    this.#subscribers.add(subscriber);
    return subscriber;
  }

  publish(message: PredictionsMessage): void {
    if (this.#subscribers.size === 0) return;
    const { packageSha256 } = message.origin;
    if (this.#labels.has(packageSha256) && !this.#turn) {
      this.#deliver(message, this.#labels.get(packageSha256));
      return;
    }
    const listening = [...this.#subscribers];
    const turn = (this.#turn ?? Promise.resolve())
      .then(() => this.#lookUp(packageSha256))
      .then((labels) => {
        this.#deliver(message, labels, listening);
        if (this.#turn === turn) this.#turn = undefined;
      });
    this.#turn = turn;
  }

  async #lookUp(packageSha256: string): Promise<CatalogEntry | undefined> {
    if (this.#labels.has(packageSha256)) return this.#labels.get(packageSha256);
    // A version whose labels cannot be read has numbers for classes.
    const labels = await this.#catalog.of(packageSha256).catch(() => undefined);
    if (this.#labels.size >= LABELS_KEPT) this.#labels.delete(this.#labels.keys().next().value!);
    this.#labels.set(packageSha256, labels);
    return labels;
  }

  /** Ends every subscription after what waits for it. */
  close(): void {
    for (const subscriber of this.#subscribers) subscriber.end();
  }

  #deliver(
    { lane, origin, firstN, rows }: PredictionsMessage,
    labels: CatalogEntry | undefined,
    listening: Iterable<FeedSubscriber> = this.#subscribers,
  ): void {
    for (const subscriber of listening) {
      if (!subscriber.wants(lane, origin.model)) continue;
      for (const [index, row] of rows.entries()) {
        subscriber.offer({ lane, origin, labels, n: firstN + index, row });
      }
    }
  }
}

/** What waits for one listener, and how much it was too slow for. */
export class FeedSubscriber {
  readonly #boot: number;
  readonly #filter: FeedFilter;
  readonly #onClose: () => void;
  readonly #waiting: Waiting[] = [];
  #items = 0;
  #lost = 0;
  #ended = false;
  #wake: (() => void) | undefined;

  constructor(boot: number, filter: FeedFilter, onClose: () => void) {
    this.#boot = boot;
    this.#filter = filter;
    this.#onClose = onClose;
  }

  wants(lane: string, model: string): boolean {
    const { lane: wanted, model: wantedModel } = this.#filter;
    return (wanted ?? lane) === lane && (wantedModel ?? model) === model;
  }

  /** Takes a row, at the cost of the oldest where there are too many. */
  offer(waiting: Waiting): void {
    if (this.#ended || !(waiting.row.confidence >= this.#filter.minConfidence)) return;
    this.#waiting.push(waiting);
    this.#items += itemsOf(waiting.row);
    while (this.#items > AGENT_LIMITS.localSubscriberItemsMax && this.#waiting.length > 1) {
      this.#items -= itemsOf(this.#waiting.shift()!.row);
      this.#lost++;
    }
    this.#wake?.();
  }

  /**
   * What came since the last call, and how many were lost before it; waits for something, `quietMs` at most. Undefined at the end.
   * One caller at a time.
   */
  async take(
    quietMs: number,
  ): Promise<{ readonly lost: number; readonly items: readonly FeedItem[] } | undefined> {
    if (this.#waiting.length === 0 && !this.#ended) await this.#somethingCame(quietMs);
    if (this.#waiting.length === 0 && this.#ended) return undefined;
    const taken = this.#waiting.splice(0, AGENT_LIMITS.localSubscriberChunkRows);
    this.#items -= taken.reduce((sum, { row }) => sum + itemsOf(row), 0);
    const lost = this.#lost;
    this.#lost = 0;
    return { lost, items: taken.map((waiting) => itemOf(this.#boot, waiting)) };
  }

  /** Nothing comes any more; what waits can be taken. */
  end(): void {
    this.#ended = true;
    this.#onClose();
    this.#wake?.();
  }

  async #somethingCame(quietMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, quietMs);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = undefined;
  }
}

function itemsOf({ boxes }: PredictionRow): number {
  return 1 + (boxes?.length ?? 0);
}

function itemOf(boot: number, { lane, origin, labels, n, row }: Waiting): FeedItem {
  const { time, class: predicted, confidence, latencyMs, signals, boxes } = row;
  return {
    prediction: formatPredictionId(boot, n),
    lane,
    model: origin.model,
    version: origin.version,
    time,
    class: predicted,
    label: labelOf(labels?.labels, predicted),
    confidence,
    latencyMs,
    signals: Object.fromEntries(
      origin.signalNames.map((name, index) => {
        const value = signals[index];
        return [name, value !== undefined && Number.isFinite(value) ? value : null];
      }),
    ),
    ...(boxes === undefined
      ? {}
      : { boxes: boxes.map((box) => ({ ...box, label: labelOf(labels?.boxLabels, box.class) })) }),
  };
}

function labelOf(labels: readonly string[] | undefined, index: number): string {
  if (index < 0) return "none";
  return labels?.[index] ?? `class ${index}`;
}
