import type { LiveEvent } from "@fieldloop/protocol";
import { type Signal, signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { throttle } from "../lib/throttle.js";
import { type ApiError, request, toApiError } from "./client.js";
import { type LiveType, onLive, onReconnected } from "./live.js";

/** What the server last said at one path, shared by everything that shows it. */
interface Entry {
  readonly data: Signal<unknown>;
  readonly error: Signal<ApiError | undefined>;
  readonly loading: Signal<boolean>;
  users: number;
  again: boolean;
}

export interface Resource<Data> {
  /** Kept from the last good answer while a newer one is fetched or failed. */
  readonly data: Data | undefined;
  readonly error: ApiError | undefined;
  readonly loading: boolean;
  readonly reload: () => void;
  /** Replaces what is shown until the next answer: an optimistic write. */
  readonly set: (data: Data) => void;
}

export interface ResourceSettings {
  /** Events that make it reload. */
  live?: readonly LiveType[];
  /** Narrows `live`: only events for which this is true. */
  match?: (event: LiveEvent) => boolean;
  /** At most one reload in this time. */
  reloadMinMs?: number;
  /** Reload this often even without an event: what changes by the clock alone, such as silence. */
  pollMs?: number;
  /** Fetches by another way than one GET, such as all pages of a list. */
  fetch?: (path: string) => Promise<unknown>;
}

const ENTRIES_MAX = 120;
const RELOAD_MIN_MS = 1_500;
const POLL_MS = 20_000;
const entries = new Map<string, Entry>();

function entryOf(path: string): Entry {
  const known = entries.get(path);
  if (known) return known;
  if (entries.size >= ENTRIES_MAX) {
    for (const [key, entry] of entries) if (entry.users === 0) entries.delete(key);
  }
  const entry: Entry = {
    data: signal<unknown>(undefined),
    error: signal<ApiError | undefined>(undefined),
    loading: signal(false),
    users: 0,
    again: false,
  };
  entries.set(path, entry);
  return entry;
}

async function load(path: string, fetcher: (path: string) => Promise<unknown>): Promise<void> {
  const entry = entryOf(path);
  if (entry.loading.peek()) {
    entry.again = true;
    return;
  }
  entry.loading.value = true;
  do {
    entry.again = false;
    try {
      entry.data.value = await fetcher(path);
      entry.error.value = undefined;
    } catch (error) {
      entry.error.value = toApiError(error);
    }
  } while (entry.again && entry.users > 0);
  entry.loading.value = false;
}

const EMPTY = entryOf("");

/** The resource at `path` (below `/api/v1`), fetched now and again whenever a live event names it; null fetches nothing. */
export function useResource<Data>(path: string | null, settings: ResourceSettings = {}): Resource<Data> {
  const entry = path === null ? EMPTY : entryOf(path);
  const latest = useRef(settings);
  latest.current = settings;
  const types = settings.live?.join() ?? "";

  useEffect(() => {
    if (path === null) return undefined;
    const fetcher = (at: string) => (latest.current.fetch ?? request)(at);
    const reload = () => void load(path, fetcher);
    const throttled = throttle(reload, settings.reloadMinMs ?? RELOAD_MIN_MS);
    const used = entryOf(path);
    used.users++;
    reload();
    const stops = [onReconnected(reload), () => throttled.cancel()];
    if (types) {
      stops.push(
        onLive(types.split(",") as LiveType[], (event) => {
          if (latest.current.match?.(event) ?? true) throttled();
        }),
      );
      const timer = setInterval(() => {
        if (!document.hidden) throttled();
      }, settings.pollMs ?? POLL_MS);
      stops.push(() => clearInterval(timer));
    }
    return () => {
      used.users--;
      for (const stop of stops) stop();
    };
  }, [path, types, settings.reloadMinMs, settings.pollMs]);

  return {
    data: entry.data.value as Data | undefined,
    error: entry.error.value,
    loading: entry.loading.value,
    reload: () => {
      if (path !== null) void load(path, settings.fetch ?? request);
    },
    set: (data) => {
      entry.data.value = data;
    },
  };
}

/** Forgets everything: another person may sign in next. */
export function clearResources(): void {
  entries.clear();
}
