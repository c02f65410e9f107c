import {
  FieldloopError,
  decodePredictions,
  formatPredictionId,
  predictionRow,
  type PredictionView,
  type Proportion,
  type SeriesPoint,
} from "@fieldloop/protocol";
import { wilson } from "../domain/intervals.js";
import { SERVER_LIMITS } from "../limits.js";
import { BUCKET_MS, type Segment, type TelemetryFilter, type TelemetryStore } from "../store/telemetry.js";
import { labelOf, type LabelService } from "./labels.js";

export interface PredictionStatistics {
  readonly count: number;
  readonly meanConfidence: number | null;
  readonly meanLatencyMs: number | null;
}

/** Answers about predictions: how many, how sure, how fast, how right. */
export class TelemetryService {
  readonly #store: TelemetryStore;
  readonly #labels: LabelService;

  constructor(store: TelemetryStore, labels: LabelService) {
    this.#store = store;
    this.#labels = labels;
  }

  /** Share of right predictions among those with feedback, with its 95 % Wilson interval. */
  async accuracy(filter: TelemetryFilter): Promise<Proportion> {
    const rows = await this.#store.accuracyByDevice(filter);
    return wilson({ successes: sum(rows, (row) => row.correct), count: sum(rows, (row) => row.count) });
  }

  async accuracyByDevice(filter: TelemetryFilter): Promise<Map<string, Proportion>> {
    const rows = await this.#store.accuracyByDevice(filter);
    return new Map(rows.map((row) => [row.device, wilson({ successes: row.correct, count: row.count })]));
  }

  async statistics(filter: TelemetryFilter): Promise<PredictionStatistics> {
    const rows = await this.#store.sumsByDevice(filter);
    return means(
      sum(rows, (row) => row.count),
      sum(rows, (row) => row.confidenceSum),
      sum(rows, (row) => row.latencySum),
    );
  }

  async statisticsByDevice(filter: TelemetryFilter): Promise<Map<string, PredictionStatistics>> {
    const rows = await this.#store.sumsByDevice(filter);
    return new Map(rows.map((row) => [row.device, means(row.count, row.confidenceSum, row.latencySum)]));
  }

  /** Every prediction that ever arrived. */
  async total(
    filter: Pick<TelemetryFilter, "device" | "devices" | "model" | "version"> = {},
  ): Promise<number> {
    return sum(await this.#store.totalsByDevice(filter), (row) => row.count);
  }

  async totalsByDevice(
    filter: Pick<TelemetryFilter, "device" | "devices" | "model" | "version">,
  ): Promise<Map<string, number>> {
    return new Map((await this.#store.totalsByDevice(filter)).map((row) => [row.device, row.count]));
  }

  /**
   * One point per bucket that has predictions, oldest first.
   * @param bucketMs rounded up to a multiple of {@link BUCKET_MS}
   * @throws FieldloopError `limit_exceeded` where the range has too many buckets
   */
  async series(device: string, from: number, to: number, bucketMs: number): Promise<SeriesPoint[]> {
    const step = Math.max(1, Math.ceil(bucketMs / BUCKET_MS)) * BUCKET_MS;
    if ((to - from) / step > SERVER_LIMITS.seriesPointsMax) {
      throw new FieldloopError(
        "limit_exceeded",
        `Read series: more than ${SERVER_LIMITS.seriesPointsMax} points; ask for longer buckets or less time`,
      );
    }
    const filter = { device, from, to };
    const [rows, accuracies] = await Promise.all([
      this.#store.series(filter, step),
      this.#store.accuracySeries(filter, step),
    ]);
    const points = new Map<number, SeriesPoint & { confidenceSum: number; latencySum: number }>();
    for (const row of rows) {
      const point = points.get(row.bucket) ?? { ...emptyPoint(row.bucket), confidenceSum: 0, latencySum: 0 };
      const label = labelOf(await this.#labels.get(row.model, row.version), row.class);
      point.classes[label] = (point.classes[label] ?? 0) + row.count;
      point.count += row.count;
      point.confidenceSum += row.confidenceSum;
      point.latencySum += row.latencySum;
      points.set(row.bucket, point);
    }
    const byBucket = new Map(accuracies.map((row) => [row.bucket, row]));
    return [...points.values()].map(({ confidenceSum, latencySum, ...point }) => {
      const accuracy = byBucket.get(point.time);
      return {
        ...point,
        meanConfidence: confidenceSum / point.count,
        meanLatencyMs: latencySum / point.count,
        accuracy: accuracy ? accuracy.correct / accuracy.count : null,
        feedbackCount: accuracy?.count ?? 0,
      };
    });
  }

  /** The newest predictions of a device, newest first, with the truth that feedback told. */
  async recentPredictions(device: string, limit: number): Promise<PredictionView[]> {
    const wanted = Math.min(limit, SERVER_LIMITS.recentPredictionsMax);
    const views: PredictionView[] = [];
    for (const segment of await this.#store.recentSegments(device, wanted)) {
      if (views.length >= wanted) break;
      views.push(...(await this.#views(segment)));
    }
    return views.slice(0, wanted);
  }

  /** One prediction by its identity. @returns undefined where it never arrived */
  async prediction(device: string, boot: number, n: number): Promise<PredictionView | undefined> {
    const segment = await this.#store.segmentAt(device, boot, n);
    return segment && (await this.#views(segment)).find((view) => view.id === formatPredictionId(boot, n));
  }

  async #views(segment: Segment): Promise<PredictionView[]> {
    const columns = decodePredictions(segment.payload);
    const labels = await this.#labels.get(segment.model, segment.version);
    const { device, boot, firstN } = segment;
    const feedback = await this.#store.feedbackIn(device, boot, firstN, firstN + segment.count);
    const truths = new Map(feedback.map((row) => [row.n, row]));
    const views: PredictionView[] = [];
    for (let index = columns.count - 1; index >= 0; index--) {
      const row = predictionRow(columns, index);
      const label = labelOf(labels, row.class);
      const truth = truths.get(row.n);
      views.push({
        id: formatPredictionId(boot, row.n),
        time: row.time,
        model: segment.model,
        version: segment.version,
        class: row.class,
        label,
        confidence: row.confidence,
        latencyMs: row.latencyMs,
        signals: Object.fromEntries(columns.signalNames.map((name, at) => [name, row.signals[at]!])),
        truth: truth?.label ?? (truth?.correct === 1 ? label : null),
      });
    }
    return views;
  }
}

function means(count: number, confidenceSum: number, latencySum: number): PredictionStatistics {
  if (count === 0) return { count, meanConfidence: null, meanLatencyMs: null };
  return { count, meanConfidence: confidenceSum / count, meanLatencyMs: latencySum / count };
}

function emptyPoint(time: number): SeriesPoint {
  return {
    time,
    count: 0,
    meanConfidence: null,
    meanLatencyMs: null,
    classes: {},
    accuracy: null,
    feedbackCount: 0,
  };
}

function sum<Item>(items: readonly Item[], value: (item: Item) => number): number {
  return items.reduce((total, item) => total + value(item), 0);
}
