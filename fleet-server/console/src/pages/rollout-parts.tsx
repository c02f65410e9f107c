import type { GateVerdict, RolloutDeviceView, WaveView } from "@fieldloop/protocol";
import { useState } from "preact/hooks";
import { Link } from "wouter-preact";
import { useResource } from "../api/resource.js";
import { formatCount, formatDuration, plural, words } from "../lib/format.js";
import { DEPLOYMENT_KIND, VERDICT_KIND, WAVE_KIND } from "../lib/kinds.js";
import {
  type DeviceCounts,
  type DeviceGroup,
  countDevices,
  describeTest,
  groupOf,
  worstFirst,
} from "../lib/rollouts.js";
import { devicePath } from "../lib/url.js";
import { now } from "../lib/clock.js";
import { Badge, Dot, State } from "../ui/atoms.js";

const GROUPS: readonly { group: DeviceGroup; title: string }[] = [
  { group: "active", title: "active" },
  { group: "moving", title: "updating" },
  { group: "silent", title: "silent" },
  { group: "failed", title: "failed" },
  { group: "waiting", title: "waiting" },
];
const CHIPS_MAX = 60;

/** Shares of a wave's devices by what they do. */
export function DeviceBar({ counts }: { counts: DeviceCounts }) {
  const says = GROUPS.filter(({ group }) => counts[group] > 0).map(
    ({ group, title }) => `${formatCount(counts[group])} ${title}`,
  );
  return (
    <span class="device-bar" role="img" aria-label={says.join(", ")} title={says.join(", ")}>
      {GROUPS.map(
        ({ group }) =>
          counts[group] > 0 && (
            <span key={group} class={`part-${group}`} style={{ flexGrow: counts[group] }} />
          ),
      )}
    </span>
  );
}

/** One wave: how far its devices are, each of them, and the gate after it. */
export function Wave({ rollout, wave, of }: { rollout: string; wave: WaveView; of: number }) {
  const [all, setAll] = useState(false);
  const counts = countDevices([wave]);
  const order: DeviceGroup[] = ["failed", "silent", "moving", "active", "waiting"];
  const page = useResource<{ items: RolloutDeviceView[] }>(
    `/rollouts/${encodeURIComponent(rollout)}/devices?wave=${wave.wave}&limit=500`,
    { live: ["rollout"], reloadMinMs: 1_000 },
  );
  const devices = (page.data?.items ?? []).toSorted(
    (a, b) => order.indexOf(groupOf(a.state)) - order.indexOf(groupOf(b.state)),
  );
  const shown = all ? devices : devices.slice(0, CHIPS_MAX);
  const endedMs =
    wave.started === null ? undefined : (wave.finished ?? Math.max(now.value, wave.started)) - wave.started;
  return (
    <section class={`wave wave-${wave.state}`} aria-label={`Wave ${wave.wave}`}>
      <header>
        <h3>
          Wave {wave.wave} <span class="muted">of {of}</span>
        </h3>
        <Badge kind={WAVE_KIND[wave.state]}>{wave.state}</Badge>
        <span class="muted">
          {plural(counts.total, "device")}
          {endedMs !== undefined && ` · ${formatDuration(endedMs)}${wave.finished === null ? " so far" : ""}`}
        </span>
        <span class="wave-count">
          <b>{formatCount(counts.active)}</b> active
        </span>
      </header>
      <DeviceBar counts={counts} />
      <div class="chips">
        {shown.map((device) => (
          <Link
            key={device.device}
            class="chip"
            href={devicePath(device.device)}
            title={`${device.device}: ${words(device.state)}${device.errorCode ? `, ${device.errorCode}` : ""}${device.hold ? `: ${device.hold.detail || device.hold.reason}` : ""}`}
          >
            <Dot kind={DEPLOYMENT_KIND[device.state]} />
            <span class="truncate">{device.device}</span>
            <small>{device.errorCode ?? words(device.hold?.reason ?? device.state)}</small>
          </Link>
        ))}
        {devices.length > shown.length && (
          <button type="button" class="chip" onClick={() => setAll(true)}>
            {formatCount(devices.length - shown.length)} more
          </button>
        )}
      </div>
      {wave.gate && <Gate gate={wave.gate} />}
    </section>
  );
}

function Gate({ gate }: { gate: GateVerdict }) {
  return (
    <div class="table-scroll gate">
      <table class="compact">
        <thead>
          <tr>
            <th>Gate</th>
            <th>Verdict</th>
            <th class="number">Value</th>
            <th class="number">Limit</th>
            <th>Counted from</th>
          </tr>
        </thead>
        <tbody>
          {worstFirst(gate.tests).map((test) => {
            const text = describeTest(test);
            return (
              <tr key={test.test}>
                <td class="strong nowrap">{text.title}</td>
                <td>
                  <State kind={VERDICT_KIND[test.verdict]}>{test.verdict}</State>
                </td>
                <td class="number nowrap">{text.value}</td>
                <td class="number nowrap muted">{text.limit}</td>
                <td class="muted detail">{test.detail}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}
