import type { Evaluation, EvaluationResult, Proportion } from "@fieldloop/protocol";
import { useState } from "preact/hooks";
import { Link } from "wouter-preact";
import { formatCount, formatPercent, formatPoints, plural } from "../lib/format.js";
import { runPath } from "../lib/url.js";
import { Badge, Copy, Time } from "../ui/atoms.js";
import { Panel } from "../ui/layout.js";
import { Intervals, Share } from "../ui/share.js";

type Slice = Evaluation["slices"][number];
const SLICES: Record<string, { title: string; says: string }> = {
  field: { title: "Field", says: "labelled samples from the devices, kept out of training" },
  old: { title: "Old", says: "the holdout that travels with the base version" },
};

/** Base against candidate on every slice, with intervals; below, where each of them errs. */
export function EvaluationPanel({ evaluation, title }: { evaluation: Evaluation; title: string }) {
  const [chosen, setChosen] = useState(0);
  const slice = evaluation.slices[Math.min(chosen, evaluation.slices.length - 1)];
  return (
    <Panel
      title={title}
      note={
        <>
          {evaluation.model}@{evaluation.candidate} against @{evaluation.base} ·{" "}
          <Time at={evaluation.created} />
          {evaluation.run && (
            <>
              {" "}
              · <Link href={runPath(evaluation.run)}>training run</Link>
            </>
          )}
        </>
      }
      actions={
        <Badge kind={evaluation.verdict === "passed" ? "ok" : "error"}>
          {evaluation.verdict === "passed" ? "Passed" : "Failed"}
        </Badge>
      }
    >
      <ul class="reasons">
        {evaluation.reasons.map((reason) => (
          <li key={reason}>{reason}</li>
        ))}
      </ul>
      <div class="slices">
        {evaluation.slices.map((each) => (
          <SliceView key={each.slice} slice={each} />
        ))}
      </div>
      {slice && (
        <>
          {evaluation.slices.length > 1 && (
            <fieldset class="segments" aria-label="Slice for the tables below">
              {evaluation.slices.map((each, index) => (
                <button
                  key={each.slice}
                  type="button"
                  aria-pressed={each === slice}
                  onClick={() => setChosen(index)}
                >
                  {SLICES[each.slice]?.title ?? each.slice}
                </button>
              ))}
            </fieldset>
          )}
          <PerClass slice={slice} />
          <div class="matrices">
            <Confusion labels={evaluation.labels} result={slice.base} tone="Base" />
            <Confusion labels={evaluation.labels} result={slice.candidate} tone="Candidate" />
          </div>
        </>
      )}
      <p class="faint">
        <code>{evaluation.evaluation}</code> <Copy text={evaluation.evaluation} what="evaluation id" />
      </p>
    </Panel>
  );
}

/** Coloured only where the intervals are apart: a smaller difference may be chance. */
function Change({ from, to }: { from: Proportion; to: Proportion }) {
  if (from.value === null || to.value === null) return <span class="faint">–</span>;
  const apart = to.low > from.high ? "change-up" : to.high < from.low ? "change-down" : "muted";
  return (
    <span
      class={apart}
      title={
        apart === "muted" ? "The 95 % intervals overlap: it may be chance" : "The 95 % intervals are apart"
      }
    >
      {formatPoints(to.value - from.value)}
    </span>
  );
}

function SliceView({ slice }: { slice: Slice }) {
  const { base, candidate } = slice;
  const known = SLICES[slice.slice];
  return (
    <section class="slice" aria-label={`Slice ${slice.slice}`}>
      <header>
        <h3>{known?.title ?? slice.slice}</h3>
        <span class="muted">{known?.says}</span>
        <b>
          <Change from={base.accuracy} to={candidate.accuracy} />
        </b>
      </header>
      <Intervals
        rows={[
          { label: `@${base.version} ${base.variant}`, share: base.accuracy, tone: "base" },
          {
            label: `@${candidate.version} ${candidate.variant}`,
            share: candidate.accuracy,
            tone: "candidate",
          },
        ]}
      />
      <p class="muted">
        Only @{base.version} right: <b>{formatCount(slice.onlyBaseRight)}</b> · only @{candidate.version}{" "}
        right: <b>{formatCount(slice.onlyCandidateRight)}</b>
      </p>
    </section>
  );
}

function PerClass({ slice: { base, candidate } }: { slice: Slice }) {
  return (
    <div class="table-scroll">
      <table class="compact">
        <thead>
          <tr>
            <th>Label</th>
            <th class="number">Recall @{base.version}</th>
            <th class="number">Recall @{candidate.version}</th>
            <th class="number">Change</th>
            <th class="number">Precision @{base.version}</th>
            <th class="number">Precision @{candidate.version}</th>
            <th class="number">Inputs</th>
          </tr>
        </thead>
        <tbody>
          {candidate.perClass.map((row) => {
            const before = base.perClass.find((each) => each.label === row.label);
            return (
              <tr key={row.label}>
                <td class="strong">{row.label}</td>
                <td class="number">{before ? <Share share={before.recall} /> : "–"}</td>
                <td class="number">
                  <Share share={row.recall} />
                </td>
                <td class="number">{before ? <Change from={before.recall} to={row.recall} /> : "–"}</td>
                <td class="number">{before ? <Share share={before.precision} /> : "–"}</td>
                <td class="number">
                  <Share share={row.precision} />
                </td>
                <td class="number">{formatCount(row.recall.count)}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

/** Rows are the truth, columns what was predicted; the shade is the share of the row. */
function Confusion({
  labels,
  result,
  tone,
}: {
  labels: readonly string[];
  result: EvaluationResult;
  tone: string;
}) {
  return (
    <figure class="matrix">
      <figcaption>
        {tone} @{result.version}{" "}
        <span class="muted">{result.variant} · rows: truth, columns: prediction</span>
      </figcaption>
      <div class="table-scroll">
        <table>
          <thead>
            <tr>
              <td />
              {labels.map((label) => (
                <th key={label} scope="col" title={label}>
                  <span class="truncate">{label}</span>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {result.confusion.map((row, truth) => {
              const total = row.reduce((sum, count) => sum + count, 0);
              return (
                <tr key={labels[truth] ?? truth}>
                  <th scope="row" title={`${labels[truth]}: ${plural(total, "input")}`}>
                    <span class="truncate">{labels[truth]}</span>
                  </th>
                  {row.map((count, predicted) => {
                    const share = total > 0 ? count / total : 0;
                    const right = truth === predicted;
                    return (
                      <td
                        key={labels[predicted] ?? predicted}
                        class={right ? "right" : "wrong"}
                        style={{ "--share": `${Math.round(share * 100)}%` }}
                        title={`${labels[truth]} called ${labels[predicted]}: ${formatCount(count)} of ${formatCount(total)} (${formatPercent(share)})`}
                      >
                        {count === 0 ? <span class="faint">·</span> : formatCount(count)}
                      </td>
                    );
                  })}
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </figure>
  );
}
