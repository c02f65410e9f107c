import {
  isFinal,
  ROLLOUT,
  rolloutEventSchema,
  rolloutProgressSchema,
  type RolloutEvent,
  type RolloutView,
} from "@fieldloop/protocol";
import pc from "picocolors";
import type { FleetClient } from "../client.js";
import { countsText, drawRollout, stateText, withProgress } from "./draw.js";
import { Screen } from "./screen.js";
import { serverEvents } from "./stream.js";

/** Between two pictures: durations go on while nothing happens. */
const REDRAW_MS = 1_000;

/**
 * Follows a rollout until it ends or waits for a person. On a terminal waves and gates are drawn live; elsewhere each thing that
 * happens is one line.
 * @returns the rollout as it is then
 */
export async function watchRollout(client: FleetClient, id: string): Promise<RolloutView> {
  const path = `/api/v1/rollouts/${encodeURIComponent(id)}`;
  const follower = new Follower(() => client.get<RolloutView>(path), process.stderr);
  const stop = new AbortController();
  const interrupt = (): void => stop.abort();
  process.once("SIGINT", interrupt);
  try {
    await follower.begin();
    if (isOver(follower.view)) return follower.view;
    for await (const { type, data } of serverEvents(client, `${path}/events`, stop.signal)) {
      if (type === "progress") follower.progress(data);
      else await follower.happened(data);
      if (isOver(follower.view)) break;
    }
    return await follower.end();
  } finally {
    process.off("SIGINT", interrupt);
    stop.abort();
    follower.close();
  }
}

/** A paused rollout waits for a person, and one that ended may still be taken back by one: watching it longer shows nothing. */
function isOver({ state }: RolloutView): boolean {
  return state === "succeeded" || state === "paused" || state === "aborted" || isFinal(ROLLOUT, state);
}

/** What is known of the rollout, and how it is shown. */
class Follower {
  readonly #read: () => Promise<RolloutView>;
  readonly #out: NodeJS.WriteStream;
  readonly #screen: Screen | undefined;
  #view: RolloutView | undefined;
  #timer: NodeJS.Timeout | undefined;
  #lastLine = "";

  constructor(read: () => Promise<RolloutView>, out: NodeJS.WriteStream) {
    this.#read = read;
    this.#out = out;
    this.#screen = out.isTTY ? new Screen(out) : undefined;
  }

  get view(): RolloutView {
    return this.#view!;
  }

  async begin(): Promise<void> {
    this.#view = await this.#read();
    if (this.#screen) this.#timer = setInterval(() => this.#draw(), REDRAW_MS);
    this.#draw();
  }

  progress(data: unknown): void {
    const progress = rolloutProgressSchema.safeParse(data);
    if (!progress.success) return;
    this.#view = withProgress(this.view, progress.data);
    this.#draw();
  }

  /** What happened stays on the terminal as a line; the view is read anew, since gates and reasons travel with it. */
  async happened(data: unknown): Promise<void> {
    const event = rolloutEventSchema.safeParse(data);
    if (!event.success) return;
    const line = eventText(event.data);
    if (line !== undefined && this.#screen) this.#screen.print(line);
    else if (line !== undefined) this.#out.write(`${line}\n`);
    this.#view = await this.#read();
    this.#draw();
  }

  async end(): Promise<RolloutView> {
    this.#view = await this.#read();
    this.#draw();
    return this.#view;
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #draw(): void {
    if (this.#screen) {
      const options = { width: this.#screen.width, now: Date.now(), colour: pc.isColorSupported };
      this.#screen.draw(drawRollout(this.view, options));
      return;
    }
    const line = `${this.view.state}: ${countsText(this.view.counts)}`;
    if (line !== this.#lastLine) this.#out.write(`${line}\n`);
    this.#lastLine = line;
  }
}

/** One line for each thing that happened; undefined for what the picture shows anyway. */
export function eventText(event: RolloutEvent): string | undefined {
  const head = `${pc.dim(new Date(event.time).toISOString().slice(11, 19))}  `;
  switch (event.type) {
    case "rollout":
      return `${head}rollout ${stateText(event.state)}${event.reason ? `: ${event.reason}` : ""}${by(event.actor)}`;
    case "wave":
      return `${head}wave ${event.wave} ${stateText(event.state)}${by(event.actor)}`;
    case "verdict": {
      const { verdict } = event;
      if (verdict.verdict === "inconclusive") return undefined;
      const decided = verdict.tests.filter((test) => test.verdict === verdict.verdict);
      return `${head}gate of wave ${event.wave}: ${verdict.verdict}, ${decided.map(({ detail }) => detail).join("; ")}`;
    }
    case "action":
      return `${head}${event.action}${event.reason ? `: ${event.reason}` : ""}${by(event.actor)}`;
    case "devices":
      return `${head}${event.count} ${event.what}: ${namesOf(event.devices)}`;
  }
}

const NAMES_MAX = 5;

function namesOf(devices: readonly { device: string; errorCode: string | null }[]): string {
  const names = devices
    .slice(0, NAMES_MAX)
    .map(({ device, errorCode }) => (errorCode === null ? device : `${device} (${errorCode})`));
  return names.join(", ") + (devices.length > NAMES_MAX ? ", …" : "");
}

function by(actor: string): string {
  return actor === "engine" ? "" : pc.dim(`  by ${actor}`);
}
