import type { ModelInput } from "@fieldloop/protocol";
import type { Frame } from "@fieldloop/runtime";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AGENT_LIMITS } from "../../limits.js";
import { fitOf } from "./fit.js";
import { Recutter } from "./recut.js";
import { FrameRuns } from "./runs.js";
import { ShadowTally } from "./tally.js";
import { decodeReply, encodeReply, encodeShadowFrame, ShadowFrameReader } from "./wire.js";

const answer = { class: 1, label: "b", heads: [] };
const common = { stream: "main", fresh: false, compare: true, sha256: "ab".repeat(32), answer };

describe("frames through the socket", () => {
  const frames: Frame[] = [
    { kind: "encoded", bytes: Uint8Array.of(1, 2, 3) },
    { kind: "pixels", data: new Uint8Array(12).fill(7), width: 2, height: 2, channels: 3 },
    { kind: "window", samples: Float32Array.of(0.5, -1, Number.NaN) },
    { kind: "row", values: { a: 1, b: "x", c: null, d: true } },
    { kind: "tensors", feeds: { x: { type: "float32", dims: [1, 2], data: Float32Array.of(1, 2) } } },
  ];

  it("come out as they went in, wherever the stream is cut", () => {
    const bytes = Buffer.concat(frames.flatMap((frame, id) => encodeShadowFrame({ ...common, id, frame })));
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1 }), (sizes) => {
        const reader = new ShadowFrameReader();
        const read: unknown[] = [];
        let at = 0;
        for (let turn = 0; at < bytes.length; turn++) {
          const end = at + sizes[turn % sizes.length]!;
          read.push(...reader.push(bytes.subarray(at, end)));
          at = end;
        }
        expect(read).toEqual(frames.map((frame, id) => ({ ...common, id, frame })));
      }),
      { numRuns: 50 },
    );
  });
  it("do not copy their bytes on the side that must not wait, and leave embeddings behind", () => {
    const data = new Uint8Array(1 << 16);
    const embedding = { kind: "embedding", name: "e", embedding: new Float32Array(4_096) } as const;
    const chunks = encodeShadowFrame({
      ...common,
      id: 1,
      answer: { ...answer, heads: [embedding] },
      frame: { kind: "pixels", data, width: 256, height: 256, channels: 1 },
    });
    expect(chunks.at(-1)!.buffer).toBe(data.buffer);
    expect(chunks[1]!.length).toBeLessThan(1_000);
  });
  it("that no source gives are refused", () => {
    const lengths = Buffer.alloc(8);
    lengths.writeUInt32LE(0xffff_fff0, 4);
    expect(() => [...new ShadowFrameReader().push(lengths)]).toThrow(/4294967280 bytes/);
  });
});

describe("answers through the socket", () => {
  it("are checked: a process in which a model ran wild may say anything", () => {
    const said = { disagreement: 0.5, label: "a", confidence: 1, latencyMs: 2 };
    const reply = { id: 3, cpuMs: 1.5, answer: said };
    expect(decodeReply(encodeReply(reply))).toEqual(reply);
    for (const line of [
      "",
      "{}",
      "null",
      JSON.stringify({ ...reply, cpuMs: -1 }),
      JSON.stringify({ ...reply, answer: { ...said, disagreement: 2 } }),
      JSON.stringify({ ...reply, answer: { ...said, label: "x".repeat(200) } }),
      JSON.stringify({ ...reply, failure: { code: "no_such_code", message: "" } }),
    ]) {
      expect(() => decodeReply(line)).toThrow(expect.objectContaining({ code: "message_schema" }));
    }
  });
});

const windowInput = (length: number, hop: number, more = {}): ModelInput => ({
  kind: "window",
  name: "x",
  length,
  hop,
  channels: 1,
  context: 0,
  sampleRateHz: 100,
  normalization: "none",
  mean: 0,
  std: 1,
  elementType: "float32",
  dims: [1, length],
  ...more,
});
const state: ModelInput = {
  kind: "state",
  name: "s",
  output: "t",
  dims: [1],
  elementType: "float32",
} as ModelInput;
const part = (...inputs: ModelInput[]) => ({ inputs, nodes: [] });

describe("what a candidate can be shown", () => {
  const image = { kind: "image", name: "i" } as ModelInput;
  it.each([
    ["an image of any size", part(image), part({ ...image, name: "other" }), false, "same"],
    ["another kind of input", part(image), part(windowInput(8, 8)), false, "none"],
    ["the same windows", part(windowInput(8, 4)), part(windowInput(8, 4), state), false, "same"],
    ["windows as often as they come", part(windowInput(8, 4)), part(windowInput(8, 8)), false, "same"],
    ["a state over another hop", part(windowInput(8, 4)), part(windowInput(8, 8), state), false, "recut"],
    ["longer windows", part(windowInput(8, 4)), part(windowInput(16, 4)), false, "recut"],
    [
      "longer windows that the source cuts itself",
      part(windowInput(8, 4)),
      part(windowInput(16, 4)),
      true,
      "same",
    ],
    [
      "longer windows of a signal with holes",
      part(windowInput(8, 9)),
      part(windowInput(16, 4)),
      false,
      "none",
    ],
    ["another rate", part(windowInput(8, 4)), part(windowInput(8, 4, { sampleRateHz: 50 })), false, "none"],
  ])("%s: %#", (_, active, candidate, isCutBySource, kind) => {
    expect(fitOf(active, candidate, isCutBySource).kind).toBe(kind);
  });

  it("cuts the signal anew: as if it had been cut so from the begin", () => {
    const signal = Float32Array.from({ length: 400 }, (_, at) => at);
    const shapes = fc.record({
      length: fc.integer({ min: 1, max: 20 }),
      hop: fc.integer({ min: 1, max: 20 }),
    });
    fc.assert(
      fc.property(shapes, shapes, (one, other) => {
        const from = { ...one, hop: Math.min(one.hop, one.length), channels: 1, sampleRateHz: 1 };
        const to = { ...other, channels: 1, sampleRateHz: 1 };
        const recutter = new Recutter(from, to);
        const cut: number[][] = [];
        let seen = 0;
        for (let at = 0; at + from.length <= signal.length; at += from.hop) {
          const windows = recutter.push(signal.slice(at, at + from.length), at === 0);
          cut.push(...windows.map(({ samples }) => [...samples]));
          seen = at + from.length;
        }
        const wanted: number[][] = [];
        for (let at = 0; at + to.length <= seen; at += to.hop) {
          wanted.push([...signal.slice(at, at + to.length)]);
        }
        expect(cut).toEqual(wanted);
      }),
    );
  });
});

describe("frames in a row", () => {
  it("warm up after a gap that is ours, and not where the stream begins", () => {
    const runs = new FrameRuns();
    const shown = Array.from({ length: AGENT_LIMITS.shadowWarmFrames + 2 }, () => runs.show("a", false));
    expect(shown[0]).toEqual({ fresh: true, compare: false });
    expect(shown[1]).toEqual({ fresh: false, compare: false });
    expect(shown.filter(({ compare }) => !compare).length).toBe(AGENT_LIMITS.shadowWarmFrames);
    expect(runs.show("a", true)).toEqual({ fresh: true, compare: true });
    expect(runs.show("a", false)).toEqual({ fresh: false, compare: true });
    runs.leaveOut("a");
    expect(runs.isRunning("a")).toBe(false);
    expect(runs.show("a", false)).toEqual({ fresh: true, compare: false });
    // Another stream knows nothing of it.
    expect(runs.show("b", true)).toEqual({ fresh: true, compare: true });
  });
});

describe("what is told", () => {
  it("is what happened since, with a quarter of the last runs, and nothing where nothing did", () => {
    const tally = new ShadowTally();
    expect(tally.take()).toBeUndefined();
    for (let ms = 1; ms <= 8; ms++) {
      tally.add("frames");
      tally.compared(ms, 0.5);
    }
    tally.flipped("a", "b");
    tally.flipped("a", "b");
    tally.flipped("b", "a");
    tally.failed({ code: "model_run_failed", message: "no" });
    expect(tally.take()).toEqual({
      frames: 8,
      compared: 8,
      skipped: 0,
      failed: 1,
      disagreements: 0,
      candidateMs: 36,
      activeMs: 4,
      cpuMs: 0,
      flips: [
        ["a", "b", 2],
        ["b", "a", 1],
      ],
      quickMs: 3,
      lastFailure: { code: "model_run_failed", message: "no" },
    });
    expect(tally.take()).toBeUndefined();
    tally.add("cpuMs", 2);
    expect(tally.take()).toMatchObject({ frames: 0, cpuMs: 2, flips: [], quickMs: 3 });
  });
});
