import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inputSchema, type ModelInput, type WindowInput } from "@fieldloop/protocol";
import type { Tensor } from "@fieldloop/runtime";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  isTensorFile,
  namedTensorFiles,
  namedTensorFrame,
  readNpy,
  tensorFrames,
} from "./model-input-tensors.js";
import { windowsOf } from "./model-input-windows.js";

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "fieldloop-tensors-"));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const tensor = (name: string, elementType: string, dims: number[]): ModelInput =>
  inputSchema.parse({ kind: "tensor", name, elementType, dims });

/** A .npy file as `numpy.save` writes it: version 1.0, the header padded to a multiple of 64. */
function npy(descr: string, shape: string, data: Uint8Array, order = "False"): Buffer {
  const text = `{'descr': '${descr}', 'fortran_order': ${order}, 'shape': ${shape}, }`;
  const header = `${text.padEnd(64 * Math.ceil((text.length + 11) / 64) - 11)}\n`;
  const start = Buffer.from([
    0x93,
    0x4e,
    0x55,
    0x4d,
    0x50,
    0x59,
    1,
    0,
    header.length & 255,
    header.length >> 8,
  ]);
  return Buffer.concat([start, Buffer.from(header), data]);
}
const bytesOf = (data: Float32Array | BigInt64Array) => new Uint8Array(data.buffer);

async function framesOf(name: string, bytes: Uint8Array, inputs: readonly ModelInput[]) {
  const path = join(dir, name);
  await writeFile(path, bytes);
  const frames = [];
  for await (const { frame } of tensorFrames(path, inputs)) {
    if (frame.kind === "tensors") frames.push(frame.feeds);
  }
  return frames;
}

describe(".npy", () => {
  it("brings its type and dims, scalars too", () => {
    expect(readNpy("x", npy("<f4", "(2, 1)", bytesOf(Float32Array.of(1, 2))))).toEqual({
      type: "float32",
      dims: [2, 1],
      data: Float32Array.of(1, 2),
    });
    expect(readNpy("x", npy("<i8", "()", bytesOf(BigInt64Array.of(7n)))).dims).toEqual([]);
    expect(readNpy("x", npy("|b1", "(3,)", Uint8Array.of(1, 0, 1))).type).toBe("bool");
  });
  it.each([
    ["big-endian numbers", npy(">f4", "(1,)", new Uint8Array(4))],
    ["columns first", npy("<f4", "(1, 1)", new Uint8Array(4), "True")],
    ["objects", npy("|O", "(1,)", new Uint8Array(8))],
    ["fewer bytes than its shape", npy("<f4", "(3,)", new Uint8Array(8))],
    ["another file", Buffer.from("hello, this is no array")],
  ])("refuses %s", (_, bytes) => {
    expect(() => readNpy("x", bytes)).toThrow(expect.objectContaining({ code: "invalid_argument" }));
  });
});

describe("tensor files", () => {
  it("of several items become a frame each", async () => {
    const inputs = [tensor("x", "float32", [0, 2])];
    const values = bytesOf(Float32Array.of(1, 2, 3, 4));
    const wanted = [
      { x: { type: "float32", dims: [1, 2], data: Float32Array.of(1, 2) } },
      { x: { type: "float32", dims: [1, 2], data: Float32Array.of(3, 4) } },
    ];
    expect(await framesOf("a.npy", npy("<f4", "(2, 2)", values), inputs)).toEqual(wanted);
    expect(await framesOf("a.bin", values, inputs)).toEqual(wanted);
  });
  it("of raw bytes have the input's type", async () => {
    const [frame] = await framesOf("a.bin", Uint8Array.of(255, 1), [tensor("a:0", "int8", [1, 2])]);
    expect(frame).toEqual({ "a:0": { type: "int8", dims: [1, 2], data: Int8Array.of(-1, 1) } });
    await expect(framesOf("a.bin", new Uint8Array(3), [tensor("a", "int8", [1, 2])])).rejects.toThrow(
      /3 bytes, int8\[1, 2\] wants a multiple of 2/,
    );
  });
  it("for several inputs are named", async () => {
    const inputs = [tensor("a=b:0", "int8", [2]), tensor("c", "float32", [])];
    await writeFile(join(dir, "one.bin"), Uint8Array.of(1, 2));
    await writeFile(join(dir, "two.npy"), npy("<f4", "()", bytesOf(Float32Array.of(0.5))));
    const files = namedTensorFiles([`a=b:0=${join(dir, "one.bin")}`, `c=${join(dir, "two.npy")}`], inputs);
    const { frame } = await namedTensorFrame(files!, inputs);
    expect(frame).toEqual({
      kind: "tensors",
      feeds: {
        "a=b:0": { type: "int8", dims: [2], data: Int8Array.of(1, 2) },
        c: { type: "float32", dims: [], data: Float32Array.of(0.5) },
      },
    });
    expect(namedTensorFiles(["d=x.npy"], inputs)).toBeUndefined();
    await expect(framesOf("x.bin", new Uint8Array(2), inputs)).rejects.toThrow(/several as INPUT=FILE/);
  });
  it("of a model that takes windows are cut into them, whichever axis is time", async () => {
    const window = inputSchema.parse({
      ...{ kind: "window", name: "w", length: 2, channels: 3, hop: 2, sampleRateHz: 1 },
      ...{ normalization: "none", dims: [1, 3, 2], layout: "channel-time" },
    }) as WindowInput;
    const array = (dims: number[], values: number[]): Tensor => ({
      type: "float64",
      dims,
      data: Float64Array.from(values),
    });
    const wanted = [Float32Array.of(11, 21, 31, 12, 22, 32), Float32Array.of(1, 3, 5, 2, 4, 6)];
    expect(windowsOf("x", array([2, 3, 2], [11, 12, 21, 22, 31, 32, 1, 2, 3, 4, 5, 6]), window)).toEqual(
      wanted,
    );
    expect(windowsOf("x", array([2, 2, 3], [11, 21, 31, 12, 22, 32, 1, 3, 5, 2, 4, 6]), window)).toEqual(
      wanted,
    );
    expect(windowsOf("x", array([6], [11, 21, 31, 12, 22, 32]), window)).toEqual(wanted.slice(0, 1));
    expect(() => windowsOf("x", array([12], new Array<number>(12).fill(0)), window)).toThrow(
      /an array of \[12\], a window is \[2, 3\], \[3, 2\] or \[6\]/,
    );
    await writeFile(join(dir, "w.npy"), npy("<f4", "(1, 6)", bytesOf(wanted[0]!)));
    for await (const { frame } of tensorFrames(join(dir, "w.npy"), [window])) {
      expect(frame).toEqual({ kind: "window", samples: wanted[0] });
    }
  });
  it("are told from windows by the model's input", () => {
    const window = inputSchema.parse({
      kind: "window",
      name: "w",
      length: 4,
      hop: 4,
      sampleRateHz: 1,
      normalization: "none",
      dims: [],
    });
    expect(isTensorFile("a.bin", [window])).toBe(false);
    expect(isTensorFile("a.npy", [window])).toBe(true);
    expect(isTensorFile("a.bin", [tensor("x", "float32", [1])])).toBe(true);
  });
});
