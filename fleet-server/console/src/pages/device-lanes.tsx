import type { DeviceDetail, LaneState } from "@fieldloop/protocol";
import { Link } from "wouter-preact";
import { formatCount, formatNumber, formatPercent, words } from "../lib/format.js";
import { DEPLOYMENT_KIND } from "../lib/kinds.js";
import { versionPath } from "../lib/url.js";
import { State } from "../ui/atoms.js";
import { Panel } from "../ui/layout.js";

/** The sources of a device with several, and what each runs. A device with one says it elsewhere on the page. */
export function DeviceLanes({ device }: { device: DeviceDetail }) {
  const lanes = device.state?.lanes ?? [];
  if (lanes.length < 2) return null;
  return (
    <Panel title="Lanes" note="one for each source, the highest priority runs first" flush>
      <div class="table-scroll">
        <table class="compact">
          <thead>
            <tr>
              <th>Lane</th>
              <th>Source</th>
              <th>Runs</th>
              <th>Provider</th>
              <th>Update</th>
              <th class="number">Priority</th>
              <th class="number">Frames</th>
              <th class="number">Dropped</th>
              <th class="number">Skipped</th>
              <th class="number">Failed</th>
            </tr>
          </thead>
          <tbody>
            {lanes.map((lane) => (
              <tr key={lane.name}>
                <td class="strong">{lane.name}</td>
                <td title={lane.source}>
                  <div class="truncate lane-source">{lane.source}</div>
                  <SourceTroubles lane={lane} />
                </td>
                <td class="nowrap">
                  <Runs lane={lane} />
                </td>
                <td class="nowrap">
                  <Provider lane={lane} />
                </td>
                <td>
                  <Update lane={lane} />
                </td>
                <td class="number">{lane.priority}</td>
                <td class="number">
                  {formatCount(lane.framesSeen)}
                  {lane.rateMax !== null && (
                    <State kind="warning" title="The device is hot or busy: it holds this lane back">
                      at most {formatNumber(lane.rateMax, 1)}/s
                    </State>
                  )}
                </td>
                <td class="number">{formatCount(lane.framesDropped)}</td>
                <td class="number">{formatCount(lane.framesSkipped)}</td>
                <td class="number">{formatCount(lane.framesFailed)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Panel>
  );
}

/** Names under which sources count what did not go well, and how a person says it. */
const TROUBLES = { malformedRows: "malformed rows", gaps: "gaps", restarts: "restarts" } as const;

/** What a source left out or lost; nothing where all went well. */
function SourceTroubles({ lane: { sourceCounts = {} } }: { lane: LaneState }) {
  const counted = Object.entries(TROUBLES)
    .map(([name, text]) => [sourceCounts[name] ?? 0, text] as const)
    .filter(([count]) => count > 0);
  if (counted.length === 0) return null;
  const text = counted.map(([count, name]) => `${formatCount(count)} ${name}`).join(", ");
  return <div class="muted">{text}</div>;
}

function Runs({ lane: { running, model } }: { lane: LaneState }) {
  if (!running) return <span class="muted">{model === null ? "nothing" : `nothing, wants ${model}`}</span>;
  return (
    <Link href={versionPath(running.model, running.version)} title={running.packageSha256}>
      {running.model}@{running.version}
    </Link>
  );
}

function Provider({ lane: { running } }: { lane: LaneState }) {
  if (!running) return <span class="faint">–</span>;
  const shares = Object.entries(running.providerShares ?? {})
    .map(([provider, share]) => `${provider} ${formatPercent(share)}`)
    .join(", ");
  return (
    <span title={shares === "" ? undefined : `Share of the nodes: ${shares}`}>
      {running.variant} on {running.executionProvider}
    </span>
  );
}

function Update({ lane: { deployment } }: { lane: LaneState }) {
  if (!deployment) return <span class="faint">–</span>;
  return (
    <State kind={DEPLOYMENT_KIND[deployment.state]} title={deployment.error?.message}>
      {words(deployment.state)}
      {deployment.error && <code>{deployment.error.code}</code>}
    </State>
  );
}
