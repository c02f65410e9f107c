import type { DeviceDetail, SeriesPoint } from "@fieldloop/protocol";
import { useEffect, useMemo, useState } from "preact/hooks";
import { withQuery } from "../api/client.js";
import { useResource } from "../api/resource.js";
import { now } from "../lib/clock.js";
import { formatMs, formatPercent, formatRate } from "../lib/format.js";
import { useQuery } from "../lib/url.js";
import { Empty, Panel, Problem, Skeleton } from "../ui/layout.js";
import { Plot, type PlotMarker } from "../ui/plot.js";

/** Spans that can be chosen, with a bucket that gives about 100 points; the server counts in buckets of ten seconds. */
const SPANS = {
  "5m": { title: "5 min", ms: 300_000, bucketMs: 10_000 },
  "15m": { title: "15 min", ms: 900_000, bucketMs: 10_000 },
  "1h": { title: "1 h", ms: 3_600_000, bucketMs: 30_000 },
  "6h": { title: "6 h", ms: 21_600_000, bucketMs: 180_000 },
  "24h": { title: "24 h", ms: 86_400_000, bucketMs: 720_000 },
  "7d": { title: "7 d", ms: 604_800_000, bucketMs: 5_040_000 },
} as const;
type SpanName = keyof typeof SPANS;
const NAMES = Object.keys(SPANS) as SpanName[];
const isSpan = (name: string | null): name is SpanName => name !== null && name in SPANS;

export function DeviceCharts({ device }: { device: DeviceDetail }) {
  const [query, setQuery] = useQuery();
  const asked = query.get("span");
  const name: SpanName = isSpan(asked) ? asked : "15m";
  return (
    <Panel
      title="Over time"
      note="dashed: a version began to run"
      actions={
        <fieldset class="segments" aria-label="Time span">
          {NAMES.map((each) => (
            <button
              key={each}
              type="button"
              aria-pressed={each === name}
              onClick={() => setQuery({ span: each === "15m" ? undefined : each })}
            >
              {SPANS[each].title}
            </button>
          ))}
        </fieldset>
      }
    >
      <Charts device={device} name={name} />
    </Panel>
  );
}

/** The window moves with the clock in whole buckets, so that a bucket never changes its borders. */
function Charts({ device, name }: { device: DeviceDetail; name: SpanName }) {
  const { ms, bucketMs } = SPANS[name];
  const to = Math.ceil(now.value / bucketMs) * bucketMs;
  const path = withQuery(`/devices/${encodeURIComponent(device.device)}/series`, {
    from: to - ms,
    to,
    bucketMs,
  });
  const series = useResource<{ items: SeriesPoint[] }>(path, {
    live: ["predictions"],
    match: (event) => (event.device ?? event.id) === device.device,
    reloadMinMs: 2_000,
  });
  // The path moves on with the clock: what was drawn stays until the next answer.
  const [drawn, setDrawn] = useState<{ name: SpanName; items: SeriesPoint[] } | undefined>(undefined);
  useEffect(() => {
    if (series.data) setDrawn({ name, items: series.data.items });
  }, [series.data]);

  const items = drawn?.name === name ? drawn.items : undefined;
  const columns = useMemo(
    () => (items ? toColumns(items, to - ms, to, bucketMs) : undefined),
    [items, to, ms, bucketMs],
  );
  const markers = useMemo(() => versionMarkers(device), [device]);
  if (!columns)
    return series.error ? (
      <Problem error={series.error} retry={series.reload} />
    ) : (
      <Skeleton rows={4} height={76} />
    );
  if (!items?.some((point) => point.count > 0)) {
    return (
      <Empty title={`No prediction in the last ${SPANS[name].title}`}>
        Choose a longer span, or look at its last word under “Hardware and health”.
      </Empty>
    );
  }
  const shared = {
    x: columns.x,
    markers,
    sync: `device-${device.device}`,
    span: [(to - ms) / 1000, to / 1000] as const,
  };
  return (
    <div class="plots">
      <Plot
        {...shared}
        title="Mean confidence"
        unit="percent"
        y={columns.confidence}
        format={(value) => formatPercent(value, 0)}
        max={1}
      />
      <Plot
        {...shared}
        title="Accuracy from feedback"
        unit="percent"
        y={columns.accuracy}
        format={(value) => formatPercent(value, 0)}
        min={0}
        max={1}
      />
      <Plot
        {...shared}
        title="Mean latency"
        unit="milliseconds"
        y={columns.latency}
        format={formatMs}
        min={0}
      />
      <Plot {...shared} title="Predictions" unit="per second" y={columns.rate} format={formatRate} min={0} />
    </div>
  );
}

/** Every bucket of the span, so that silence is a gap and not a line across it. */
function toColumns(items: readonly SeriesPoint[], from: number, to: number, bucketMs: number) {
  const byTime = new Map(items.map((item) => [Math.floor(item.time / bucketMs), item]));
  const x: number[] = [];
  const confidence: (number | null)[] = [];
  const accuracy: (number | null)[] = [];
  const latency: (number | null)[] = [];
  const rate: (number | null)[] = [];
  for (let time = from; time < to; time += bucketMs) {
    const item = byTime.get(Math.floor(time / bucketMs));
    x.push(time / 1000);
    confidence.push(item?.meanConfidence ?? null);
    accuracy.push(item?.accuracy ?? null);
    latency.push(item?.meanLatencyMs ?? null);
    // The newest bucket is still filling: its count would look like a fall.
    rate.push(time + bucketMs >= to ? null : ((item?.count ?? 0) * 1000) / bucketMs);
  }
  return { x, confidence, accuracy, latency, rate };
}

/** When each version began to run: exactly for the running ones, by the last step of its deployment for those before. Models
 * are named where there are several. */
function versionMarkers(device: DeviceDetail): PlotMarker[] {
  const { state } = device;
  const lanes = state?.lanes ?? [];
  const running = lanes.length > 1 ? lanes.flatMap((lane) => lane.running ?? []) : (state?.running ?? []);
  const now = [running].flat();
  const several = new Set([...now, ...device.deployments].map(({ model }) => model)).size > 1;
  const label = (of: { model: string; version: number }) => `${several ? of.model : ""}@${of.version}`;
  const before = device.deployments
    .filter(
      (item) =>
        (item.state === "active" || item.state === "rolled_back") &&
        !now.some((each) => item.version === each.version && item.model === each.model),
    )
    .map((item) => ({
      at: item.updated / 1000,
      label: item.state === "active" ? label(item) : `back from ${label(item)}`,
    }));
  return [...before, ...now.map((each) => ({ at: each.since / 1000, label: label(each) }))];
}
