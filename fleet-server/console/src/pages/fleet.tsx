import type { DeviceSummary, Overview } from "@fieldloop/protocol";
import { useMemo, useState } from "preact/hooks";
import { useLocation } from "wouter-preact";
import { useResource } from "../api/resource.js";
import { whyNot } from "../api/session.js";
import {
  type DeviceList,
  DEVICES_MAX,
  SORTS,
  type Sort,
  fetchDevices,
  matchesSearch,
  needsAttention,
  sortDevices,
} from "../lib/devices.js";
import { formatCount, formatNumber, formatRate } from "../lib/format.js";
import { HEALTH } from "../lib/kinds.js";
import { devicePath, useQuery } from "../lib/url.js";
import { Command, Dot } from "../ui/atoms.js";
import { Icon } from "../ui/icons.js";
import { Empty, Loaded, Page, Tile } from "../ui/layout.js";
import { Search } from "../ui/search.js";
import { Share } from "../ui/share.js";
import { AddDevice } from "./add-device.js";
import { DeviceTable } from "./fleet-table.js";

type Show = "all" | "attention" | DeviceSummary["health"];
const HEALTHS = Object.keys(HEALTH) as DeviceSummary["health"][];

export function FleetPage() {
  const overview = useResource<Overview>("/overview", {
    live: ["device", "predictions", "sample", "rollout", "training"],
    reloadMinMs: 3_000,
  });
  const devices = useResource<DeviceList>("/devices", {
    live: ["device", "predictions"],
    reloadMinMs: 3_000,
    fetch: fetchDevices,
  });
  const [adding, setAdding] = useState(false);
  const refused = whyNot("operator");
  return (
    <Page
      title="Fleet"
      actions={
        <button
          type="button"
          disabled={refused !== undefined}
          title={refused}
          onClick={() => setAdding(true)}
        >
          <Icon name="plus" size={14} />
          Add a device
        </button>
      }
    >
      {adding && <AddDevice close={() => setAdding(false)} />}
      <Summary overview={overview.data} />
      <Loaded from={devices} rows={8} height={41}>
        {(list) =>
          list.items.length === 0 ? (
            <NoDevices add={refused === undefined ? () => setAdding(true) : undefined} />
          ) : (
            <Devices list={list} />
          )
        }
      </Loaded>
    </Page>
  );
}

function Summary({ overview }: { overview: Overview | undefined }) {
  const devices = overview?.devices;
  return (
    <div class="tiles">
      <Tile
        title="Devices online"
        value={
          <>
            {formatCount(devices?.online)}
            <small> / {formatCount(devices?.total)}</small>
          </>
        }
        note={
          devices?.needAttention
            ? `${formatCount(devices.needAttention)} need attention`
            : "none needs attention"
        }
        href={devices?.needAttention ? "/fleet?show=attention" : "/fleet"}
        tone={devices?.needAttention ? "warn" : undefined}
      />
      <Tile
        title="Predictions"
        value={formatRate(overview?.predictionsPerSecond)}
        note={`${formatCount(overview?.predictionsTotal)} stored`}
      />
      <Tile
        title="Accuracy, last 10 min"
        value={overview ? <Share share={overview.accuracy} /> : "–"}
        note={
          overview?.accuracy.count
            ? `from ${formatCount(overview.accuracy.count)} with feedback`
            : "no feedback yet"
        }
      />
      <Tile
        title="Samples to label"
        value={formatCount(overview?.samplesUnlabelled)}
        note={`of ${formatCount(overview?.samplesTotal)} collected`}
        href="/failures?labelled=no"
      />
      <Tile
        title="On the wire"
        value={
          <>
            {formatNumber(overview?.bytesPerPrediction)}
            <small> B / prediction</small>
          </>
        }
        note="headers and acks included"
      />
    </div>
  );
}

function Devices({ list }: { list: DeviceList }) {
  const [query, setQuery] = useQuery();
  const [, navigate] = useLocation();
  const search = query.get("q") ?? "";
  const show = (query.get("show") ?? "all") as Show;
  const sort = SORTS.find((name) => name === query.get("sort")) ?? "trouble";
  const reverse = query.get("reverse") === "1";

  const found = useMemo(() => list.items.filter((device) => matchesSearch(device, search)), [list, search]);
  const shown = useMemo(
    () =>
      sortDevices(
        found.filter((device) => isShown(device, show)),
        sort,
        reverse,
      ),
    [found, show, sort, reverse],
  );
  const sortBy = (name: Sort) =>
    setQuery({
      sort: name === "trouble" ? undefined : name,
      reverse: name === sort && !reverse ? "1" : undefined,
    });
  return (
    <>
      <div class="filters">
        <Search
          value={search}
          change={(q) => setQuery({ q })}
          placeholder="Device, tag=value, version, hash"
          label="Search devices"
        />
        <Toggles
          found={found}
          show={show}
          change={(next) => setQuery({ show: next === "all" ? undefined : next })}
        />
      </div>
      {!list.complete && (
        <p class="notice">
          The fleet is larger than {formatCount(DEVICES_MAX)} devices: this table holds the first of them.
        </p>
      )}
      {shown.length === 0 ? (
        <Empty title="No device matches">
          <button type="button" onClick={() => setQuery({ q: undefined, show: undefined })}>
            Show all {formatCount(list.items.length)}
          </button>
        </Empty>
      ) : (
        <DeviceTable
          devices={shown}
          sort={sort}
          reverse={reverse}
          sortBy={sortBy}
          open={(device) => navigate(devicePath(device))}
        />
      )}
    </>
  );
}

function isShown(device: DeviceSummary, show: Show): boolean {
  if (show === "all") return true;
  return show === "attention" ? needsAttention(device) : device.health === show;
}

function Toggles({
  found,
  show,
  change,
}: {
  found: readonly DeviceSummary[];
  show: Show;
  change: (show: Show) => void;
}) {
  const toggle = (name: Show, title: string, says: string, dot?: preact.ComponentChildren) => {
    const count = found.filter((device) => isShown(device, name)).length;
    return (
      <button
        key={name}
        type="button"
        class="toggle"
        aria-pressed={show === name}
        disabled={count === 0 && show !== name}
        title={says}
        onClick={() => change(show === name ? "all" : name)}
      >
        {dot}
        {title}
        <b>{formatCount(count)}</b>
      </button>
    );
  };
  return (
    <fieldset class="toggles" aria-label="Show">
      {toggle("all", "All", "Every device")}
      {toggle(
        "attention",
        "Needs attention",
        "Not OK, or running another version than wanted; suspended devices are left out",
      )}
      <span class="toggles-gap" />
      {HEALTHS.map((health) =>
        toggle(health, HEALTH[health].title, HEALTH[health].says, <Dot kind={HEALTH[health].kind} />),
      )}
    </fieldset>
  );
}

function NoDevices({ add }: { add: (() => void) | undefined }) {
  return (
    <Empty title="No device has enrolled yet">
      <p>A device is any machine that runs the agent. It enrols with a token that works once:</p>
      <Command text="fieldloop device enroll-token" />
      <Command text={`fieldloop agent --server ${location.origin} --enroll TOKEN --source folder:./images`} />
      {add && (
        <button type="button" class="primary" onClick={add}>
          Give me the whole command
        </button>
      )}
    </Empty>
  );
}
