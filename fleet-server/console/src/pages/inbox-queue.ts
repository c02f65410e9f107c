import type { Page, SampleView } from "@fieldloop/protocol";
import { useEffect, useRef, useState } from "preact/hooks";
import { type ApiError, request, toApiError, withQuery } from "../api/client.js";
import { onLive } from "../api/live.js";
import { session } from "../api/session.js";
import { saveLabel, saveStatus, withLabel } from "../lib/labelling.js";
import { preload } from "../lib/media.js";
import { throttle } from "../lib/throttle.js";
import { notifyError } from "../lib/toast.js";

const PAGE_SIZE = 60;
const PRELOADED = 3;
const NEWS_MIN_MS = 5_000;
/** The next page is fetched when this few are left. */
const AHEAD = 20;

interface Done {
  index: number;
  before: SampleView;
  kind: "label" | "status";
}

export interface Queue {
  items: readonly SampleView[];
  error: ApiError | undefined;
  loading: boolean;
  complete: boolean;
  at: number;
  /** Samples that came since and are not shown: the order under the eyes never changes by itself. */
  fresh: number;
  /** Labels given during this visit. */
  labelled: number;
  canUndo: boolean;
  readonly go: (index: number) => void;
  readonly label: (label: string) => void;
  readonly ignore: () => void;
  readonly undo: () => void;
  readonly reload: () => void;
  readonly more: () => void;
}

/** The samples of a query as a queue that is worked off from the front; writes are shown at once and stored behind. */
export function useQueue(
  path: string,
  wanted: string | null,
  choose: (sample: string | undefined) => void,
): Queue {
  const [items, setItems] = useState<readonly SampleView[]>([]);
  const [next, setNext] = useState<string | null>(null);
  const [error, setError] = useState<ApiError | undefined>(undefined);
  const [loading, setLoading] = useState(true);
  const [at, setAt] = useState(0);
  const [fresh, setFresh] = useState(0);
  const [labelled, setLabelled] = useState(0);
  const [round, setRound] = useState(0);
  const [history, setHistory] = useState<readonly Done[]>([]);
  const latest = useRef({ items, next, loading });
  latest.current = { items, next, loading };

  useEffect(() => {
    const stop = new AbortController();
    setLoading(true);
    void firstPage(path, wanted, stop.signal).then(
      ({ page, index }) => {
        setItems(page.items);
        setNext(page.next);
        setAt(index);
        setFresh(0);
        setHistory([]);
        setError(undefined);
        setLoading(false);
      },
      (problem: unknown) => {
        if (stop.signal.aborted) return;
        setError(toApiError(problem));
        setLoading(false);
      },
    );
    return () => stop.abort();
  }, [path, round]);

  useEffect(() => {
    const look = throttle(
      () => void countFresh(path, latest.current.items).then(setFresh, () => undefined),
      NEWS_MIN_MS,
    );
    const off = onLive(["sample"], () => look());
    return () => {
      off();
      look.cancel();
    };
  }, [path]);

  useEffect(() => {
    for (const sample of items.slice(at + 1, at + 1 + PRELOADED)) preload(sample);
    if (items.length > 0 && at > items.length - AHEAD) more();
  }, [at, items]);

  const more = () => {
    const { next: cursor, loading: busy } = latest.current;
    if (cursor === null || busy) return;
    setLoading(true);
    request<Page<SampleView>>(withQuery(path, { cursor })).then(
      (page) => {
        const known = new Set(latest.current.items.map((sample) => sample.sample));
        setItems([...latest.current.items, ...page.items.filter((sample) => !known.has(sample.sample))]);
        setNext(page.next);
        setLoading(false);
      },
      (problem: unknown) => {
        setError(toApiError(problem));
        setLoading(false);
      },
    );
  };
  const go = (index: number) => {
    const to = Math.max(0, Math.min(latest.current.items.length - 1, index));
    setAt(to);
    choose(latest.current.items[to]?.sample);
  };
  const replace = (sample: SampleView) =>
    setItems((current) => current.map((each) => (each.sample === sample.sample ? sample : each)));

  const change = (after: SampleView, write: () => Promise<SampleView>, doing: string) => {
    const before = latest.current.items[at];
    if (!before) return;
    replace(after);
    setHistory((current) => [
      ...current,
      { index: at, before, kind: after.annotation === before.annotation ? "status" : "label" },
    ]);
    write().then(
      (stored) => isLatest(latest.current.items, after) && replace(stored),
      (problem: unknown) => {
        replace(before);
        notifyError(`${doing} ${before.sample}`, problem);
      },
    );
    go(at + 1);
  };
  const current = items[at];
  return {
    items,
    error,
    loading,
    complete: next === null,
    at,
    fresh,
    labelled,
    canUndo: history.length > 0,
    go,
    label: (label) => {
      if (!current) return;
      if (!current.annotation) setLabelled((count) => count + 1);
      change(
        withLabel(current, label, session.value?.name ?? ""),
        () => saveLabel(current.sample, label),
        `Label ${label} for`,
      );
    },
    ignore: () => {
      if (current)
        change({ ...current, status: "ignored" }, () => saveStatus(current.sample, "ignored"), "Ignore");
    },
    undo: () => {
      const last = history.at(-1);
      if (!last) return;
      setHistory(history.slice(0, -1));
      undo(last, replace);
      go(last.index);
    },
    reload: () => setRound((count) => count + 1),
    more,
  };
}

/** Nothing was changed here while the write was on its way. */
const isLatest = (items: readonly SampleView[], written: SampleView) => items.includes(written);

/**
 * Takes back what a later write can take back: a status, and a label that replaced another. A first label stays until the next one
 * replaces it (annotations are never deleted): the sample is in turn again and shows it.
 */
function undo({ before, kind }: Done, replace: (sample: SampleView) => void): void {
  const write =
    kind === "status"
      ? saveStatus(before.sample, before.status)
      : before.annotation && saveLabel(before.sample, before.annotation.label);
  if (!write) return;
  replace(before);
  write.then(replace, (problem: unknown) => notifyError(`Undo ${before.sample}`, problem));
}

async function firstPage(
  path: string,
  wanted: string | null,
  signal: AbortSignal,
): Promise<{ page: Page<SampleView>; index: number }> {
  const page = await request<Page<SampleView>>(
    withQuery(path, { limit: path.includes("limit=") ? undefined : PAGE_SIZE }),
    { signal },
  );
  const index = page.items.findIndex((sample) => sample.sample === wanted);
  if (wanted === null || index >= 0) return { page, index: Math.max(index, 0) };
  try {
    const linked = await request<SampleView>(`/samples/${encodeURIComponent(wanted)}`, { signal });
    return { page: { ...page, items: [linked, ...page.items] }, index: 0 };
  } catch {
    // The link names a sample that is gone: the queue is shown without it.
    return { page, index: 0 };
  }
}

async function countFresh(path: string, items: readonly SampleView[]): Promise<number> {
  const page = await request<Page<SampleView>>(path);
  const known = new Set(items.map((sample) => sample.sample));
  return page.items.filter((sample) => !known.has(sample.sample)).length;
}
