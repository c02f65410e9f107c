import { FieldloopError, type Proportion } from "@fieldloop/protocol";
import { InvalidArgumentError, type Command } from "commander";
import { FleetClient, resolveServer, withServerOptions, type ServerOptions } from "../client.js";

/** What every command that talks to a fleet server has: `--server`, `--token`, `--json`. */
export interface FleetOptions extends ServerOptions {
  json?: boolean;
}

export function withFleetOptions(command: Command): Command {
  return withServerOptions(command).option("--json", "one JSON document on standard output");
}

export function fleetClient(options: ServerOptions, timeoutMs?: number): FleetClient {
  return new FleetClient(resolveServer(options), timeoutMs === undefined ? {} : { timeoutMs });
}

/** The first `limit` items of a paged list. */
export async function takeItems<Item>(items: AsyncIterable<Item>, limit: number): Promise<Item[]> {
  const taken: Item[] = [];
  for await (const item of items) {
    taken.push(item);
    if (taken.length >= limit) break;
  }
  return taken;
}

/** Calls `read` every second until `done` says so; each value that differs in text is shown. */
export async function watchUntil<Value>(
  read: () => Promise<Value>,
  text: (value: Value) => string,
  done: (value: Value) => boolean,
  show: (line: string) => void,
): Promise<Value> {
  let last = "";
  for (;;) {
    const value = await read();
    const line = text(value);
    if (line !== last) show(line);
    last = line;
    if (done(value)) return value;
    await new Promise((resolve) => setTimeout(resolve, 1_000));
  }
}

export function percentText(value: number | null): string {
  return value === null ? "–" : `${(100 * value).toFixed(1)} %`;
}

/** `93.1 % (90.2–95.3) of 420` */
export function proportionText({ value, low, high, count }: Proportion): string {
  if (value === null) return "–";
  return `${percentText(value)} (${(100 * low).toFixed(1)}–${(100 * high).toFixed(1)}) of ${count}`;
}

export function timeText(time: number | null): string {
  return time === null ? "–" : new Date(time).toISOString().slice(0, 19).replace("T", " ");
}

/** `parts@7`. @throws FieldloopError `invalid_argument` */
export function readModelVersion(text: string): { model: string; version: number } {
  const match = /^([a-z0-9-]+)@(\d+)$/.exec(text);
  if (!match)
    throw new FieldloopError(
      "invalid_argument",
      `Read version: "${text}" is not MODEL@VERSION, such as parts@7`,
    );
  return { model: match[1]!, version: Number(match[2]) };
}

export function readCount(text: string): number {
  const count = Number(text);
  if (!Number.isInteger(count) || count < 1) throw new InvalidArgumentError(`"${text}" is no count above 0`);
  return count;
}

export function readNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value)) throw new InvalidArgumentError(`"${text}" is no number`);
  return value;
}

/** A comma-separated list without empty parts. */
export function readList(text: string): string[] {
  const items = text.split(",").map((item) => item.trim());
  if (items.some((item) => item === "")) throw new InvalidArgumentError(`"${text}" has an empty part`);
  return items;
}

/** `site=lyon,line=3` */
export function readTags(text: string): Record<string, string> {
  return tagsOf(readList(text));
}

export function tagsOf(parts: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    parts.map((part) => {
      const at = part.indexOf("=");
      if (at < 1) throw new InvalidArgumentError(`"${part}" is not KEY=VALUE`);
      return [part.slice(0, at), part.slice(at + 1)];
    }),
  );
}

/** `site=lyon line=3` */
export function tagText(tags: Readonly<Record<string, string>>): string {
  return Object.entries(tags)
    .map(([key, value]) => `${key}=${value}`)
    .join(" ");
}

/** A query string of what is given. */
export function queryOf(values: Readonly<Record<string, string | number | undefined>>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) if (value !== undefined) query.set(name, String(value));
  return query.size === 0 ? "" : `?${query.toString()}`;
}
