import type { Stream } from "@fieldloop/protocol";
import type { SpoolEntry } from "./stream-log.js";

/**
 * Which records go when the disk budget is used up, in this order: samples of the lowest worth; predictions, thinned from
 * the oldest on (every second batch, then every second of the rest …), so that a long silence still shows its course;
 * profiles the same way; feedback, oldest first. Protected records (deployments, crashes, command results) never go.
 */
export function chooseVictims(
  entries: Readonly<Record<Stream, readonly SpoolEntry[]>>,
  bytesWanted: number,
): Record<Stream, Set<SpoolEntry>> {
  const victims: Record<Stream, Set<SpoolEntry>> = {
    event: new Set(),
    profile: new Set(),
    predictions: new Set(),
    sample: new Set(),
  };
  let freed = 0;
  const take = (stream: Stream, group: readonly SpoolEntry[]): boolean => {
    for (const entry of group) {
      victims[stream].add(entry);
      freed += entry.bytes;
    }
    return freed >= bytesWanted;
  };

  for (const group of sampleGroups(entries.sample)) if (take("sample", group)) return victims;
  for (const entry of thinned(entries.predictions)) if (take("predictions", [entry])) return victims;
  for (const entry of thinned(entries.profile)) if (take("profile", [entry])) return victims;
  for (const entry of entries.event) {
    if (isEvictable(entry) && take("event", [entry])) return victims;
  }
  return victims;
}

/** A record in flight stays: the one after it was sent with its number as `prev`. */
function isEvictable(entry: SpoolEntry): boolean {
  return !entry.protected && !entry.inFlight && entry.place !== undefined;
}

/** Whole samples, the least worth first, older before newer; one of which a part is acknowledged or in flight stays. */
function sampleGroups(entries: readonly SpoolEntry[]): SpoolEntry[][] {
  const groups = new Map<string, SpoolEntry[]>();
  for (const entry of entries) {
    const key = `${entry.boot}/${entry.group}`;
    const group = groups.get(key);
    if (group) group.push(entry);
    else groups.set(key, [entry]);
  }
  return [...groups.values()]
    .filter((group) => group.every(isEvictable) && group[0]!.seq === group[0]!.group)
    .sort((a, b) => a[0]!.worth - b[0]!.worth || a[0]!.boot - b[0]!.boot || a[0]!.seq - b[0]!.seq);
}

/** Every second entry from the oldest on, then every second of those left, until all were named once. */
function* thinned(entries: readonly SpoolEntry[]): Generator<SpoolEntry> {
  let rest = entries.filter(isEvictable);
  while (rest.length > 1) {
    const kept: SpoolEntry[] = [];
    for (const [index, entry] of rest.entries()) {
      if (index % 2 === 0) yield entry;
      else kept.push(entry);
    }
    rest = kept;
  }
  yield* rest;
}
