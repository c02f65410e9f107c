import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeCbor, encodeCbor, type CborValue } from "./cbor.js";
import { FieldloopError, type ErrorCode } from "./errors.js";
import { fromHex } from "./signing.js";

const leaf = fc.oneof(
  fc.maxSafeInteger(),
  fc.double(),
  fc.boolean(),
  fc.constant(null),
  fc.string({ unit: "grapheme" }),
  fc.uint8Array(),
  fc.uint16Array(),
  fc.uint32Array(),
  fc.int8Array(),
  fc.int16Array(),
  fc.int32Array(),
  fc.float32Array(),
  fc.float64Array(),
);
const { tree } = fc.letrec<{ tree: CborValue }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    leaf as fc.Arbitrary<CborValue>,
    fc.array(tie("tree"), { maxLength: 6 }) as fc.Arbitrary<CborValue>,
    fc.dictionary(fc.string(), tie("tree"), { maxKeys: 6 }) as fc.Arbitrary<CborValue>,
  ),
}));

describe("CBOR subset", () => {
  it("gives back what it encoded", () => {
    fc.assert(
      fc.property(tree, (value) => {
        expect(normalize(decodeCbor(encodeCbor(value)))).toEqual(normalize(value));
      }),
      { numRuns: 500 },
    );
  });

  it.each([Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER, -(2 ** 53)])("gives back %d", (value) => {
    expect(decodeCbor(encodeCbor(value))).toBe(value);
  });

  it("answers arbitrary bytes with a value or a coded error, nothing else", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 400 }), onlyCodedErrors), { numRuns: 5_000 });
  });

  it("answers mutated messages with a value or a coded error, nothing else", () => {
    fc.assert(
      fc.property(tree, fc.nat(), fc.nat(255), (value, at, byte) => {
        const bytes = encodeCbor(value);
        bytes[at % bytes.length] = byte;
        onlyCodedErrors(bytes);
      }),
      { numRuns: 2_000 },
    );
  });

  it.each<[string, string, ErrorCode]>([
    ["nothing", "", "cbor_truncated"],
    ["a bignum, tag 2", "c249010000000000000000", "cbor_tag_refused"],
    ["a negative bignum, tag 3", "c349010000000000000000", "cbor_tag_refused"],
    ["an indefinite array", "9f01ff", "cbor_indefinite_length"],
    ["an indefinite map", "bf616101ff", "cbor_indefinite_length"],
    ["an indefinite text", "7f6161ff", "cbor_indefinite_length"],
    ["a duplicate key", "a2616101616102", "cbor_duplicate_key"],
    ["a number as key", "a10102", "cbor_key_type"],
    ["an array of 4 G items in five bytes", "9affffffff", "cbor_truncated"],
    ["a map of 4 G entries in five bytes", "baffffffff", "cbor_truncated"],
    ["4 GB of bytes in five bytes", "5affffffff", "cbor_truncated"],
    ["an integer of 2^53", "1b0020000000000000", "cbor_malformed"],
    ["an integer of -2^53 - 1", "3b0020000000000000", "cbor_malformed"],
    ["an integer of 2^64-1", "1bffffffffffffffff", "cbor_malformed"],
    ["a half float", "f93c00", "cbor_malformed"],
    ["undefined", "f7", "cbor_malformed"],
    ["text that is not UTF-8", "62c328", "cbor_malformed"],
    ["a float32 array of three bytes", "d85543010203", "cbor_malformed"],
    ["tag 85 on text", "d8556161", "cbor_malformed"],
    ["nine levels of arrays", `${"81".repeat(9)}01`, "cbor_too_deep"],
    ["two items", "0102", "cbor_trailing_bytes"],
  ])("refuses %s", (_, hex, code) => {
    expect(() => decodeCbor(fromHex(hex))).toThrow(expect.objectContaining({ code }));
  });

  it("stops counting items at its limit", () => {
    const many = encodeCbor(Array.from({ length: 200 }, () => 1));
    expect(() => decodeCbor(many, { depthMax: 8, itemsMax: 100 })).toThrow(
      expect.objectContaining({ code: "cbor_too_many_items" }),
    );
  });

  it("copies out of a Buffer that lies within a larger pool", () => {
    const value = { bytes: Uint8Array.of(1, 2, 3), floats: Float32Array.of(0.5, -2) };
    const encoded = encodeCbor(value);
    const pool = Buffer.alloc(encoded.length + 9, 0x5a);
    pool.set(encoded, 5);
    const decoded = decodeCbor(pool.subarray(5, 5 + encoded.length));
    pool.fill(0);
    expect(decoded).toEqual(value);
  });

  it("keeps `__proto__` a plain key", () => {
    const decoded = decodeCbor(fromHex("a1695f5f70726f746f5f5fa1617801")) as Record<string, unknown>;
    expect(Object.getPrototypeOf(decoded)).toBeNull();
    expect(Object.keys(decoded)).toEqual(["__proto__"]);
  });
});

function onlyCodedErrors(bytes: Uint8Array): void {
  try {
    decodeCbor(bytes);
  } catch (error) {
    expect(error).toBeInstanceOf(FieldloopError);
  }
}

/** Null prototypes and -0 are no difference in meaning. */
function normalize(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(normalize);
  if (ArrayBuffer.isView(value)) return [value.constructor.name, [...(value as Uint8Array)]];
  if (value !== null && typeof value === "object") {
    return Object.entries(value)
      .map(([key, item]) => [key, normalize(item)])
      .sort(([a], [b]) => (String(a) < String(b) ? -1 : 1));
  }
  return value;
}
