import type { RolloutView } from "@fieldloop/protocol";
import { Link, useLocation } from "wouter-preact";
import { useResource } from "../api/resource.js";
import { whyNot } from "../api/session.js";
import { formatCount, words } from "../lib/format.js";
import { ROLLOUT_KIND } from "../lib/kinds.js";
import { isSuperseded } from "../lib/rollouts.js";
import { rolloutPath } from "../lib/url.js";
import { Command, State, Time } from "../ui/atoms.js";
import { Empty, Loaded, Page } from "../ui/layout.js";
import { rowClick, useListKeys } from "../ui/list.js";
import { Share } from "../ui/share.js";
import { DeviceBar, Superseders } from "./rollout-parts.js";

export function RolloutsPage() {
  const rollouts = useResource<{ items: RolloutView[] }>("/rollouts", { live: ["rollout"] });
  const refused = whyNot("operator");
  return (
    <Page
      title="Rollouts"
      actions={
        refused ? (
          <button type="button" disabled title={refused}>
            New rollout
          </button>
        ) : (
          <Link class="button primary" href="/rollouts/new">
            New rollout
          </Link>
        )
      }
    >
      <Loaded from={rollouts} rows={5} height={49}>
        {({ items }) =>
          items.length === 0 ? (
            <NoRollouts />
          ) : (
            <RolloutTable rollouts={items.toSorted((a, b) => b.created - a.created)} />
          )
        }
      </Loaded>
    </Page>
  );
}

function RolloutTable({ rollouts }: { rollouts: readonly RolloutView[] }) {
  const [, navigate] = useLocation();
  const open = (rollout: RolloutView | undefined) => rollout && navigate(rolloutPath(rollout.rollout));
  const { at, ref } = useListKeys("Rollouts", rollouts.length, (index) => open(rollouts[index]));
  return (
    <div class="table-scroll panel flush" ref={ref as preact.RefObject<HTMLDivElement>}>
      <table class="rollouts">
        <thead>
          <tr>
            <th>Rollout</th>
            <th>State</th>
            <th>Change</th>
            <th>Devices</th>
            <th class="number">Waves</th>
            <th class="number">Accuracy before</th>
            <th class="number">Accuracy after</th>
            <th class="number">Created</th>
          </tr>
        </thead>
        <tbody>
          {rollouts.map((rollout, index) => {
            const { counts, subject, from } = rollout;
            const passed = rollout.waves.filter((wave) => wave.state === "passed").length;
            return (
              <tr
                key={rollout.rollout}
                data-row={index}
                aria-current={index === at ? "true" : undefined}
                onClick={rowClick(() => open(rollout))}
              >
                <td>
                  <Link class="strong nowrap" href={rolloutPath(rollout.rollout)}>
                    {rollout.name || rollout.rollout}
                  </Link>
                </td>
                <td>
                  <State kind={ROLLOUT_KIND[rollout.state]} title={rollout.reason ?? undefined}>
                    {words(rollout.state)}
                  </State>
                </td>
                <td class="col-change" title={rollout.title}>
                  {subject.kind === "package" ? (
                    <>
                      {subject.model}
                      {from?.version && <span class="muted"> @{from.version} → </span>}
                      <b>@{subject.version}</b>
                    </>
                  ) : (
                    rollout.title
                  )}
                </td>
                <td>
                  {!isSuperseded(rollout) && (
                    <span class="with-bar">
                      <DeviceBar counts={counts} />
                      <span class="nowrap">
                        {formatCount(counts.active)} / {formatCount(counts.total)}
                      </span>
                    </span>
                  )}
                  <Superseders rollout={rollout} />
                </td>
                <td class="number">
                  {passed} / {rollout.waves.length}
                </td>
                <td class="number">
                  <Share share={rollout.accuracy.before} />
                </td>
                <td class="number">
                  <Share share={rollout.accuracy.after} />
                </td>
                <td class="number">
                  <Time at={rollout.created} />
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

function NoRollouts() {
  return (
    <Empty title="No rollout yet">
      <p>
        A rollout puts a version on devices in waves and stops by itself where a gate fails.{" "}
        <Link href="/rollouts/new">Make one</Link>, or:
      </p>
      <Command text="fieldloop rollout create MODEL@VERSION --group all --watch" />
    </Empty>
  );
}
