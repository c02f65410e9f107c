import { deflateSync } from "fflate";
import fc from "fast-check";
import { expect, test } from "vitest";
import { decodeDataFile, encodeDataFile, type DataItem } from "./data-file.js";
import { FieldloopError } from "./errors.js";

const item: fc.Arbitrary<DataItem> = fc.record({
  media: fc.constantFrom("image/jpeg", "image/png", "application/x-fieldloop-window"),
  label: fc.string({ minLength: 1, maxLength: 20 }),
  payload: fc.uint8Array({ maxLength: 200 }),
});

test("what was written is read", () => {
  fc.assert(
    fc.property(fc.array(item, { maxLength: 20 }), (items) => {
      expect(decodeDataFile(encodeDataFile(items))).toEqual(items);
    }),
  );
});

test("no bytes give anything but items or a coded error", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.boolean(), (bytes, deflated) => {
      try {
        decodeDataFile(deflated ? deflateSync(bytes) : bytes);
      } catch (error) {
        expect(error).toBeInstanceOf(FieldloopError);
        expect((error as FieldloopError).code).toMatch(/^(cbor_|data_file_malformed|limit_exceeded)/);
      }
    }),
  );
});

test("every shorter file is refused", () => {
  const bytes = encodeDataFile([{ media: "image/png", label: "nut", payload: new Uint8Array(40).fill(7) }]);
  for (let length = 0; length < bytes.length; length++) {
    expect(() => decodeDataFile(bytes.subarray(0, length))).toThrow(FieldloopError);
  }
});

test("a bomb is refused while it inflates", () => {
  const bomb = deflateSync(new Uint8Array(72 * 1024 * 1024), { level: 1 });
  expect(() => decodeDataFile(bomb)).toThrow(expect.objectContaining({ code: "limit_exceeded" }));
});
