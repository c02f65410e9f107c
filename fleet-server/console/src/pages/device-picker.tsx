import type { DeviceSummary } from "@fieldloop/protocol";
import { useState } from "preact/hooks";
import { matchesSearch } from "../lib/devices.js";
import { formatCount } from "../lib/format.js";
import { HEALTH } from "../lib/kinds.js";
import { Dot } from "../ui/atoms.js";
import { Search } from "../ui/search.js";

const SHOWN_MAX = 200;

/** A searchable list of check boxes; "choose all" means all that the search found. */
export function DevicePicker({
  devices,
  chosen,
  change,
}: {
  devices: readonly DeviceSummary[];
  chosen: ReadonlySet<string>;
  change: (chosen: ReadonlySet<string>) => void;
}) {
  const [search, setSearch] = useState("");
  const found = devices.filter((device) => matchesSearch(device, search));
  const toggle = (device: string) => {
    const next = new Set(chosen);
    if (!next.delete(device)) next.add(device);
    change(next);
  };
  return (
    <div class="picker">
      <div class="picker-head">
        <Search
          value={search}
          change={setSearch}
          placeholder="Device or tag=value"
          label="Search devices to choose"
        />
        <button
          type="button"
          onClick={() => change(new Set([...chosen, ...found.map((device) => device.device)]))}
        >
          Choose all {formatCount(found.length)}
        </button>
        <button type="button" disabled={chosen.size === 0} onClick={() => change(new Set())}>
          Choose none
        </button>
        <span class="muted">{formatCount(chosen.size)} chosen</span>
      </div>
      <div class="picker-list">
        {found.slice(0, SHOWN_MAX).map((device) => (
          <label key={device.device} class="check">
            <input
              type="checkbox"
              checked={chosen.has(device.device)}
              onChange={() => toggle(device.device)}
            />
            <Dot kind={HEALTH[device.health].kind} />
            <span class="truncate">{device.device}</span>
            <small class="muted">
              {device.running ? `${device.running.model}@${device.running.version}` : "runs nothing"}
              {device.lanes.length > 1 && ` and ${device.lanes.length - 1} more`}
            </small>
          </label>
        ))}
        {found.length > SHOWN_MAX && (
          <p class="muted">{formatCount(found.length - SHOWN_MAX)} more: narrow the search</p>
        )}
      </div>
    </div>
  );
}
