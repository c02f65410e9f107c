import { useEffect, useMemo, useRef } from "preact/hooks";
import uPlot from "uplot";
import { formatClock } from "../lib/format.js";
import { dark, resolveColour } from "../lib/theme.js";

export interface PlotMarker {
  /** On the x axis. */
  at: number;
  label: string;
}

export interface PlotProps {
  title: string;
  unit: string;
  /** Ascending; seconds since the epoch when `time`, any number otherwise. */
  x: readonly number[];
  y: readonly (number | null)[];
  format: (value: number) => string;
  time?: boolean;
  height?: number;
  /** Bounds of the y axis; what is undefined follows the data. */
  min?: number | undefined;
  max?: number | undefined;
  markers?: readonly PlotMarker[];
  /** Plots with the same key share one cursor. */
  sync?: string;
  /** Bounds of the x axis. */
  span?: readonly [number, number] | undefined;
}

/** One line over time (or steps) with its last value, value under the cursor, and marks where something changed. */
export function Plot(props: PlotProps) {
  const { title, unit, x, y, format, time = true, height = 132, markers = [], sync, span } = props;
  const host = useRef<HTMLDivElement>(null);
  const reading = useRef<HTMLSpanElement>(null);
  const chart = useRef<uPlot | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const last = useMemo(() => y.findLast((value) => value !== null), [y]);
  const data = useMemo<uPlot.AlignedData>(() => [x as number[], y as (number | null)[]], [x, y]);
  const isDark = dark.value;
  const rest = last === undefined || last === null ? "–" : format(last);

  useEffect(() => {
    const element = host.current;
    if (!element) return undefined;
    const made = new uPlot(
      options({
        width: element.clientWidth,
        height,
        time,
        sync,
        latest: () => latest.current,
        read: (text) => write(reading.current, text ?? restText(latest.current)),
      }),
      data,
      element,
    );
    chart.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
    };
  }, [isDark, height, time, sync]);

  useEffect(() => {
    chart.current?.setData(data);
  }, [data, markers, span?.[0], span?.[1]]);

  return (
    <figure class="plot" aria-label={`${title}, ${unit}: last value ${rest}, ${x.length} points`}>
      <figcaption>
        <span>{title}</span>
        <span class="plot-value" ref={reading}>
          {rest}
        </span>
      </figcaption>
      <div class="plot-host" ref={host} style={{ height: `${height}px` }} />
    </figure>
  );
}

const restText = ({ y, format }: PlotProps) => {
  const last = y.findLast((value) => value !== null);
  return last === undefined || last === null ? "–" : format(last);
};

function write(element: HTMLElement | null, text: string): void {
  if (element) element.textContent = text;
}

interface Making {
  width: number;
  height: number;
  time: boolean;
  sync: string | undefined;
  latest: () => PlotProps;
  read: (text: string | undefined) => void;
}

function options({ width, height, time, sync, latest, read }: Making): uPlot.Options {
  const accent = resolveColour("accent");
  const line = resolveColour("line");
  const muted = resolveColour("muted");
  const font = `11px ${getComputedStyle(document.body).fontFamily}`;
  const axis = { stroke: muted, font, grid: { stroke: line, width: 1 }, ticks: { show: false } };
  return {
    width,
    height,
    legend: { show: false },
    cursor: {
      y: false,
      points: { size: 6 },
      drag: { x: false, y: false },
      ...(sync ? { sync: { key: sync } } : {}),
    },
    scales: {
      x: { time, range: (_chart, min, max) => xRange(latest().span, min, max) },
      y: { range: (_chart, min, max) => yRange(latest(), min, max) },
    },
    series: [
      {},
      {
        stroke: accent,
        width: 1.5,
        fill: (chart) => (chart.scales["y"]?.min === 0 ? resolveColour("accent-faint") : "transparent"),
        spanGaps: false,
        points: { show: (chart) => chart.data[0].length < 3 },
      },
    ],
    axes: [
      {
        ...axis,
        size: 26,
        space: 80,
        grid: { show: false },
        values: (chart, values) => values.map((value) => (time ? clockTick(chart, value) : String(value))),
      },
      {
        ...axis,
        size: 52,
        space: 30,
        values: (_chart, values) => values.map((value) => latest().format(value)),
      },
    ],
    padding: [16, 18, 0, 0],
    hooks: {
      setCursor: [
        (chart) => {
          const at = chart.cursor.idx;
          const value = at === null || at === undefined ? undefined : chart.data[1]?.[at];
          const when = at === null || at === undefined ? 0 : (chart.data[0][at] ?? 0);
          if (value === undefined) read(undefined);
          else
            read(
              `${time ? formatClock(when * 1000) : `step ${when}`} · ${value === null ? "–" : latest().format(value)}`,
            );
        },
      ],
      draw: [(chart) => drawMarkers(chart, latest().markers ?? [], muted, font)],
    },
  };
}

/** Hours and minutes; with seconds where the span is short, the day where it is long. */
function clockTick(chart: uPlot, seconds: number): string {
  const { min, max } = chart.scales["x"] ?? {};
  const spanSeconds = (max ?? 0) - (min ?? 0);
  const date = new Date(seconds * 1000);
  if (spanSeconds > 172_800) return date.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  const clock = formatClock(seconds * 1000);
  return spanSeconds < 600 ? clock : clock.slice(0, 5);
}

function xRange(span: PlotProps["span"], min: number | null, max: number | null): [number, number] {
  if (span) return [span[0], span[1]];
  if (min === null || max === null) return [0, 1];
  return min === max ? [min - 1, max + 1] : [min, max];
}

function yRange({ min, max }: PlotProps, low: number | null, high: number | null): [number, number] {
  const from = min ?? low ?? 0;
  const to = max ?? high ?? 1;
  if (to > from) {
    const pad = (to - from) * 0.1;
    return [min ?? Math.max(0, from - pad), max ?? to + pad];
  }
  const around = Math.abs(from) || 1;
  return [Math.max(0, from - around * 0.5), from + around * 0.5];
}

/** A dashed line with its label where the version changed; labels that would lie on one another are left out. */
function drawMarkers(chart: uPlot, markers: readonly PlotMarker[], colour: string, font: string): void {
  const { ctx, bbox } = chart;
  const ratio = devicePixelRatio;
  ctx.save();
  ctx.font = font.replace("11px", `${11 * ratio}px`);
  ctx.strokeStyle = colour;
  ctx.fillStyle = colour;
  ctx.lineWidth = ratio;
  ctx.setLineDash([3 * ratio, 3 * ratio]);
  let freeFrom = Number.NEGATIVE_INFINITY;
  for (const { at, label } of markers.toSorted((a, b) => a.at - b.at)) {
    const left = chart.valToPos(at, "x", true);
    if (left < bbox.left || left > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(left, bbox.top);
    ctx.lineTo(left, bbox.top + bbox.height);
    ctx.stroke();
    const { width } = ctx.measureText(label);
    const start = Math.min(left - 2 * ratio, bbox.left + bbox.width - width);
    if (start < freeFrom) continue;
    freeFrom = start + width + 6 * ratio;
    ctx.textAlign = "left";
    ctx.fillText(label, start, bbox.top - 4 * ratio);
  }
  ctx.restore();
}
