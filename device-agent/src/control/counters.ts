import type { FrameCounts, Heartbeat } from "../ipc.js";

const NOTHING: FrameCounts = {
  framesSeen: 0,
  framesDropped: 0,
  framesSkipped: 0,
  framesFailed: 0,
  sourceCounts: {},
};

/** Frames, and what sources count, by lane over all hosts of this boot: each host counts from 0, the last beat of one that ended stays in the sum. */
export class FrameCounters {
  readonly #ended = new Map<string, FrameCounts>();
  readonly #last = new Map<string, FrameCounts>();

  /** Returns how many frames of each lane failed since the beat before. */
  beat(heartbeat: Heartbeat): ReadonlyMap<string, number> {
    const failed = new Map<string, number>();
    for (const lane of heartbeat.lanes) {
      failed.set(lane.name, lane.framesFailed - (this.#last.get(lane.name)?.framesFailed ?? 0));
      this.#last.set(lane.name, lane);
    }
    return failed;
  }

  hostEnded(): void {
    for (const [lane, last] of this.#last) this.#ended.set(lane, sum(this.#ended.get(lane) ?? NOTHING, last));
    this.#last.clear();
  }

  of(lane: string): FrameCounts {
    return sum(this.#ended.get(lane) ?? NOTHING, this.#last.get(lane) ?? NOTHING);
  }

  /** Over all lanes. */
  get total(): FrameCounts {
    const lanes = new Set([...this.#ended.keys(), ...this.#last.keys()]);
    return [...lanes].map((lane) => this.of(lane)).reduce(sum, NOTHING);
  }
}

function sum(a: FrameCounts, b: FrameCounts): FrameCounts {
  return {
    framesSeen: a.framesSeen + b.framesSeen,
    framesDropped: a.framesDropped + b.framesDropped,
    framesSkipped: a.framesSkipped + b.framesSkipped,
    framesFailed: a.framesFailed + b.framesFailed,
    sourceCounts: sumByName(a.sourceCounts, b.sourceCounts),
  };
}

function sumByName(
  a: FrameCounts["sourceCounts"],
  b: FrameCounts["sourceCounts"],
): FrameCounts["sourceCounts"] {
  const names = [...new Set([...Object.keys(a), ...Object.keys(b)])];
  return Object.fromEntries(names.map((name) => [name, (a[name] ?? 0) + (b[name] ?? 0)]));
}
