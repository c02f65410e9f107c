import type { TrainingRun } from "@fieldloop/protocol";
import { Link, useLocation } from "wouter-preact";
import { formatCount, formatDuration, formatNumber } from "../lib/format.js";
import { TRAINING_KIND } from "../lib/kinds.js";
import { now } from "../lib/clock.js";
import { runPath, versionPath } from "../lib/url.js";
import { Meter, State, Time } from "../ui/atoms.js";
import { Empty } from "../ui/layout.js";
import { rowClick } from "../ui/list.js";

/** How long a run took, or has taken so far. */
export function tookMs(run: TrainingRun): number | undefined {
  return run.started === null ? undefined : (run.finished ?? Math.max(now.value, run.started)) - run.started;
}

export function TrainingTable({ runs }: { runs: readonly TrainingRun[] }) {
  const [, navigate] = useLocation();
  if (runs.length === 0) {
    return (
      <Empty title="No training run yet">
        <p>
          Label some <Link href="/failures">failures</Link>, then “Fix this”: a snapshot is frozen and a run
          starts from the version that failed.
        </p>
      </Empty>
    );
  }
  return (
    <div class="table-scroll">
      <table>
        <thead>
          <tr>
            <th>Run</th>
            <th>State</th>
            <th>From</th>
            <th>Candidate</th>
            <th class="number">Steps</th>
            <th class="number">Loss</th>
            <th class="number">Took</th>
            <th class="number">Created</th>
          </tr>
        </thead>
        <tbody>
          {runs
            .toSorted((a, b) => b.created - a.created)
            .map((run) => (
              <tr key={run.run} onClick={rowClick(() => navigate(runPath(run.run)))}>
                <td>
                  <Link class="strong nowrap" href={runPath(run.run)}>
                    {run.run}
                  </Link>
                </td>
                <td>
                  <State kind={TRAINING_KIND[run.state]} title={run.errorMessage ?? run.progress.message}>
                    {run.state}
                    {run.errorCode && <code>{run.errorCode}</code>}
                  </State>
                </td>
                <td class="nowrap">
                  {run.model}@{run.baseVersion}
                </td>
                <td>
                  {run.candidate === null ? (
                    <span class="faint">–</span>
                  ) : (
                    <Link href={versionPath(run.model, run.candidate)}>@{run.candidate}</Link>
                  )}
                </td>
                <td class="number">
                  <span class="with-meter">
                    {formatCount(run.progress.step)} / {formatCount(run.progress.steps)}
                    <Meter value={run.progress.step} max={run.progress.steps} label="Steps done" />
                  </span>
                </td>
                <td class="number">{formatNumber(run.progress.loss)}</td>
                <td class="number">{tookMs(run) === undefined ? "–" : formatDuration(tookMs(run)!)}</td>
                <td class="number">
                  <Time at={run.created} />
                </td>
              </tr>
            ))}
        </tbody>
      </table>
    </div>
  );
}
