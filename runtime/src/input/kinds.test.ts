import { inputSchema, type ConstantInput, type ImageInput, type TableInput } from "@fieldloop/protocol";
import { describe, expect, it } from "vitest";
import { halfToNumber, numberToHalf } from "../package/tensor-bytes.js";
import { dimsFor, encodeElements } from "./elements.js";
import { constantTensor } from "./fixed.js";
import { PixelPacker } from "./pixels.js";
import { FramePreparer, zeroFeeds } from "./prepare.js";
import { StreamTable } from "./stream.js";
import { TableEncoder } from "./table.js";

const table = (columns: object[], more: object = {}): TableInput =>
  inputSchema.parse({ kind: "table", name: "t", columns, dims: [], ...more }) as TableInput;
const constant = (elementType: string, dims: number[], values: unknown[]): ConstantInput =>
  inputSchema.parse({ kind: "constant", name: "c", elementType, dims, values }) as ConstantInput;
const noImages = async (): Promise<never> => {
  throw new Error("no decoder wanted");
};

describe("tables", () => {
  const columns = [
    { name: "age", encoding: { kind: "number", mean: 40, std: 10 }, missing: 40 },
    { name: "colour", encoding: { kind: "index", categories: ["red", "green"], unknown: -1 } },
    { name: "size", encoding: { kind: "one-hot", categories: ["s", "m", "l"] } },
    { name: "new", encoding: { kind: "boolean" }, missing: false },
  ];
  it("put every column's numbers one after the other", () => {
    const encoder = new TableEncoder(table(columns, { dims: [0, 6] }));
    const encode = (row: Parameters<typeof encoder.encode>[0]) => [
      ...(encoder.encode(row).data as Float32Array),
    ];
    expect(encoder.dims).toEqual([1, 6]);
    expect(encode({ age: 50, colour: "green", size: "m", new: true })).toEqual([1, 1, 0, 1, 0, 1]);
    expect(encode({ age: "30", colour: "blue", size: "xl", new: "0" })).toEqual([-1, -1, 0, 0, 0, 0]);
    expect(encode({ age: null, colour: "red", size: "l", new: "" })).toEqual([0, 0, 0, 0, 1, 0]);
    expect(encode({ age: Number.NaN, colour: "red", size: "s", extra: 1 })).toEqual([0, 0, 1, 0, 0, 0]);
  });
  it.each([
    ["a missing value", { colour: "red" }, /no value in column "size"/],
    ["a number that is none", { age: "old", colour: "red", size: "s" }, /"age" is "old", wanted a number/],
    ["an infinite number", { age: Infinity, colour: "red", size: "s" }, /wanted a number/],
    ["a truth that is none", { colour: "red", size: "s", new: "maybe" }, /wanted true or false/],
    ["a column that only the prototype has", JSON.parse('{"size":"s"}'), /no value in column "colour"/],
  ])("refuse %s", (_, row, message) => {
    const encoder = new TableEncoder(table(columns));
    expect(() => encoder.encode(row)).toThrow(message);
    expect(() => encoder.encode(row)).toThrow(expect.objectContaining({ code: "row_invalid" }));
  });
  it("refuse an unknown category where none stands for it", () => {
    const encoder = new TableEncoder(
      table([{ name: "colour", encoding: { kind: "index", categories: ["red"] } }], { elementType: "int64" }),
    );
    expect(encoder.encode({ colour: "red" })).toEqual({
      type: "int64",
      dims: [1, 1],
      data: BigInt64Array.of(0n),
    });
    expect(() => encoder.encode({ colour: "blue" })).toThrow(/"blue", wanted one of "red"/);
  });
  it("refuse whole numbers that a row cannot hold exactly, and places that the type cannot", () => {
    const key = { name: "key", encoding: { kind: "number" } };
    const encoder = new TableEncoder(table([key], { elementType: "int64" }));
    expect(encoder.encode({ key: "9007199254740991" }).data).toEqual(BigInt64Array.of(2n ** 53n - 1n));
    expect(() => encoder.encode({ key: "9007199254740993" })).toThrow(
      /"9007199254740993", wanted .* 2\^53 - 1/,
    );
    const colour = { kind: "index", categories: ["red", "green"], unknown: -1 };
    const of = (elementType: string) => () =>
      new TableEncoder(table([{ name: "colour", encoding: colour }], { elementType }));
    expect(of("int8")).not.toThrow();
    expect(of("uint8")).toThrow(/column "colour" has the index -1, which uint8 cannot hold/);
  });
  it("hold text as it is in text tensors, and in no others", () => {
    const text = [
      { name: "a", encoding: { kind: "text" } },
      { name: "b", encoding: { kind: "text" }, missing: "-" },
    ];
    const encoder = new TableEncoder(table(text, { elementType: "string" }));
    expect(encoder.encode({ a: "" }).data).toEqual(["", "-"]);
    expect(() => new TableEncoder(table(text))).toThrow(/"text" in a tensor of float32/);
    expect(() => new TableEncoder(table(columns, { elementType: "string" }))).toThrow(/"number"/);
    expect(() => new TableEncoder(table(columns, { dims: [1, 5] }))).toThrow(/hold 5 values/);
  });
  it("of one row feed several inputs, as exporters of pipelines make one for each column", async () => {
    const inputs = [
      table([columns[0]!], { name: "age", dims: [0, 1] }),
      table([{ name: "text", encoding: { kind: "text" } }], {
        name: "text",
        elementType: "string",
        dims: [0, 1],
      }),
    ];
    const { feeds } = await new FramePreparer({ inputs }, noImages).prepare({
      kind: "row",
      values: { age: 60, text: "hello" },
    });
    expect(feeds).toEqual({
      age: { type: "float32", dims: [1, 1], data: Float32Array.of(2) },
      text: { type: "string", dims: [1, 1], data: ["hello"] },
    });
    expect(zeroFeeds(inputs)).toBeUndefined();
    expect(zeroFeeds([inputs[0]!])!["age"]!.dims).toEqual([1, 1]);
  });
});

describe("constants", () => {
  it.each([
    ["int64", [], [16_000], BigInt64Array.of(16_000n)],
    ["int64", [3], [7], BigInt64Array.of(7n, 7n, 7n)],
    ["bool", [2], [true, false], Uint8Array.of(1, 0)],
    ["string", [0, 2], ["a", "b"], ["a", "b"]],
    ["float16", [1], [1.5], Uint16Array.of(0x3e00)],
    ["float32", [2], [0.1], Float32Array.of(0.1, 0.1)],
    ["uint8", [], [255], Uint8Array.of(255)],
  ])("of %s %j", (type, dims, values, data) => {
    const tensor = constantTensor(constant(type, dims, values));
    expect(tensor.data).toEqual(data);
    expect(tensor.dims).toEqual(dims.map((size) => size || 1));
  });
  it.each([
    ["another count", constant("float32", [3], [1, 2])],
    ["fractions for integers", constant("int64", [], [1.5])],
    ["numbers beyond the type", constant("uint8", [], [256])],
    ["text for numbers", constant("float32", [], ["1"])],
    ["numbers for text", constant("string", [], [1])],
    ["truth for numbers", constant("int32", [], [true])],
    ["numbers for truth", constant("bool", [], [2])],
    ["more memory than any model needs", constant("float64", [2 ** 30, 8], [0])],
  ])("refuse %s", (_, input) => {
    expect(() => constantTensor(input)).toThrow(expect.objectContaining({ code: "manifest_invalid" }));
  });
});

describe("elements", () => {
  it("of float16 are the nearest ones", () => {
    const changed = Array.from({ length: 0x7c00 }, (_, bits) => bits).filter(
      (bits) => numberToHalf(halfToNumber(bits)) !== bits,
    );
    expect(changed).toEqual([]);
    const cases = [
      [65_519, 0x7bff],
      [65_520, 0x7c00],
      [-0, 0x8000],
      [2 ** -25, 0],
      [2 ** -24 * 1.5, 2],
      [1 + 2 ** -11, 0x3c00],
      [1 + 3 * 2 ** -11, 0x3c02],
      [Number.NaN, 0x7e00],
      [Number.NEGATIVE_INFINITY, 0xfc00],
    ];
    for (const [value, bits] of cases) expect(numberToHalf(value!)).toBe(bits);
  });
  it("of quantized inputs round half to even and clip", () => {
    const values = Float32Array.of(0.5, 1.5, 2.5, -0.5, 1e9, -1e9);
    expect([...encodeElements("int8", values, { scale: 1, zeroPoint: 1 })]).toEqual([1, 3, 3, 1, 127, -128]);
    expect([...encodeElements("uint8", Float32Array.of(0.5), { scale: 0.25, zeroPoint: 128 })]).toEqual([
      130,
    ]);
    expect(encodeElements("float32", values)).toBe(values);
  });
  it("take the last dynamic dimension for what the others leave", () => {
    expect(dimsFor("x", [0, 0], 512)).toEqual([1, 512]);
    expect(dimsFor("x", [0, 4], 4)).toEqual([1, 4]);
    expect(dimsFor("x", [], 4)).toEqual([1, 4]);
    expect(() => dimsFor("x", [0, 3], 4)).toThrow(/hold 3 values/);
  });
});

describe("pixels", () => {
  const image = (elementType: string, more: object = {}): ImageInput =>
    inputSchema.parse({
      kind: "image",
      name: "x",
      width: 37,
      height: 11,
      colour: "rgb",
      resize: "stretch",
      layout: "nchw",
      range: "byte",
      mean: [1, 2, 3],
      std: [2],
      elementType,
      ...more,
    }) as ImageInput;
  const pixels = Uint8Array.from({ length: 37 * 11 * 3 }, (_, at) => (at * 89 + (at >> 4)) & 255);

  it.each(["rgb", "bgr"])("as float32 planes are the same from any memory, in %s", (colour) => {
    const packer = new PixelPacker(image("float32", { colour }));
    const aligned = packer.allocate();
    const brightness = packer.pack(pixels, 3, aligned);
    const shifted = new Uint8Array(pixels.length + 1);
    shifted.set(pixels, 1);
    const unaligned = packer.allocate();
    const exact = packer.pack(shifted.subarray(1), 3, unaligned);
    expect(unaligned.data).toEqual(aligned.data);
    expect(exact).toBeCloseTo(pixels.reduce((sum, value) => sum + value, 0) / pixels.length / 255, 9);
    expect(Math.abs(brightness - exact)).toBeLessThan(0.05);
  });
  it("as float16 and uint16 are those as float32", () => {
    const pack = (type: string) => {
      const packer = new PixelPacker(image(type, { mean: [0], std: [1] }));
      const tensor = packer.allocate();
      packer.pack(pixels, 3, tensor);
      return tensor;
    };
    const float = [...(pack("float32").data as Float32Array)];
    expect([...(pack("uint16").data as Uint16Array)]).toEqual(float);
    const half = pack("float16");
    expect(half.data).toBeInstanceOf(Uint16Array);
    expect([...(half.data as Uint16Array)].map(halfToNumber)).toEqual(float);
  });
});

describe("state and constants beside one fed input", () => {
  const inputs = [
    { kind: "state", name: "h:0", output: "h/out", dims: [2, 0, 3] },
    {
      kind: "window",
      name: "in/put",
      length: 2,
      hop: 2,
      context: 2,
      sampleRateHz: 10,
      normalization: "none",
      dims: [0, 4],
    },
    { kind: "constant", name: "sr", elementType: "int64", dims: [], values: [10] },
  ].map((input) => inputSchema.parse(input));

  it("are filled in: zeros at the start, then what the stream carries", async () => {
    const preparer = new FramePreparer({ inputs }, noImages);
    const frame = { kind: "window", samples: Float32Array.of(1, 2) } as const;
    const first = await preparer.prepare(frame);
    expect(first.feeds["h:0"]).toEqual({ type: "float32", dims: [2, 1, 3], data: new Float32Array(6) });
    expect(first.feeds["in/put"]!.data).toEqual(Float32Array.of(0, 0, 1, 2));
    expect(first.feeds["sr"]).toEqual({ type: "int64", dims: [], data: BigInt64Array.of(10n) });
    const state = { type: "float32", dims: [2, 1, 3], data: new Float32Array(6).fill(5) } as const;
    const second = await preparer.prepare(frame, {
      contexts: first.contexts!,
      states: new Map([["h:0", state]]),
    });
    expect(second.feeds["h:0"]).toBe(state);
    expect(second.feeds["in/put"]!.data).toEqual(Float32Array.of(1, 2, 1, 2));
    expect(second.feeds["sr"]).toBe(first.feeds["sr"]);
  });
  it("may come with a frame of tensors, and must fit then", async () => {
    const preparer = new FramePreparer({ inputs }, noImages);
    const samples = { type: "float32", dims: [1, 4], data: new Float32Array(4) } as const;
    const given = { type: "float32", dims: [2, 1, 3], data: new Float32Array(6).fill(1) } as const;
    const prepare = (feeds: Record<string, typeof samples | typeof given>) =>
      preparer.prepare({ kind: "tensors", feeds });
    expect((await prepare({ "in/put": samples })).feeds["h:0"]!.data[0]).toBe(0);
    expect((await prepare({ "in/put": samples, "h:0": given })).feeds["h:0"]).toBe(given);
    await expect(prepare({ "h:0": given })).rejects.toThrow(/no tensor for input "in\/put"/);
    await expect(prepare({ "in/put": samples, "h:0": samples })).rejects.toThrow(/wanted float32\[2, 0, 3\]/);
  });
  it("warm a session with their own values", () => {
    const feeds = zeroFeeds(inputs)!;
    expect(feeds["sr"]!.data).toEqual(BigInt64Array.of(10n));
    expect(feeds["in/put"]!.dims).toEqual([1, 4]);
    expect(feeds["h:0"]!.dims).toEqual([2, 1, 3]);
  });
});

describe("streams", () => {
  it("are bounded: the one that was silent longest is forgotten", () => {
    const streams = new StreamTable(2);
    const [a, b] = [streams.of("a"), streams.of("b")];
    expect(streams.of("a")).toBe(a);
    streams.of("c");
    expect(streams.size).toBe(2);
    expect(streams.of("a")).toBe(a);
    expect(streams.of("b")).not.toBe(b);
  });
  it("start anew once forgotten, one or all", () => {
    const streams = new StreamTable();
    const [a, b] = [streams.of("a"), streams.of("b")];
    streams.forget("a");
    expect(streams.of("a")).not.toBe(a);
    expect(streams.of("b")).toBe(b);
    streams.forget();
    expect(streams.size).toBe(0);
  });
  it("do their work in order, whatever becomes of it", async () => {
    const stream = new StreamTable().of("a");
    const done: number[] = [];
    const work = (at: number) =>
      stream.inOrder(async () => {
        await new Promise((resolve) => setImmediate(resolve));
        done.push(at);
        if (at === 1) throw new Error("bad");
        return at;
      });
    const results = await Promise.allSettled([work(0), work(1), work(2)]);
    expect(done).toEqual([0, 1, 2]);
    expect(results.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
  });
});
