import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { AGENT_LIMITS } from "../limits.js";
import { EVENT_STREAM, feedStream, JSON_LINES } from "./feed-stream.js";
import { PackageCatalog } from "./package-catalog.js";
import { PackageStore } from "./package-store.js";
import { type FeedFilter, PredictionFeed, type PredictionsMessage } from "./prediction-feed.js";

let folder: string;
let feed: PredictionFeed;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "fieldloop-feed-"));
  feed = new PredictionFeed(3, new PackageCatalog(new PackageStore(folder)));
  // What the classes of a version mean is looked up with its first prediction.
  const first = feed.subscribe(ALL);
  feed.publish(message(9_999_999, 1));
  while ((await first.take(100))?.items.length === 0);
  first.end();
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const ALL: FeedFilter = { lane: undefined, model: undefined, minConfidence: 0 };
const BOX = { x0: 0, y0: 0, x1: 1, y1: 1, class: 2, score: 0.5 };

/** Rows of an unknown package, so classes have numbers instead of labels; confidence grows from 0 to 1. */
function message(
  firstN: number,
  count: number,
  change: Partial<PredictionsMessage> = {},
): PredictionsMessage {
  return {
    kind: "predictions",
    lane: "main",
    origin: { model: "m", version: 1, packageSha256: "ab".repeat(32), signalNames: ["entropy"] },
    firstN,
    rows: Array.from({ length: count }, (_, index) => ({
      time: 1000 + index,
      class: index % 3,
      confidence: index / Math.max(1, count - 1),
      latencyMs: 2,
      signals: [Number.NaN],
    })),
    ...change,
  };
}

describe("prediction feed", () => {
  it("costs nothing while nobody listens, and gives each listener its own in order", async () => {
    feed.publish(message(0, 10));
    const all = feed.subscribe(ALL);
    const sure = feed.subscribe({ ...ALL, lane: "main", minConfidence: 0.5 });
    const other = feed.subscribe({ ...ALL, lane: "door" });
    feed.publish(message(10, 3));
    feed.publish(message(13, 2));
    const { items: taken } = (await all.take(1000))!;
    expect(taken.slice(0, 2)).toEqual([
      {
        prediction: "3-10",
        lane: "main",
        model: "m",
        version: 1,
        time: 1000,
        class: 0,
        label: "class 0",
        confidence: 0,
        latencyMs: 2,
        signals: { entropy: null },
      },
      {
        prediction: "3-11",
        lane: "main",
        model: "m",
        version: 1,
        time: 1001,
        class: 1,
        label: "class 1",
        confidence: 0.5,
        latencyMs: 2,
        signals: { entropy: null },
      },
    ]);
    expect(taken.map(({ prediction }) => prediction)).toEqual(["3-10", "3-11", "3-12", "3-13", "3-14"]);
    expect((await sure.take(1000))!.items.map(({ prediction }) => prediction)).toEqual([
      "3-11",
      "3-12",
      "3-14",
    ]);
    expect(await other.take(1)).toEqual({ lost: 0, items: [] });
    all.end();
    expect(await all.take(1000)).toBeUndefined();
    expect(feed.listeners).toBe(2);
  });

  it("drops the oldest of a slow listener, says how many, and keeps its bound with boxes too", async () => {
    const { localSubscriberItemsMax: max } = AGENT_LIMITS;
    const slow = feed.subscribe(ALL);
    feed.publish(message(0, max));
    feed.publish(message(max, 100));
    const boxes = message(max + 100, 10);
    feed.publish({ ...boxes, rows: boxes.rows.map((row) => ({ ...row, boxes: [BOX, BOX, BOX, BOX] })) });
    feed.close();
    let lost = 0;
    const numbers: number[] = [];
    for (let taken = await slow.take(1); taken; taken = await slow.take(1)) {
      lost += taken.lost;
      numbers.push(...taken.items.map(({ prediction }) => Number(prediction.split("-")[1])));
      expect(taken.items.length).toBeLessThanOrEqual(AGENT_LIMITS.localSubscriberChunkRows);
    }
    expect(lost).toBe(150);
    expect(numbers).toEqual(Array.from({ length: max + 110 - 150 }, (_, index) => index + 150));
  });

  it("lets only so many listen", () => {
    const subscribers = Array.from({ length: AGENT_LIMITS.localSubscribersMax }, () => feed.subscribe(ALL));
    expect(() => feed.subscribe(ALL)).toThrow(expect.objectContaining({ code: "rate_limited" }));
    subscribers[0]!.end();
    feed.subscribe(ALL);
  });

  it.each([
    [
      EVENT_STREAM,
      [
        /^: still here\n\n$/,
        /^event: lost\ndata: \{"count":1\}\n\nid: 3-1\nevent: prediction\ndata: \{.*\}\n\n/,
      ],
    ],
    [JSON_LINES, [/^\n$/, /^\{"lost":1\}\n\{"prediction":"3-1",.*\}\n/]],
  ])("is written as $contentType", async (form, wanted) => {
    const reader = feedStream(feed.subscribe(ALL), form).getReader();
    feed.publish(message(0, 1));
    feed.publish(message(1, AGENT_LIMITS.localSubscriberItemsMax));
    const texts: string[] = [];
    for (const pattern of wanted) {
      const { value } = await reader.read();
      texts.push(new TextDecoder().decode(value));
      expect(texts.at(-1)).toMatch(pattern);
    }
    await reader.cancel();
    expect(feed.listeners).toBe(0);
  });
});
