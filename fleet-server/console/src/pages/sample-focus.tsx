import { DISAGREES_FROM, SIGNALS } from "@fieldloop/protocol";
import type { SampleView, SignalDefinition } from "@fieldloop/protocol";
import { Link } from "wouter-preact";
import { formatBytes, formatNumber, formatPercent, words } from "../lib/format.js";
import { FAILURE_KIND } from "../lib/kinds.js";
import { labelKey } from "../lib/labelling.js";
import { devicePath, versionPath } from "../lib/url.js";
import { Badge, Copy, Meter, Time } from "../ui/atoms.js";
import { Facts } from "../ui/layout.js";
import { SampleMedia } from "../ui/media.js";
import type { Queue } from "./inbox-queue.js";

const STRATUM = { worth: "for worth", random: "by chance", campaign: "asked for" } as const;

interface SampleFocusProps {
  sample: SampleView;
  labels: readonly string[];
  queue: Queue;
  /** Why the person may not label; undefined where they may. */
  refused: string | undefined;
}

/** The sample in turn, large, with the labels it can get. */
export function SampleFocus({ sample, labels, queue, refused }: SampleFocusProps) {
  return (
    <section class="focus panel" aria-label="Sample in turn">
      <div class="focus-media">
        <SampleMedia sample={sample} large />
      </div>
      <div class="focus-said">
        <span class="focus-label truncate" title={sample.label}>
          {sample.label}
        </span>
        <span class="focus-confidence">{formatPercent(sample.confidence)}</span>
        <Meter value={sample.confidence} label="Confidence" />
        {sample.status === "ignored" && sample.wrong === "no" ? (
          <Badge kind="ok" title="The prediction was right: it has left the inbox">
            no failure
          </Badge>
        ) : (
          <Badge kind={FAILURE_KIND[sample.status]}>{words(sample.status)}</Badge>
        )}
      </div>
      {sample.shadow && <Candidate sample={sample} shadow={sample.shadow} />}
      <Known sample={sample} />
      <LabelButtons sample={sample} labels={labels} queue={queue} refused={refused} />
      <Signals signals={sample.signals} />
      <Facts
        rows={[
          [
            "Device",
            <Link class="truncate" href={devicePath(sample.device)} key="device">
              {sample.device}
            </Link>,
          ],
          [
            "Version",
            <Link href={versionPath(sample.model, sample.version)} key="version">
              {sample.model}@{sample.version}
            </Link>,
          ],
          [
            "Taken",
            <span key="taken">
              <Time at={sample.time} /> · {STRATUM[sample.stratum]} · worth {formatNumber(sample.worth, 2)} ·{" "}
              {formatBytes(sample.bytes)}
            </span>,
          ],
          [
            "Sample",
            <span key="sample">
              <code class="truncate">{sample.sample}</code> <Copy text={sample.sample} what="sample id" />
            </span>,
          ],
        ]}
      />
    </section>
  );
}

/** What the candidate in shadow answered to the same input. */
function Candidate({ sample, shadow }: { sample: SampleView; shadow: NonNullable<SampleView["shadow"]> }) {
  const differs = shadow.disagreement >= DISAGREES_FROM;
  return (
    <p class="focus-known">
      The candidate{" "}
      <Link href={versionPath(sample.model, shadow.version)}>
        {sample.model}@{shadow.version}
      </Link>{" "}
      says <b>{shadow.label}</b> ({formatPercent(shadow.confidence)}){" "}
      {differs ? (
        <Badge kind="warning" title="Of the two at most one is right: a label says which">
          disagrees
        </Badge>
      ) : (
        <span class="muted">as well</span>
      )}
    </p>
  );
}

function Known({ sample }: { sample: SampleView }) {
  const { annotation, truth, label } = sample;
  return (
    <p class="focus-known">
      {annotation ? (
        <>
          Labelled <b>{annotation.label}</b> by {annotation.author || "you"}, <Time at={annotation.created} />
        </>
      ) : truth !== null ? (
        <>
          The application said: <b>{truth}</b>
          {truth === label ? "" : ", so the model was wrong"}
        </>
      ) : (
        <span class="muted">What is it? No label and no feedback yet.</span>
      )}
    </p>
  );
}

function LabelButtons({ sample, labels, queue, refused }: SampleFocusProps) {
  const current = sample.annotation?.label;
  return (
    <div class="label-buttons">
      {labels.map((label, index) => {
        const key = labelKey(index);
        return (
          <button
            key={label}
            type="button"
            class={label === sample.label ? "label predicted" : "label"}
            aria-pressed={current === label}
            disabled={refused !== undefined}
            title={refused ?? (label === sample.label ? "What the device said: Space agrees" : undefined)}
            onClick={() => queue.label(label)}
          >
            {key && <kbd>{key}</kbd>}
            <span class="truncate">{label}</span>
            {label === sample.label && <kbd>Space</kbd>}
          </button>
        );
      })}
      <div class="label-actions">
        <button type="button" onClick={() => queue.go(queue.at + 1)}>
          <kbd>s</kbd>Skip
        </button>
        <button type="button" disabled={refused !== undefined} title={refused} onClick={queue.ignore}>
          <kbd>i</kbd>Ignore
        </button>
        <button type="button" disabled={!queue.canUndo} onClick={queue.undo}>
          <kbd>u</kbd>Undo
        </button>
      </div>
    </div>
  );
}

/** Each signal on its own scale; where it speaks for a failure, the bar is full. */
function Signals({ signals }: { signals: Readonly<Record<string, number>> }) {
  const entries = Object.entries(signals);
  if (entries.length === 0) return null;
  return (
    <dl class="signals">
      {entries.map(([name, value]) => {
        const definition = (SIGNALS as Record<string, SignalDefinition>)[name];
        return (
          <div key={name} title={definition?.title}>
            <dt>{words(name)}</dt>
            <dd>
              {definition && (
                <Meter value={badness(value, definition)} label={`${name}, towards a failure`} />
              )}
              <span>{formatNumber(value, 3)}</span>
            </dd>
          </div>
        );
      })}
    </dl>
  );
}

function badness(value: number, { scale, worse }: SignalDefinition): number {
  const unit =
    scale.kind === "linear"
      ? (value - scale.min) / (scale.max - scale.min)
      : scale.kind === "log"
        ? Math.log(Math.max(value, scale.min) / scale.min) / Math.log(scale.max / scale.min)
        : value;
  const bounded = Math.min(Math.max(unit, 0), 1);
  return worse === "high" ? bounded : 1 - bounded;
}
