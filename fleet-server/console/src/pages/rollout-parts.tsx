import type { RolloutDeviceCounts, RolloutDeviceView, RolloutView, WaveView } from "@fieldloop/protocol";
import { useState } from "preact/hooks";
import { Link } from "wouter-preact";
import { useResource } from "../api/resource.js";
import { now } from "../lib/clock.js";
import { formatCount, formatDuration, plural, words } from "../lib/format.js";
import { DEPLOYMENT_KIND, WAVE_KIND } from "../lib/kinds.js";
import { DEVICE_GROUPS, restoreText } from "../lib/rollouts.js";
import { devicePath, rolloutPath } from "../lib/url.js";
import { Badge, Dot } from "../ui/atoms.js";
import { Loaded } from "../ui/layout.js";
import { Gate } from "./rollout-gate.js";

/** Shares of devices by what they do. */
export function DeviceBar({ counts }: { counts: RolloutDeviceCounts }) {
  const says = DEVICE_GROUPS.filter((group) => counts[group] > 0).map(
    (group) => `${formatCount(counts[group])} ${group}`,
  );
  return (
    <span class="device-bar" role="img" aria-label={says.join(", ")} title={says.join(", ")}>
      {DEVICE_GROUPS.map(
        (group) =>
          counts[group] > 0 && (
            <span key={group} class={`part-${group}`} style={{ flexGrow: counts[group] }} />
          ),
      )}
    </span>
  );
}

/** Which newer rollouts took its devices, with the way to them. */
export function Superseders({ rollout }: { rollout: RolloutView }) {
  const { superseders } = rollout;
  if (superseders.length === 0) return null;
  return (
    <span class="superseded muted">
      superseded by{" "}
      {superseders.map(({ rollout: newer, title, devices }, at) => (
        <span key={newer}>
          {at > 0 && ", "}
          <Link href={rolloutPath(newer)}>{title}</Link> on {plural(devices, "device")}
        </span>
      ))}
    </span>
  );
}

/** One wave: how far its devices are, who they are, and the gate after it. */
export function Wave({ rollout, wave, of }: { rollout: string; wave: WaveView; of: number }) {
  const { counts } = wave;
  const endedMs =
    wave.started === null ? undefined : (wave.finished ?? Math.max(now.value, wave.started)) - wave.started;
  const left = wave.soakEnds === null ? 0 : wave.soakEnds - now.value;
  return (
    <section class={`wave wave-${wave.state}`} aria-label={`Wave ${wave.wave}`}>
      <header>
        <h3>
          {wave.plan === null ? "Control" : wave.name === "" ? `Wave ${wave.wave}` : wave.name}{" "}
          <span class="muted">
            {wave.name !== "" && wave.plan !== null && `${wave.wave} `}of {of}
          </span>
        </h3>
        <Badge kind={WAVE_KIND[wave.state]}>{wave.state}</Badge>
        <span class="muted">
          {plural(counts.total, "device")}
          {endedMs !== undefined && ` · ${formatDuration(endedMs)}${wave.finished === null ? " so far" : ""}`}
          {wave.state === "soaking" && left > 0 && ` · verdict in ${formatDuration(left)}`}
        </span>
        <span class="wave-count">
          <b>{formatCount(counts.active)}</b> active
        </span>
      </header>
      <DeviceBar counts={counts} />
      <WaveNotes wave={wave} />
      <WaveDevices key={`${wave.wave}`} rollout={rollout} wave={wave} />
      {wave.gate && <Gate gate={wave.gate} looks={wave.looks} />}
    </section>
  );
}

/** Who let it begin or pass, and why devices wait. */
function WaveNotes({ wave }: { wave: WaveView }) {
  const holds = Object.entries(wave.counts.holds).filter(([, count]) => (count ?? 0) > 0);
  const notes = [
    ...(wave.approval?.given === null ? ["Wants a person’s approval before it begins"] : []),
    ...(wave.approval?.given ? [`Approved by ${wave.approval.given.by}`] : []),
    ...(wave.forced ? [`Passed by hand by ${wave.forced.by}: ${wave.forced.reason}`] : []),
    ...(wave.state !== "pending" && holds.length > 0
      ? [
          `Waiting: ${holds.map(([why, count]) => `${formatCount(count)} for ${HOLD_TEXT[why] ?? why}`).join(", ")}`,
        ]
      : []),
  ];
  if (notes.length === 0) return null;
  return <p class="muted wave-notes">{notes.join(" · ")}</p>;
}

/** What a device waits for, in a sentence. */
export const HOLD_TEXT: Record<string, string> = {
  wave: "their wave",
  control: "the end, as control",
  approval: "an approval",
  schedule: "the start time",
  paused: "the rollout to resume",
  window: "their maintenance window",
  rate: "their turn (offers a minute)",
  budget: "their site’s budget",
  priority: "another rollout",
  incompatible: "a version that fits them",
  offline: "being online",
  suspended: "being allowed again",
  retry: "the next try",
};

const SHOWN = 60;

/** The devices that a person looks for first: failed and silent ones, then those that move. */
function WaveDevices({ rollout, wave }: { rollout: string; wave: WaveView }) {
  const { counts } = wave;
  const quiet = wave.state === "pending" || (counts.total > SHOWN && wave.state === "passed");
  const [open, setOpen] = useState(!quiet);
  const path = `/rollouts/${encodeURIComponent(rollout)}/devices?wave=${wave.wave}&order=worst&limit=${SHOWN}`;
  const devices = useResource<{ items: RolloutDeviceView[] }>(open ? path : null, {
    live: ["rollout"],
    reloadMinMs: 1_000,
  });
  if (!open) {
    return (
      <div class="chips">
        <button type="button" class="chip" onClick={() => setOpen(true)}>
          Show {plural(counts.total, "device")}
        </button>
      </div>
    );
  }
  return (
    <Loaded from={devices} rows={1} height={26}>
      {({ items }) => (
        <div class="chips">
          {items.map((device) => (
            <DeviceChip key={device.device} device={device} />
          ))}
          {counts.total > items.length && (
            <span class="muted">{formatCount(counts.total - items.length)} more</span>
          )}
        </div>
      )}
    </Loaded>
  );
}

function DeviceChip({ device }: { device: RolloutDeviceView }) {
  const why = device.errorCode ?? (device.hold ? device.hold.reason : words(device.state));
  const said = [device.errorMessage ?? device.hold?.detail ?? "", restoreText(device)];
  const more = said.filter((text) => text !== "").join("; ");
  return (
    <Link
      class="chip"
      href={devicePath(device.device)}
      title={`${device.device}: ${words(device.state)}${device.attempt > 1 ? `, try ${device.attempt}` : ""}${more ? `. ${more}` : ""}`}
    >
      <Dot kind={DEPLOYMENT_KIND[device.state]} />
      <span class="truncate">{device.device}</span>
      <small>{device.control ? `control, ${why}` : why}</small>
    </Link>
  );
}
