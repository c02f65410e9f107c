import type { DeviceSummary } from "@fieldloop/protocol";
import { Link } from "wouter-preact";
import { isBehind, type Sort } from "../lib/devices.js";
import { formatCount, formatPercent, formatRate } from "../lib/format.js";
import { HEALTH } from "../lib/kinds.js";
import { devicePath } from "../lib/url.js";
import { State, Time, Version } from "../ui/atoms.js";
import { Icon } from "../ui/icons.js";
import { rowClick, useListKeys } from "../ui/list.js";
import { Share } from "../ui/share.js";
import { useRowWindow } from "../ui/window.js";

/** Pixels, as in the style sheet; on a phone a row has two lines. */
const ROW_HEIGHT = { wide: 41, narrow: 60 };
const narrow = matchMedia("(max-width: 720px)");
const COLUMNS: readonly { sort: Sort; title: string; number?: boolean; class: string }[] = [
  { sort: "device", title: "Device", class: "col-device" },
  { sort: "trouble", title: "Health", class: "col-health" },
  { sort: "version", title: "Running", class: "col-version" },
  { sort: "rate", title: "Predictions", number: true, class: "col-rate" },
  { sort: "confidence", title: "Confidence", number: true, class: "col-confidence" },
  { sort: "accuracy", title: "Accuracy", number: true, class: "col-accuracy" },
  { sort: "seen", title: "Last seen", number: true, class: "col-seen" },
];

interface DeviceTableProps {
  devices: readonly DeviceSummary[];
  sort: Sort;
  reverse: boolean;
  sortBy: (sort: Sort) => void;
  open: (device: string) => void;
}

export function DeviceTable({ devices, sort, reverse, sortBy, open }: DeviceTableProps) {
  const { at, ref } = useListKeys("Devices", devices.length, (index) => {
    const device = devices[index];
    if (device) open(device.device);
  });
  const view = useRowWindow(devices.length, narrow.matches ? ROW_HEIGHT.narrow : ROW_HEIGHT.wide);
  return (
    <div class="table-frame" ref={ref as preact.RefObject<HTMLDivElement>}>
      <table class="devices" aria-rowcount={devices.length}>
        <thead>
          <tr>
            {COLUMNS.map((column) => (
              <th
                key={column.sort}
                class={`${column.class} ${column.number ? "number" : ""}`}
                aria-sort={sort === column.sort ? (reverse ? "descending" : "ascending") : "none"}
              >
                <button type="button" onClick={() => sortBy(column.sort)}>
                  {column.title}
                  <span class="sort-mark" aria-hidden="true">
                    {sort === column.sort ? (reverse ? "↑" : "↓") : ""}
                  </span>
                </button>
              </th>
            ))}
          </tr>
        </thead>
        <tbody ref={view.body}>
          {view.above > 0 && <tr class="spacer" style={{ height: `${view.above}px` }} />}
          {devices.slice(view.first, view.last).map((device, offset) => (
            <Row
              key={device.device}
              device={device}
              index={view.first + offset}
              current={view.first + offset === at}
              open={open}
            />
          ))}
          {view.below > 0 && <tr class="spacer" style={{ height: `${view.below}px` }} />}
        </tbody>
      </table>
    </div>
  );
}

function Row({
  device,
  index,
  current,
  open,
}: {
  device: DeviceSummary;
  index: number;
  current: boolean;
  open: (device: string) => void;
}) {
  const health = HEALTH[device.health];
  const first = device.warnings[0];
  const tags = Object.entries(device.tags).map(([key, value]) => `${key}=${value}`);
  return (
    <tr
      data-row={index}
      aria-current={current ? "true" : undefined}
      onClick={rowClick(() => open(device.device))}
    >
      <td class="col-device">
        <span class="device-name">
          <Link href={devicePath(device.device)} class="strong truncate" title={device.device}>
            {device.device}
          </Link>
          <span class="tags truncate" title={tags.join(" ")}>
            {tags.join(" ")}
          </span>
          {device.suspended && <span class="tag">suspended</span>}
        </span>
      </td>
      <td class="col-health">
        <State kind={health.kind} title={first ? `${first.code}: ${first.message}` : health.says}>
          {health.title}
          {first && <small class="truncate">{first.code}</small>}
        </State>
      </td>
      <td class="col-version">
        <Running device={device} />
      </td>
      <td class="number col-rate" title={`${formatCount(device.predictionsTotal)} predictions in all`}>
        {formatRate(device.predictionsPerSecond)}
      </td>
      <td class="number col-confidence">{formatPercent(device.meanConfidence)}</td>
      <td class="number col-accuracy">
        <Share share={device.accuracy} />
      </td>
      <td class="number col-seen">
        <Time at={device.lastSeen} none="never" />
      </td>
    </tr>
  );
}

function sayLane({ name, running }: DeviceSummary["lanes"][number]): string {
  return `${name}: ${running ? `${running.model}@${running.version}` : "nothing"}`;
}

/** What runs, of several lanes the first; where that is not what is wanted, what is. */
export function Running({ device }: { device: DeviceSummary }) {
  const { running, wanted, lanes } = device;
  return (
    <span class="running">
      {running ? (
        <Version model={running.model} version={running.version} sha256={running.packageSha256} />
      ) : (
        <span class="faint">nothing</span>
      )}
      {lanes.length > 1 && (
        <span class="tag" title={lanes.map(sayLane).join("\n")}>
          +{lanes.length - 1}
        </span>
      )}
      {isBehind(device) && wanted && (
        <span
          class="behind"
          title={`Wanted: ${wanted.model}@${wanted.version}, package ${wanted.packageSha256}`}
        >
          <Icon name="arrow" size={12} />
          {running?.model === wanted.model ? "" : wanted.model}@{wanted.version}
        </span>
      )}
    </span>
  );
}
