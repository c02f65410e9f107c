import type { RolloutEvent } from "@fieldloop/protocol";
import { useResource } from "../api/resource.js";
import { words } from "../lib/format.js";
import { Time } from "../ui/atoms.js";
import { Empty, Loaded, Panel } from "../ui/layout.js";

const ENTRIES = 100;

/** Everything that was decided about a rollout, by whom or by which gate; the newest first. */
export function History({ rollout }: { rollout: string }) {
  const path = `/rollouts/${encodeURIComponent(rollout)}/history?limit=${ENTRIES}`;
  const events = useResource<{ items: RolloutEvent[] }>(path, { live: ["rollout"], reloadMinMs: 1_000 });
  return (
    <Panel title="History">
      <Loaded from={events} rows={3} height={24}>
        {({ items }) =>
          items.length === 0 ? (
            <Empty title="Nothing has happened yet" />
          ) : (
            <ol class="history">
              {items.map((event) => (
                <li key={event.seq}>
                  <span class="muted">
                    <Time at={event.time} />
                  </span>
                  <span>{eventText(event)}</span>
                  <span class="muted">{event.actor}</span>
                </li>
              ))}
            </ol>
          )
        }
      </Loaded>
    </Panel>
  );
}

function eventText(event: RolloutEvent): string {
  switch (event.type) {
    case "rollout":
      return `Rollout ${words(event.state)}${event.reason ? `: ${event.reason}` : ""}`;
    case "wave":
      return `Wave ${event.wave} ${words(event.state)}`;
    case "verdict": {
      const { verdict, tests } = event.verdict;
      const decided = tests.filter((test) => test.verdict === verdict).map(({ detail }) => detail);
      return `Gate of wave ${event.wave}, look ${event.look}: ${verdict}${verdict === "pass" ? "" : `, ${decided.join("; ")}`}`;
    }
    case "action":
      return `${words(event.action)}${event.wave === null ? "" : ` wave ${event.wave}`}${event.reason ? `: ${event.reason}` : ""}`;
    case "devices": {
      const names = event.devices.map(({ device, errorCode }) =>
        errorCode ? `${device} (${errorCode})` : device,
      );
      return `${event.count} ${event.what}: ${names.slice(0, 5).join(", ")}${names.length > 5 ? ", …" : ""}`;
    }
  }
}
