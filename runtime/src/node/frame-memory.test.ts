import { describe, expect, it } from "vitest";
import type { Tensor } from "../backend.js";
import type { Frame } from "../input/frame.js";
import { FrameMemory } from "./frame-memory.js";

const pixels = (side: number, value: number): Frame & { kind: "pixels" } => ({
  kind: "pixels",
  data: new Uint8Array(side * side).fill(value),
  width: side,
  height: side,
  channels: 1,
});
/** As a worker does it: there and back. */
const move = (buffers: readonly ArrayBuffer[]): ArrayBuffer[] => {
  const { buffers: moved } = structuredClone({ buffers }, { transfer: [...buffers] });
  return [...moved];
};

describe("memory of frames", () => {
  it("holds a copy of each large part, in the kind of array that it was, and leaves the frame as it is", () => {
    const memory = new FrameMemory();
    const shared = new Float32Array(40_000).map((_, at) => at);
    const feeds: Record<string, Tensor> = {
      a: { type: "float32", dims: [20_000], data: shared.subarray(10_000, 30_000) },
      b: { type: "int64", dims: [4096], data: new BigInt64Array(4096).fill(-7n) },
      c: { type: "string", dims: [1], data: ["text"] },
      d: { type: "float32", dims: [2], data: Float32Array.of(1, 2) },
    };
    const encoded: Frame = { kind: "encoded", bytes: Buffer.alloc(20_000, 3) };
    const given: Frame[] = [{ kind: "tensors", feeds }, encoded, { kind: "row", values: { x: 1 } }];
    const { frames, buffers } = memory.lend(given);
    expect(frames.map(({ kind }) => kind)).toEqual(["tensors", "encoded", "row"]);
    expect(frames[2]).toBe(given[2]);
    expect(buffers.length).toBe(3);
    expect(new Set(buffers).size).toBe(3);
    const moved = structuredClone({ frames }, { transfer: buffers });
    const [tensors] = moved.frames;
    if (tensors?.kind !== "tensors") throw new Error("another frame");
    expect(tensors.feeds["a"]!.data[0]).toBe(10_000);
    expect(tensors.feeds["b"]!.data).toBeInstanceOf(BigInt64Array);
    expect(shared[10_000]).toBe(10_000);
    expect(encoded.bytes.length).toBe(20_000);
  });
  it("is used again for frames of the same size and smaller ones, and only when it came back", () => {
    const memory = new FrameMemory();
    const first = memory.lend([pixels(300, 1), pixels(300, 2)]);
    const [one, other] = move(first.buffers);
    expect(memory.lend([pixels(300, 3)]).buffers[0]!.byteLength).toBe(2 ** 17);
    memory.takeBack([one!, other!]);
    const second = memory.lend([pixels(250, 4), pixels(300, 5)]);
    expect([one, other].map((buffer) => second.buffers.includes(buffer!))).toEqual([true, true]);
    expect(
      second.frames.map((frame) => frame.kind === "pixels" && [frame.data.length, frame.data[0]]),
    ).toEqual([
      [62_500, 4],
      [90_000, 5],
    ]);
    expect([one, other].indexOf(memory.lend([pixels(300, 6)]).buffers[0])).toBe(-1);
  });
  it("keeps no more than two large pictures while nobody wants it, the latest ones", () => {
    const memory = new FrameMemory();
    const old = memory.lend([pixels(256, 0)]).buffers;
    memory.takeBack(old);
    const large = [pixels(2500, 1), pixels(2500, 2), pixels(2500, 3)];
    const { buffers } = memory.lend(large);
    memory.takeBack(buffers);
    const again = memory.lend([...large, pixels(256, 4)]).buffers;
    const known = [...old, ...buffers];
    // Which of the known ones, in words: a message about the bytes themselves would be without end.
    expect(again.map((buffer) => known.indexOf(buffer))).toEqual([2, 3, -1, -1]);
  });
  it("is not spent on small frames nor on those beyond all bounds", () => {
    const memory = new FrameMemory();
    const small = pixels(100, 1);
    const huge = pixels(4200, 1);
    const { frames, buffers } = memory.lend([small, huge]);
    expect(buffers.length).toBe(0);
    expect(
      frames.map((frame, at) => frame.kind === "pixels" && frame.data === [small, huge][at]!.data),
    ).toEqual([true, true]);
  });
});
