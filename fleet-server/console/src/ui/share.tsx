import type { Proportion } from "@fieldloop/protocol";
import { UNKNOWN, formatCount, formatPercent } from "../lib/format.js";

const says = (share: Proportion, what: string) =>
  `${formatCount(share.successes)} of ${formatCount(share.count)} ${what}; 95 % interval ${formatPercent(share.low)} to ${formatPercent(share.high)} (Wilson)`;

/** A share with its interval in small: `94.2 %  91.8–95.9`. */
export function Share({
  share,
  what = "right",
  stacked = false,
}: {
  share: Proportion;
  what?: string;
  stacked?: boolean;
}) {
  if (share.value === null) {
    return (
      <span class="share faint" title="Nothing is known yet: no label and no feedback">
        {UNKNOWN}
      </span>
    );
  }
  return (
    <span class={stacked ? "share stacked" : "share"} title={says(share, what)}>
      <span>{formatPercent(share.value)}</span>
      <small>
        {(share.low * 100).toFixed(1)}–{(share.high * 100).toFixed(1)}
      </small>
    </span>
  );
}

export interface IntervalRow {
  label: string;
  share: Proportion;
  tone: "base" | "candidate";
}

/** Shares with their intervals on one axis: whether two differ is seen at a glance. */
export function Intervals({ rows, from }: { rows: readonly IntervalRow[]; from?: number }) {
  const known = rows.filter((row) => row.share.value !== null);
  const low = from ?? axisStart(known);
  const place = (value: number) => `${(Math.max(value - low, 0) / (1 - low)) * 100}%`;
  return (
    <div class="intervals">
      {rows.map(({ label, share, tone }) => (
        <div
          class={`interval interval-${tone}`}
          key={label}
          title={share.value === null ? "Not known" : says(share, "right")}
        >
          <span class="interval-label truncate">{label}</span>
          <span class="interval-track" aria-hidden="true">
            {share.value !== null && (
              <>
                <span
                  class="interval-range"
                  style={{ left: place(share.low), right: `${100 - Number.parseFloat(place(share.high))}%` }}
                />
                <span class="interval-dot" style={{ left: place(share.value) }} />
              </>
            )}
          </span>
          <span class="interval-value">{formatPercent(share.value)}</span>
          <span class="interval-count">n {formatCount(share.count)}</span>
        </div>
      ))}
      <div class="interval interval-axis" aria-hidden="true">
        <span />
        <span class="interval-track">
          <span>{formatPercent(low, 0)}</span>
          <span>{formatPercent((1 + low) / 2, 0)}</span>
          <span>100 %</span>
        </span>
      </div>
    </div>
  );
}

/** A round start of the axis a little below the lowest interval. */
function axisStart(rows: readonly IntervalRow[]): number {
  const lowest = Math.min(1, ...rows.map((row) => row.share.low));
  return Math.max(0, Math.floor(lowest * 10 - 0.5) / 10);
}
