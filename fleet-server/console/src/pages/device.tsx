import type { DeviceDetail, Page as ListPage, PredictionView, SampleView } from "@fieldloop/protocol";
import { Link } from "wouter-preact";
import { request, withQuery } from "../api/client.js";
import { useResource } from "../api/resource.js";
import { whyNot } from "../api/session.js";
import {
  formatBytes,
  formatCount,
  formatMs,
  formatNumber,
  formatPercent,
  formatRate,
  plural,
  words,
} from "../lib/format.js";
import { HEALTH } from "../lib/kinds.js";
import { notifyDone, notifyError } from "../lib/toast.js";
import { Badge, Copy, State, Time } from "../ui/atoms.js";
import { Empty, Facts, Loaded, Page, Panel, Problem, Skeleton, Tile } from "../ui/layout.js";
import { Share } from "../ui/share.js";
import { SampleTile } from "./sample-parts.js";
import { DeviceCharts } from "./device-charts.js";
import { DeviceLanes } from "./device-lanes.js";
import { DeviceRuns } from "./device-runs.js";

const PREDICTIONS_SHOWN = 20;
const SAMPLES_SHOWN = 12;
/** Inputs that one press asks for. */
const CAPTURED = 5;
const PARENTS = [{ title: "Fleet", href: "/fleet" }];

export function DevicePage({ device }: { device: string }) {
  const at = `/devices/${encodeURIComponent(device)}`;
  const mine = {
    match: (event: { device?: string | undefined; id: string }) => (event.device ?? event.id) === device,
  };
  const detail = useResource<DeviceDetail>(at, { live: ["device", "predictions", "rollout"], ...mine });
  if (!detail.data) {
    return (
      <Page title={device} parents={PARENTS}>
        {detail.error ? <Problem error={detail.error} retry={detail.reload} /> : <Skeleton rows={8} />}
      </Page>
    );
  }
  const { data } = detail;
  const refused = whyNot("operator") ?? (data.online ? undefined : "It is not connected");
  const health = HEALTH[data.health];
  return (
    <Page
      title={device}
      parents={PARENTS}
      actions={
        <button
          type="button"
          disabled={refused !== undefined}
          title={refused ?? `Asks for the next ${CAPTURED} inputs as samples`}
          onClick={() => capture(device)}
        >
          Capture {CAPTURED}
        </button>
      }
      beside={
        <>
          <Copy text={device} what="device id" />
          <Badge kind={health.kind} title={health.says}>
            {health.title}
          </Badge>
          {data.suspended && <Badge kind="idle">Suspended</Badge>}
          {Object.entries(data.tags).map(([key, value]) => (
            <span class="tag" key={key}>
              {key}={value}
            </span>
          ))}
        </>
      }
    >
      {detail.error && <Problem error={detail.error} retry={detail.reload} />}
      <div class="tiles">
        <Tile
          title="Predictions"
          value={formatRate(data.predictionsPerSecond)}
          note={`${formatCount(data.predictionsTotal)} stored`}
        />
        <Tile title="Mean confidence" value={formatPercent(data.meanConfidence)} note="last 10 min" />
        <Tile
          title="Accuracy, last 10 min"
          value={<Share share={data.accuracy} />}
          note={
            data.accuracy.count ? `from ${formatCount(data.accuracy.count)} with feedback` : "no feedback yet"
          }
        />
        <Tile
          title="Last seen"
          value={<Time at={data.lastSeen} none="never" />}
          note={data.online ? "connected" : "not connected"}
        />
      </div>
      <Warnings device={data} />
      <DeviceLanes device={data} />
      <DeviceCharts device={data} />
      <div class="columns">
        <DeviceRuns device={data} />
        <DeviceFacts device={data} />
      </div>
      <Predictions device={device} />
      <Samples device={device} />
    </Page>
  );
}

function capture(device: string): void {
  request(`/devices/${encodeURIComponent(device)}/commands`, {
    method: "POST",
    body: { kind: "capture", count: CAPTURED },
  }).then(
    () => notifyDone(`${device} was asked for ${CAPTURED} samples`),
    (problem: unknown) => notifyError("Capture", problem),
  );
}

function Warnings({ device }: { device: DeviceDetail }) {
  if (device.warnings.length === 0) return null;
  return (
    <Panel title="Warnings" flush>
      <ul class="rows">
        {device.warnings.map((warning) => (
          <li key={warning.code}>
            <State
              kind={
                warning.severity === "error" ? "error" : warning.severity === "warning" ? "warning" : "idle"
              }
            >
              <code>{warning.code}</code>
            </State>
            <span class="grow">{warning.message}</span>
            <span class="muted">
              since <Time at={warning.since} />
            </span>
          </li>
        ))}
      </ul>
    </Panel>
  );
}

function DeviceFacts({ device }: { device: DeviceDetail }) {
  const { state } = device;
  if (!state) {
    return (
      <Panel title="Hardware and health">
        <Empty title="It has not reported its state yet">It does so when its agent connects.</Empty>
      </Panel>
    );
  }
  const { facts, counters, spool } = state;
  return (
    <Panel
      title="Hardware and health"
      note={
        <>
          reported <Time at={state.time} />
        </>
      }
    >
      <Facts
        rows={[
          ["Processor", `${facts.cpuModel} · ${plural(facts.cpuCount, "core")} · ${facts.arch}`],
          ["Memory", formatBytes(facts.memoryBytes)],
          ["Execution providers", facts.executionProviders.join(", ") || "none"],
          ["Software", `agent ${state.agentVersion} · Node ${facts.nodeVersion} · ${facts.runtimeVersion}`],
          ["System", `${facts.platform} · ${facts.timeZone}`],
          [
            "Source",
            (state.lanes?.length ?? 0) > 1 ? `${state.lanes?.length}: see the lanes above` : state.source,
          ],
          [
            "Boot",
            `${formatCount(state.boot)}, with ${plural(counters.predictions, "prediction")} and ${plural(counters.samplesTaken, "sample")}`,
          ],
          [
            "Frames lost",
            `${formatCount(counters.framesDropped)} dropped, ${formatCount(counters.framesFailed)} failed`,
          ],
          [
            "Inference host",
            counters.hostRestarts === 0
              ? "never restarted"
              : `restarted ${plural(counters.hostRestarts, "time")}`,
          ],
          [
            "Spool",
            `${plural(spool.records, "record")} waiting · ${formatBytes(spool.bytes)} of ${formatBytes(spool.bytesMax)}${counters.recordsEvicted ? ` · ${formatCount(counters.recordsEvicted)} evicted` : ""}`,
          ],
          ["Enrolled", <Time at={device.enrolled} key="enrolled" />],
        ]}
      />
    </Panel>
  );
}

function Predictions({ device }: { device: string }) {
  const list = useResource<{ items: PredictionView[] }>(
    `/devices/${encodeURIComponent(device)}/predictions?limit=${PREDICTIONS_SHOWN}`,
    {
      live: ["predictions"],
      match: (event) => (event.device ?? event.id) === device,
    },
  );
  return (
    <Panel title="Latest predictions" note="newest first" flush>
      <Loaded from={list} rows={6} height={33}>
        {({ items }) =>
          items.length === 0 ? (
            <Empty title="No prediction yet">
              They arrive as soon as the device runs a model and its source gives frames.
            </Empty>
          ) : (
            <div class="table-scroll">
              <table class="compact">
                <thead>
                  <tr>
                    <th>Time</th>
                    <th>Prediction</th>
                    <th>Label</th>
                    <th class="number">Confidence</th>
                    <th>Truth</th>
                    <th class="number">Latency</th>
                    <th>Version</th>
                    <th>Signals</th>
                  </tr>
                </thead>
                <tbody>
                  {items.map((item) => (
                    <tr key={item.id}>
                      <td class="nowrap">
                        <Time at={item.time} />
                      </td>
                      <td>
                        <code>{item.id}</code>
                      </td>
                      <td class="strong">{decides(item) ? item.label : <span class="faint">–</span>}</td>
                      <td class="number">{decides(item) ? formatPercent(item.confidence) : "–"}</td>
                      <td>
                        <Truth label={item.label} truth={item.truth} />
                      </td>
                      <td class="number">{formatMs(item.latencyMs)}</td>
                      <td class="nowrap">
                        {item.model}@{item.version}
                      </td>
                      <td class="signals-inline">
                        {Object.entries(item.signals).map(([name, value]) => (
                          <span key={name}>
                            {words(name)} <b>{formatNumber(value, 2)}</b>
                          </span>
                        ))}
                      </td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
          )
        }
      </Loaded>
    </Panel>
  );
}

/** Confidence 1 as it comes off the wire, which rounds. */
const CERTAIN = 0.9996;

/** False for numbers, pictures and embeddings: such a model has no label to be sure of, and says class -1 with confidence 1. */
function decides({ class: predicted, confidence, signals }: PredictionView): boolean {
  return predicted >= 0 || confidence < CERTAIN || "margin" in signals || "entropy" in signals;
}

function Truth({ label, truth }: { label: string; truth: string | null }) {
  if (truth === null) return <span class="faint">–</span>;
  const right = truth === label;
  return (
    <State kind={right ? "ok" : "error"} title={right ? "Right" : `Wrong: it was ${truth}`}>
      {right ? "right" : truth}
    </State>
  );
}

function Samples({ device }: { device: string }) {
  const list = useResource<ListPage<SampleView>>(
    withQuery("/samples", { device, order: "newest", limit: SAMPLES_SHOWN }),
    {
      live: ["sample"],
      match: (event) => (event.device ?? device) === device,
      reloadMinMs: 4_000,
    },
  );
  return (
    <Panel
      title="Samples from this device"
      note="newest first"
      actions={<Link href={`/failures?device=${encodeURIComponent(device)}`}>Open in the inbox</Link>}
    >
      <Loaded from={list} rows={2} height={90}>
        {({ items }) =>
          items.length === 0 ? (
            <Empty title="No sample yet">
              The device sends inputs that its signals find worth a look, and a few by chance.
            </Empty>
          ) : (
            <div class="sample-strip">
              {items.map((sample) => (
                <SampleTile
                  key={sample.sample}
                  sample={sample}
                  href={`/failures?device=${encodeURIComponent(device)}&sample=${sample.sample}`}
                />
              ))}
            </div>
          )
        }
      </Loaded>
    </Panel>
  );
}
