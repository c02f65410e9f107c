import type { SampleView } from "@fieldloop/protocol";
import { useEffect, useMemo, useState } from "preact/hooks";
import { formatNumber } from "../lib/format.js";
import { ROW_MEDIA, WINDOW_MEDIA, envelope, loadRow, loadWindow } from "../lib/media.js";

/** What the device saw: the image, the sensor window as a line, or the row as a table. */
export function SampleMedia({ sample, large = false }: { sample: SampleView; large?: boolean }) {
  if (sample.mediaType === WINDOW_MEDIA) return <WindowPlot url={sample.payloadUrl} large={large} />;
  if (sample.mediaType === ROW_MEDIA) return <RowTable url={sample.payloadUrl} large={large} />;
  return <SampleImage key={sample.payloadUrl} sample={sample} large={large} />;
}

/** Images narrower than this are shown pixel by pixel, not blurred. */
const PIXELS_BELOW = 160;

function SampleImage({ sample, large }: { sample: SampleView; large: boolean }) {
  const [failed, setFailed] = useState(false);
  if (failed) return <span class="media-missing">The image was not sent</span>;
  return (
    <img
      class={large ? "media large" : "media"}
      src={sample.payloadUrl}
      alt={large ? `Sample ${sample.sample}: the device said ${sample.label}` : ""}
      loading={large ? "eager" : "lazy"}
      decoding={large ? "sync" : "async"}
      draggable={false}
      onLoad={(event) =>
        event.currentTarget.classList.toggle("pixels", event.currentTarget.naturalWidth < PIXELS_BELOW)
      }
      onError={() => setFailed(true)}
    />
  );
}

/** Columns that a tile has room for. */
const TILE_COLUMNS_MAX = 6;

function RowTable({ url, large }: { url: string; large: boolean }) {
  const [row, setRow] = useState<[string, string][] | undefined>(undefined);
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    let wanted = true;
    setFailed(false);
    loadRow(url).then(
      (loaded) => wanted && setRow(loaded),
      () => wanted && setFailed(true),
    );
    return () => {
      wanted = false;
    };
  }, [url]);
  if (failed) return <span class="media-missing">The row was not sent</span>;
  const shown = large ? row : row?.slice(0, TILE_COLUMNS_MAX);
  const hidden = (row?.length ?? 0) - (shown?.length ?? 0);
  return (
    <dl class={large ? "media row large" : "media row"}>
      {shown?.map(([column, value]) => (
        <div key={column}>
          <dt title={column}>{column}</dt>
          <dd title={value}>{value}</dd>
        </div>
      ))}
      {hidden > 0 && <div class="more">and {hidden} more</div>}
    </dl>
  );
}

const SIZE = {
  small: { width: 120, height: 120, columns: 60 },
  large: { width: 640, height: 300, columns: 320 },
};

function WindowPlot({ url, large }: { url: string; large: boolean }) {
  const [values, setValues] = useState<number[] | undefined>(undefined);
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    let wanted = true;
    setFailed(false);
    loadWindow(url).then(
      (loaded) => wanted && setValues(loaded),
      () => wanted && setFailed(true),
    );
    return () => {
      wanted = false;
    };
  }, [url]);
  const { width, height, columns } = large ? SIZE.large : SIZE.small;
  const drawn = useMemo(
    () => (values ? draw(values, width, height, columns) : undefined),
    [values, width, height, columns],
  );
  if (failed) return <span class="media-missing">The window was not sent</span>;
  const plot = (
    <svg
      class={large ? "media window large" : "media window"}
      viewBox={`0 0 ${width} ${height}`}
      preserveAspectRatio="none"
      role="img"
      aria-label={values ? `Window of ${values.length} values` : "Window is loading"}
    >
      {drawn && (
        <>
          <line class="window-zero" x1="0" x2={width} y1={drawn.zero} y2={drawn.zero} />
          <path d={drawn.path} />
        </>
      )}
    </svg>
  );
  if (!large) return plot;
  // Text beside the drawing, not in it: the drawing is stretched to its place.
  return (
    <div class="window-frame">
      {plot}
      {drawn && (
        <>
          <span class="high">{formatNumber(drawn.high)}</span>
          <span class="low">{formatNumber(drawn.low)}</span>
          <span class="count">{values?.length} values</span>
        </>
      )}
    </div>
  );
}

function draw(values: readonly number[], width: number, height: number, columns: number) {
  const parts = envelope(values, columns);
  const low = Math.min(...parts.map(([min]) => min));
  const high = Math.max(...parts.map(([, max]) => max));
  const range = high - low || 1;
  const y = (value: number) => (height * (0.04 + 0.92 * (1 - (value - low) / range))).toFixed(1);
  const x = (part: number) => (((part + 0.5) * width) / parts.length).toFixed(1);
  const path = parts
    .map(([min, max], part) => `${part === 0 ? "M" : "L"}${x(part)} ${y(max)}L${x(part)} ${y(min)}`)
    .join("");
  return { path, low, high, zero: y(Math.min(Math.max(0, low), high)) };
}
