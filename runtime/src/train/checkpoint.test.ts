import { describe, expect, it } from "vitest";
import { decodeCheckpoint, encodeCheckpoint, type Checkpoint } from "./checkpoint.js";

const checkpoint: Checkpoint = {
  step: 12,
  fingerprint: "abc",
  validations: [{ step: 8, score: 0.75 }],
  losses: [1.5, 0.1 + 0.2],
  arrays: { theta: Float32Array.of(1, 2, 3), first: Float32Array.of(4), empty: new Float32Array(0) },
};

describe("checkpoint", () => {
  it("comes back as it was, with and without validations, from unaligned bytes too", () => {
    for (const given of [checkpoint, { ...checkpoint, validations: [] }]) {
      const bytes = encodeCheckpoint(given);
      const shifted = new Uint8Array(bytes.length + 1);
      shifted.set(bytes, 1);
      expect(decodeCheckpoint(bytes)).toEqual(given);
      expect(decodeCheckpoint(shifted.subarray(1))).toEqual(given);
      expect(decodeCheckpoint(Buffer.from(bytes))).toEqual(given);
    }
  });

  it("is refused when cut anywhere or changed in any byte", () => {
    const bytes = encodeCheckpoint(checkpoint);
    for (let at = 0; at < bytes.length; at++) {
      const changed = bytes.slice();
      changed[at]! ^= 0x40;
      for (const wrong of [bytes.subarray(0, at), changed]) {
        expect(() => decodeCheckpoint(wrong)).toThrow(expect.objectContaining({ code: "invalid_argument" }));
      }
    }
  });
});
