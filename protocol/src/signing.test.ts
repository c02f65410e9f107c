import { describe, expect, it } from "vitest";
import { decodeCbor, encodeCbor, type CborValue } from "./cbor.js";
import { FieldloopError } from "./errors.js";
import { createSigningKey, sign, verify } from "./signing.js";

const key = createSigningKey((length) => new Uint8Array(length).fill(7));
const other = createSigningKey((length) => new Uint8Array(length).fill(9));
const payload = encodeCbor({ revision: 5 });

describe("signed statements", () => {
  it("give back the payload that a trusted key signed", () => {
    expect(verify("desired", sign("desired", payload, key), [other, key])).toEqual(payload);
  });

  it.each<[string, () => Uint8Array, string]>([
    ["an unknown key", () => sign("desired", payload, other), "package_signature_unknown_key"],
    ["another type", () => sign("command", payload, key), "package_signature_invalid"],
    [
      "another payload",
      () => edit((e) => (e.payload = encodeCbor({ revision: 6 }))),
      "package_signature_invalid",
    ],
    ["a flipped bit", () => edit((e) => ((e.signature as Uint8Array)[3]! ^= 1)), "package_signature_invalid"],
    ["a key id of another key", () => edit((e) => (e.keyId = other.keyId)), "package_signature_unknown_key"],
    ["no signature", () => edit((e) => delete e.signature), "message_schema"],
    ["a signature of 63 bytes", () => edit((e) => (e.signature = new Uint8Array(63))), "message_schema"],
    ["garbage", () => Uint8Array.of(0xff, 0, 1), "cbor_indefinite_length"],
  ])("refuse %s", (_, make, code) => {
    expect(() => verify("desired", make(), [key])).toThrow(expect.objectContaining({ code }));
  });

  it("refuse every single flipped bit", () => {
    const envelope = sign("desired", payload, key);
    for (let bit = 0; bit < envelope.length * 8; bit += 5) {
      const forged = envelope.slice();
      forged[bit >> 3]! ^= 1 << (bit & 7);
      expect(() => verify("desired", forged, [key])).toThrow(FieldloopError);
    }
  });
});

function edit(change: (envelope: Record<string, CborValue>) => void): Uint8Array {
  const envelope = { ...(decodeCbor(sign("desired", payload, key)) as Record<string, CborValue>) };
  change(envelope);
  return encodeCbor(envelope);
}
