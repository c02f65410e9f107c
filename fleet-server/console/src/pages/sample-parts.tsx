import type { SampleView } from "@fieldloop/protocol";
import { Link } from "wouter-preact";
import { formatPercent } from "../lib/format.js";
import { Dot, Time } from "../ui/atoms.js";
import { SampleMedia } from "../ui/media.js";

/** What is known about a sample in one mark: labelled right, labelled wrong, ignored, or nothing yet. */
export function SampleMark({ sample }: { sample: SampleView }) {
  if (sample.wrong === "yes") return <Dot kind="error" />;
  if (sample.wrong === "no") return <Dot kind="ok" />;
  if (sample.status === "ignored") return <Dot kind="idle" />;
  return null;
}

function Caption({ sample }: { sample: SampleView }) {
  const truth = sample.annotation?.label ?? sample.truth;
  return (
    <span class="tile-caption">
      <span class="truncate">
        <SampleMark sample={sample} />
        {truth !== null && truth !== sample.label ? (
          <>
            <b>{truth}</b> <s>{sample.label}</s>
          </>
        ) : (
          <b>{sample.label}</b>
        )}
      </span>
      <small>{formatPercent(sample.confidence, 0)}</small>
    </span>
  );
}

export function SampleTile({ sample, href }: { sample: SampleView; href: string }) {
  return (
    <Link
      class="sample-tile"
      href={href}
      title={`${sample.sample}, ${sample.model}@${sample.version} on ${sample.device}`}
    >
      <SampleMedia sample={sample} />
      <Caption sample={sample} />
      <small class="faint">
        <Time at={sample.time} />
      </small>
    </Link>
  );
}

/** A tile of the inbox: pressed to look at it; its keys belong to the inbox. */
export function QueueTile({
  sample,
  index,
  current,
  choose,
}: {
  sample: SampleView;
  index: number;
  current: boolean;
  choose: (index: number) => void;
}) {
  const done = sample.annotation !== null || sample.status === "ignored";
  return (
    <button
      type="button"
      class={done ? "sample-tile done" : "sample-tile"}
      data-row={index}
      data-keys
      tabIndex={current ? 0 : -1}
      aria-current={current ? "true" : undefined}
      aria-label={`${sample.label}, ${formatPercent(sample.confidence, 0)}${sample.annotation ? `, labelled ${sample.annotation.label}` : ""}`}
      onClick={() => choose(index)}
    >
      <SampleMedia sample={sample} />
      <Caption sample={sample} />
    </button>
  );
}
