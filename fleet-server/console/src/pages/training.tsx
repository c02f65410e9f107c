import type { Evaluation, TrainingRun } from "@fieldloop/protocol";
import { useMemo } from "preact/hooks";
import { Link } from "wouter-preact";
import { request } from "../api/client.js";
import { useResource } from "../api/resource.js";
import { whyNot } from "../api/session.js";
import { formatCount, formatDuration, formatNumber, formatPercent } from "../lib/format.js";
import { TRAINING_KIND } from "../lib/kinds.js";
import { notifyError } from "../lib/toast.js";
import { versionPath } from "../lib/url.js";
import { Badge, Copy, Hash, Meter, Time } from "../ui/atoms.js";
import { Empty, Facts, Loaded, Page, Panel } from "../ui/layout.js";
import { Plot } from "../ui/plot.js";
import { EvaluationPanel } from "./evaluation.js";
import { tookMs } from "./training-parts.js";

export function TrainingPage({ run: id }: { run: string }) {
  const run = useResource<TrainingRun>(`/training-runs/${encodeURIComponent(id)}`, {
    live: ["training"],
    match: (event) => event.id === id,
    reloadMinMs: 700,
  });
  const { data } = run;
  return (
    <Page
      title={id}
      name={`Training ${id}`}
      parents={[
        { title: "Models", href: "/models" },
        ...(data ? [{ title: data.model, href: `/models/${encodeURIComponent(data.model)}` }] : []),
      ]}
      beside={
        data && (
          <>
            <Copy text={id} what="run id" />
            <Badge kind={TRAINING_KIND[data.state]}>{data.state}</Badge>
          </>
        )
      }
      actions={data && <Actions run={data} done={run.set} />}
    >
      <Loaded from={run} rows={8}>
        {(loaded) => <Run run={loaded} />}
      </Loaded>
    </Page>
  );
}

function Actions({ run, done }: { run: TrainingRun; done: (run: TrainingRun) => void }) {
  const refused = whyNot("operator");
  if (run.state === "succeeded" && run.candidate !== null) {
    return (
      <Link
        class="button primary"
        href={`/rollouts/new?model=${encodeURIComponent(run.model)}&version=${run.candidate}`}
      >
        Roll out {run.model}@{run.candidate}
      </Link>
    );
  }
  if (run.finished !== null) return null;
  const cancel = async () => {
    try {
      done(
        await request<TrainingRun>(`/training-runs/${encodeURIComponent(run.run)}/cancel`, {
          method: "POST",
        }),
      );
    } catch (error) {
      notifyError("Cancel the run", error);
    }
  };
  return (
    <button
      type="button"
      class="danger"
      disabled={refused !== undefined}
      title={refused}
      onClick={() => void cancel()}
    >
      Cancel the run
    </button>
  );
}

function Run({ run }: { run: TrainingRun }) {
  const { progress, settings } = run;
  const evaluations = useResource<{ items: Evaluation[] }>(
    run.candidate === null ? null : `/evaluations?model=${encodeURIComponent(run.model)}`,
    { live: ["evaluation"] },
  );
  const evaluation = evaluations.data?.items.find((each) => each.run === run.run);
  const took = tookMs(run);
  return (
    <>
      {run.errorCode && (
        <div class="problem" role="alert">
          <div>
            <p class="problem-title">
              {run.errorMessage} <code>{run.errorCode}</code>
            </p>
          </div>
        </div>
      )}
      <Panel title="Training" note={run.finished === null ? progress.message : undefined}>
        <div class="run-progress">
          <Meter value={progress.step} max={progress.steps} label="Steps done" />
          <span>
            step <b>{formatCount(progress.step)}</b> of {formatCount(progress.steps)}
          </span>
          <span>
            loss <b>{formatNumber(progress.loss)}</b>
          </span>
          {took !== undefined && (
            <span>
              {run.finished === null ? "so far" : "took"} <b>{formatDuration(took)}</b>
            </span>
          )}
        </div>
        <LossCurve run={run} />
      </Panel>
      {evaluation && <EvaluationPanel evaluation={evaluation} title="Evaluation of the candidate" />}
      <Panel title="Settings">
        <Facts
          rows={[
            [
              "From",
              <Link href={versionPath(run.model, run.baseVersion)} key="from">
                {run.model}@{run.baseVersion}
              </Link>,
            ],
            [
              "Candidate",
              run.candidate === null ? (
                "none yet"
              ) : (
                <Link href={versionPath(run.model, run.candidate)} key="candidate">
                  {run.model}@{run.candidate}
                </Link>
              ),
            ],
            ["Snapshot", <Hash value={run.snapshot} copy key="snapshot" />],
            [
              "Trained parts",
              { head: "the head only", last: "the last block", all: "the whole network" }[settings.trainable],
            ],
            [
              "Steps and batch",
              `${formatCount(settings.steps)} steps of ${formatCount(settings.batch)} inputs`,
            ],
            ["Learning rate", formatNumber(settings.rate)],
            ["Old data in each batch", formatPercent(settings.replayShare, 0)],
            ["Kept out for evaluation", formatPercent(settings.validationShare, 0)],
            ["Seed", String(settings.seed)],
            ["Created", <Time at={run.created} key="created" />],
          ]}
        />
      </Panel>
    </>
  );
}

function LossCurve({ run }: { run: TrainingRun }) {
  const { losses, step } = run.progress;
  const x = useMemo(
    () => losses.map((_, index) => Math.round(((index + 1) * step) / losses.length)),
    [losses, step],
  );
  if (losses.length === 0) {
    return (
      <Empty title={run.state === "queued" ? "Waiting for its turn" : "No loss was reported"}>
        {run.state === "queued" ? "One run trains at a time." : run.progress.message}
      </Empty>
    );
  }
  return (
    <Plot
      title="Loss"
      unit="cross-entropy a step"
      x={x}
      y={losses}
      format={formatNumber}
      time={false}
      height={220}
      min={0}
      span={[0, run.progress.steps]}
    />
  );
}
