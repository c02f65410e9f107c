import type { Model, SampleView } from "@fieldloop/protocol";
import { useEffect, useRef, useState } from "preact/hooks";
import { Link } from "wouter-preact";
import { withQuery } from "../api/client.js";
import { useResource } from "../api/resource.js";
import { session, whyNot } from "../api/session.js";
import { formatCount, plural } from "../lib/format.js";
import { useKeys } from "../lib/keys.js";
import { labelKey } from "../lib/labelling.js";
import { choicesOf, findVersion } from "../lib/models.js";
import { useQuery } from "../lib/url.js";
import { Meter } from "../ui/atoms.js";
import { Empty, Page, Problem, Skeleton } from "../ui/layout.js";
import { FixDialog } from "./fix.js";
import { InboxFilters, apiQuery, isFiltered } from "./inbox-filters.js";
import { type Queue, useQueue } from "./inbox-queue.js";
import { InboxStatistics } from "./inbox-statistics.js";
import { QueueTile } from "./sample-parts.js";
import { SampleFocus } from "./sample-focus.js";

const PAGE_SIZE = 60;

/** Samples by worth, one decision each: a key labels it and shows the next. */
export function InboxPage() {
  const [query, setQuery] = useQuery();
  const [fixing, setFixing] = useState(false);
  const models = useResource<{ items: Model[] }>("/models", { live: ["model"] });
  const path = withQuery("/samples", { ...apiQuery(query), limit: PAGE_SIZE });
  const queue = useQueue(path, query.get("sample"), (sample) => setQuery({ sample }));
  const sample = queue.items[queue.at];
  const labels = sample ? choicesFor(sample, models.data?.items) : [];
  const refusedFix = whyNot("operator");
  const refusedLabel = whyNot("labeler");
  useInboxKeys(queue, sample, refusedLabel ? [] : labels, () => !refusedFix && setFixing(true));
  return (
    <Page
      title="Failures"
      actions={
        <button
          type="button"
          class="primary"
          disabled={refusedFix !== undefined || models.data?.items.length === 0}
          title={refusedFix ?? "Dataset, snapshot and training run in one go"}
          onClick={() => setFixing(true)}
        >
          Fix this
        </button>
      }
    >
      <InboxStatistics query={query} />
      <InboxFilters query={query} change={setQuery} models={models.data?.items ?? []} />
      <Work
        queue={queue}
        sample={sample}
        labels={labels}
        refused={refusedLabel}
        filtered={isFiltered(query)}
        clear={() => setQuery(Object.fromEntries([...query.keys()].map((key) => [key, undefined])))}
      />
      {fixing && models.data && (
        <FixDialog models={models.data.items} from={sample} query={query} close={() => setFixing(false)} />
      )}
    </Page>
  );
}

/** Those of the version that predicted, then what only the candidate beside it knows. */
function choicesFor(sample: SampleView, models: readonly Model[] | undefined): readonly string[] {
  const own = choicesOf(findVersion(models, sample.model, sample.version));
  if (!sample.shadow || own.length === 0) return own;
  return [...new Set([...own, ...choicesOf(findVersion(models, sample.model, sample.shadow.version))])];
}

interface WorkProps {
  queue: Queue;
  sample: SampleView | undefined;
  labels: readonly string[];
  refused: string | undefined;
  filtered: boolean;
  clear: () => void;
}

function Work({ queue, sample, labels, refused, filtered, clear }: WorkProps) {
  const grid = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const tile = grid.current?.querySelector<HTMLElement>(`[data-row="${queue.at}"]`);
    tile?.scrollIntoView({ block: "nearest", inline: "nearest" });
    // The focus follows only where it was on a tile before: it is never taken from a filter.
    if (document.activeElement?.matches(".queue .sample-tile")) tile?.focus({ preventScroll: true });
  }, [queue.at]);
  if (queue.items.length === 0) {
    if (queue.error) return <Problem error={queue.error} retry={queue.reload} />;
    if (queue.loading) return <Skeleton rows={6} height={90} />;
    return <NoSamples filtered={filtered} clear={clear} />;
  }
  return (
    <div class="inbox">
      <div class="queue-side">
        <Progress queue={queue} />
        {queue.error && <Problem error={queue.error} retry={queue.more} />}
        <div class="queue" ref={grid} role="group" aria-label="Samples by worth">
          {queue.items.map((each, index) => (
            <QueueTile
              key={each.sample}
              sample={each}
              index={index}
              current={index === queue.at}
              choose={queue.go}
            />
          ))}
        </div>
        {!queue.complete && (
          <button type="button" onClick={queue.more} disabled={queue.loading}>
            {queue.loading ? "Loading…" : "Load more"}
          </button>
        )}
      </div>
      {sample && <SampleFocus sample={sample} labels={labels} queue={queue} refused={refused} />}
    </div>
  );
}

function Progress({ queue }: { queue: Queue }) {
  const done = queue.items.filter(
    (sample) => sample.annotation !== null || sample.status === "ignored",
  ).length;
  return (
    <div class="progress">
      <Meter value={done} max={queue.items.length} label="Samples decided" />
      <span>
        <b>{formatCount(done)}</b> of {formatCount(queue.items.length)}
        {queue.complete ? "" : "+"} decided
        {queue.labelled > 0 && <span class="muted"> · {plural(queue.labelled, "label")} by you now</span>}
      </span>
      {queue.fresh > 0 && (
        <button type="button" class="small" onClick={queue.reload}>
          Show {formatCount(queue.fresh)} new
        </button>
      )}
    </div>
  );
}

function NoSamples({ filtered, clear }: { filtered: boolean; clear: () => void }) {
  if (filtered) {
    return (
      <Empty title="No sample matches these filters">
        <button type="button" onClick={clear}>
          Clear the filters
        </button>
      </Empty>
    );
  }
  return (
    <Empty title="Nothing is left to label">
      <p>
        Devices send inputs that their signals find worth a look, and a few by plain chance. To ask one for
        some now, open it in the <Link href="/fleet">fleet</Link> and press “Capture”.
      </p>
    </Empty>
  );
}

/** Tiles in a row of the grid, for the arrows up and down. */
function tilesInRow(): number {
  const tiles = [...document.querySelectorAll<HTMLElement>(".queue .sample-tile")];
  const top = tiles[0]?.offsetTop;
  const second = tiles.findIndex((tile) => tile.offsetTop !== top);
  return second < 1 ? Math.max(1, tiles.length) : second;
}

function useInboxKeys(
  queue: Queue,
  sample: SampleView | undefined,
  labels: readonly string[],
  fix: () => void,
): void {
  const mayLabel = session.value !== null && labels.length > 0;
  const move = (step: number) => queue.go(queue.at + step);
  const labelBindings = labels.flatMap((label, index) => {
    const key = labelKey(index);
    return key ? [{ keys: key, title: `It is ${label}`, run: () => queue.label(label) }] : [];
  });
  useKeys("Failures", [
    {
      keys: " ",
      title: "The prediction is right, next",
      run: () => mayLabel && sample && labels.includes(sample.label) && queue.label(sample.label),
    },
    ...labelBindings,
    { keys: "s", title: "Skip", run: () => move(1) },
    { keys: "i", title: "Ignore, next", run: () => mayLabel && queue.ignore() },
    { keys: "u", title: "Undo", run: () => queue.undo() },
    { keys: "j", title: "Next", run: () => move(1) },
    { keys: "k", title: "Before", run: () => move(-1) },
    { keys: "ArrowRight", title: "Next", hidden: true, run: () => move(1) },
    { keys: "ArrowLeft", title: "Before", hidden: true, run: () => move(-1) },
    { keys: "ArrowDown", title: "A row down", hidden: true, run: () => move(tilesInRow()) },
    { keys: "ArrowUp", title: "A row up", hidden: true, run: () => move(-tilesInRow()) },
    { keys: "f", title: "Fix this: train on the labels", run: fix },
  ]);
}
