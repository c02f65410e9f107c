import { describe, expect, it } from "vitest";
import { balancedWeights, epochOrder, Feed, rowCount, type FeedOptions } from "./feed.js";

/** Row `k` holds [k, k]. */
const rows = (count: number, from = 0) => ({
  inputs: Float32Array.from({ length: 2 * count }, (_, k) => from + Math.floor(k / 2)),
  labels: Int32Array.from({ length: count }, (_, k) => k % 3),
});

const options: FeedOptions = {
  data: rows(10),
  replayShare: 0.5,
  batch: 4,
  rowSize: 2,
  targetSize: 3,
  labelSmoothing: 0,
  seed: 5,
};

const firstOf = (batch: { inputs: Float32Array }) =>
  Array.from({ length: 4 }, (_, row) => batch.inputs[row * 2]!);

describe("epochOrder", () => {
  it("is a permutation that depends on seed and epoch alone", () => {
    const order = epochOrder(50, 1, 0);
    expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, k) => k));
    expect([...epochOrder(50, 1, 0)]).toEqual([...order]);
    expect([...epochOrder(50, 1, 1)]).not.toEqual([...order]);
    expect([...epochOrder(50, 2, 0)]).not.toEqual([...order]);
  });
});

describe("Feed", () => {
  it("passes over every row once an epoch; missing rows weigh nothing", async () => {
    const feed = new Feed(options);
    expect(feed.stepsPerEpoch).toBe(3);
    const seen: number[] = [];
    for (let step = 0; step < 3; step++) {
      const batch = await feed.batchAt(step);
      firstOf(batch).forEach((value, row) => batch.weights[row]! > 0 && seen.push(value));
      expect(batch.weights.reduce((sum, weight) => sum + weight, 0)).toBeCloseTo(1, 6);
    }
    expect(seen.sort((a, b) => a - b)).toEqual(Array.from({ length: 10 }, (_, k) => k));
  });

  it("makes any step's batch without those before it", async () => {
    const replayed = { ...options, replay: rows(7, 100) };
    const forward = new Feed(replayed);
    for (let step = 0; step < 30; step++) await forward.batchAt(step);
    expect(await new Feed(replayed).batchAt(30)).toEqual(await forward.batchAt(30));
  });

  it("gives replay its share of every batch", async () => {
    const feed = new Feed({ ...options, replay: rows(7, 100), replayShare: 0.25 });
    expect(feed.stepsPerEpoch).toBe(4);
    const replayed: number[] = [];
    for (let step = 0; step < 7; step++) {
      const values = firstOf(await feed.batchAt(step));
      expect(values.slice(0, 3).every((value) => value < 100)).toBe(true);
      replayed.push(values[3]!);
    }
    expect(replayed.sort((a, b) => a - b)).toEqual(Array.from({ length: 7 }, (_, k) => 100 + k));
  });

  it("smooths labels, weighs rows, augments by (seed, step, row)", async () => {
    const feed = new Feed({
      ...options,
      data: { ...rows(4), weights: [1, 1, 1, 5] },
      labelSmoothing: 0.3,
      augment: (row, random) => row.fill(row[0]! + random.uniform()),
    });
    const batch = await feed.batchAt(0);
    const heavy = firstOf(batch).findIndex((value) => value >= 3);
    expect(batch.weights[heavy]).toBeCloseTo(5 / 8, 6);
    const target = Array.from(
      batch.targets.subarray(heavy * 3, heavy * 3 + 3),
      (value) => Math.round(value * 100) / 100,
    );
    expect(target).toEqual([0.8, 0.1, 0.1]);
    expect(await feed.batchAt(0)).toEqual(batch);
    expect(firstOf(await feed.batchAt(1))).not.toEqual(firstOf(batch));
  });

  it("lets a stream make its rows, and an autoencoder's row be its own target", async () => {
    const feed = new Feed({
      ...options,
      targetSize: 2,
      data: {
        stepsPerEpoch: 5,
        next: (step, count) => ({ inputs: new Float32Array(2 * (count - 1)).fill(step) }),
      },
      augment: (row) => row.fill(-1),
    });
    expect(feed.stepsPerEpoch).toBe(5);
    const batch = await feed.batchAt(2);
    expect(Array.from(batch.targets)).toEqual([2, 2, 2, 2, 2, 2, 0, 0]);
    expect(Array.from(batch.inputs)).toEqual([-1, -1, -1, -1, -1, -1, 0, 0]);
    expect(batch.weights[3]).toBe(0);
  });
});

describe("rowCount", () => {
  const shape = { rowSize: 2, targetSize: 3 };
  it.each([
    ["no rows", { inputs: new Float32Array(0), labels: [] }, "training_no_labels"],
    ["half a row", { inputs: new Float32Array(3), labels: [0] }, "invalid_argument"],
    ["too few labels", { inputs: new Float32Array(4), labels: [0] }, "invalid_argument"],
    ["an unknown class", { inputs: new Float32Array(4), labels: [0, 3] }, "invalid_argument"],
    ["no target", { inputs: new Float32Array(4) }, "invalid_argument"],
    ["short targets", { inputs: new Float32Array(4), targets: new Float32Array(5) }, "invalid_argument"],
    ["short weights", { inputs: new Float32Array(4), labels: [0, 1], weights: [1] }, "invalid_argument"],
  ])("refuses %s", (_, data, code) => {
    expect(() => rowCount(data, shape)).toThrow(expect.objectContaining({ code }));
  });
});

describe("balancedWeights", () => {
  it("gives each class the same sum and the rows mean 1", () => {
    const weights = balancedWeights([0, 0, 0, 2], 3);
    expect(weights[0]! * 3).toBeCloseTo(weights[3]!, 6);
    expect(weights.reduce((sum, weight) => sum + weight, 0)).toBeCloseTo(4, 6);
  });
});
