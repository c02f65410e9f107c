import { expect, it } from "vitest";
import type { LaneState } from "@fieldloop/protocol";
import { createMetrics, type MetricsSource } from "./metrics.js";

const LANE: LaneState = {
  name: "main",
  source: "camera:0",
  model: null,
  priority: 50,
  running: null,
  deployment: null,
  framesSeen: 12,
  framesDropped: 2,
  framesFailed: 1,
  framesSkipped: 3,
  rateMax: 7.5,
  sourceCounts: { rows: 40 },
};

it("counts are counters that say the same when read again, and a limit goes with the governor's", async () => {
  let lanes = [LANE];
  const zero = (): number => 0;
  const source: MetricsSource = {
    ...{ predictions: zero, framesDropped: zero, framesFailed: zero, samplesTaken: zero, hostRestarts: zero },
    ...{ hostReady: () => true, hostResidentBytes: zero, lanes: () => lanes, warnings: () => [] },
    ...{ runMs: () => 5, linkUp: () => true, uplinkBytes: zero, uplinkResends: zero, recordsEvicted: zero },
    ...{ spoolBytes: zero, spoolRecords: zero, acknowledged: zero },
  };
  const registry = createMetrics(source);
  await registry.metrics();
  const text = await registry.metrics();
  expect(text).toContain("# TYPE fieldloop_lane_frames_total counter");
  for (const line of [
    'fieldloop_lane_frames_total{lane="main"} 12',
    'fieldloop_lane_frames_dropped_total{lane="main"} 2',
    'fieldloop_lane_frames_skipped_total{lane="main"} 3',
    'fieldloop_lane_frames_failed_total{lane="main"} 1',
    'fieldloop_lane_run_seconds{lane="main"} 0.005',
    'fieldloop_lane_rate_max{lane="main"} 7.5',
    'fieldloop_source_total{lane="main",what="rows"} 40',
  ]) {
    expect(text.split("\n")).toContain(line);
  }
  lanes = [{ ...LANE, rateMax: null }];
  expect(await registry.metrics()).not.toContain("fieldloop_lane_rate_max{");
});
