import fc from "fast-check";
import { FieldloopError } from "@fieldloop/protocol";
import { describe, expect, it } from "vitest";
import { readDelta } from "./apply.js";
import { apply, drawnNetwork, make, sha256 } from "./delta.test.kit.js";
import { DELTA_HEADER_BYTES, encodeDeltaHeader, readDeltaHeader } from "./header.js";
import { DELTA_LIMITS } from "./limits.js";
import { OperationCoder, type Operation } from "./operations.js";
import { RangeEncoder } from "./range-coder.js";
import { findTensors } from "./tensors.js";

const network = (drift: number): Uint8Array =>
  drawnNetwork([
    { name: "levels", type: "int8", dims: [16, 8, 3, 3], seed: 1, drift },
    { name: "floats", type: "float32", dims: [40], seed: 2, drift },
    { name: "halves", type: "float16", dims: [64], seed: 3, drift },
  ]);
const base = network(0);
const target = network(0.05);
const delta = make(base, target)!;

/** Bytes that came out before it was refused, and the refusal. */
async function outcome(forged: Uint8Array): Promise<{ bytes: number; code: string | undefined }> {
  let bytes = 0;
  try {
    await readDelta(
      forged,
      { bytes: base.length, read: (from, into) => into.set(base.subarray(from, from + into.length)) },
      (chunk) => {
        bytes += chunk.length;
      },
    );
    return { bytes, code: undefined };
  } catch (error) {
    if (!(error instanceof FieldloopError)) throw error;
    return { bytes, code: error.code };
  }
}

function forge(
  operations: readonly Operation[],
  targetBytes: number,
  claimed = operations.length,
): Uint8Array {
  const coder = new RangeEncoder();
  const writer = new OperationCoder(base.length, targetBytes);
  for (const operation of operations) writer.code(coder, operation);
  const header = encodeDeltaHeader({
    baseBytes: base.length,
    baseSha256: sha256(base),
    targetBytes,
    targetSha256: sha256(target),
    operations: claimed,
  });
  return Buffer.concat([header, coder.finish()]);
}

const withByte = (at: number, byte: number): Uint8Array => {
  const forged = delta.slice();
  forged[at] = byte;
  return forged;
};

const CASES: readonly (readonly [what: string, forged: Uint8Array, code: string])[] = [
  ["nothing", new Uint8Array(), "delta_malformed"],
  ["a header that is cut", delta.subarray(0, DELTA_HEADER_BYTES - 1), "delta_malformed"],
  ["another mark", withByte(0, 0), "delta_malformed"],
  ["another version", withByte(7, 2), "delta_malformed"],
  ["a header alone", delta.subarray(0, DELTA_HEADER_BYTES), "delta_malformed"],
  ["a stream that is cut", delta.subarray(0, delta.length - 30), "delta_malformed"],
  ["a target of 4 GiB", withByte(47, 255), "delta_malformed"],
  ["a base of another size", withByte(8, (delta[8]! + 1) & 255), "delta_base_mismatch"],
  ["more operations than bytes", forge([{ kind: "text", bytes: 1 }], 1, 2), "delta_malformed"],
  [
    "a copy from behind the base",
    forge([{ kind: "copy", from: base.length - 4, bytes: 5 }], 5),
    "delta_malformed",
  ],
  ["a copy from before the base", forge([{ kind: "copy", from: -3, bytes: 5 }], 5), "delta_malformed"],
  ["a piece longer than the target", forge([{ kind: "copy", from: 0, bytes: 6 }], 5), "delta_malformed"],
  ["pieces shorter than the target", forge([{ kind: "copy", from: 0, bytes: 4 }], 5), "delta_malformed"],
  ["an empty piece", forge([{ kind: "text", bytes: 0 }], 5), "delta_malformed"],
  [
    "elements of no kind",
    forge([{ kind: "numbers", element: 7, from: 0, bytes: 4, columns: 1, slopes: undefined }], 4),
    "delta_malformed",
  ],
  [
    "half a number",
    forge([{ kind: "numbers", element: 4, from: 0, bytes: 6, columns: 1, slopes: undefined }], 6),
    "delta_malformed",
  ],
  [
    "rows of no numbers",
    forge([{ kind: "numbers", element: 0, from: 0, bytes: 6, columns: 0, slopes: undefined }], 6),
    "delta_malformed",
  ],
  [
    "rows longer than the piece",
    forge([{ kind: "numbers", element: 0, from: 0, bytes: 6, columns: 7, slopes: undefined }], 6),
    "delta_malformed",
  ],
  [
    "a slope that is too steep",
    forge(
      [{ kind: "numbers", element: 0, from: 0, bytes: 1, columns: 1, slopes: Int32Array.of(2 ** 20) }],
      1,
    ),
    "delta_malformed",
  ],
];

describe("a forged delta", () => {
  for (const [what, forged, code] of CASES) {
    it(`of ${what} is refused`, async () => {
      expect((await outcome(forged)).code).toBe(code);
    });
  }

  it("never makes more than it says, and ends in a coded error or a file of that size", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.integer({ min: 0, max: delta.length - 1 }), fc.nat(255)), {
          minLength: 1,
          maxLength: 6,
        }),
        async (changes) => {
          const forged = delta.slice();
          for (const [at, byte] of changes) forged[at] = byte;
          await expectBounded(forged);
        },
      ),
      { numRuns: 400 },
    );
  });

  it("of noise behind a good header ends likewise", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 600 }),
        fc.integer({ min: 1, max: 5000 }),
        async (noise, operations) => {
          const header = delta.slice(0, DELTA_HEADER_BYTES);
          new DataView(header.buffer).setUint32(80, operations, true);
          await expectBounded(Buffer.concat([header, noise]));
        },
      ),
      { numRuns: 400 },
    );
  });

  it("stops when it is told to", async () => {
    const reason = new Error("enough");
    const reading = readDelta(delta, { bytes: base.length, read: () => undefined }, () => undefined, {
      signal: AbortSignal.abort(reason),
    });
    await expect(reading).rejects.toBe(reason);
  });
});

async function expectBounded(forged: Uint8Array): Promise<void> {
  const { bytes, code } = await outcome(forged);
  if (code === undefined) expect(bytes).toBe(readDeltaHeader(forged).targetBytes);
  else {
    expect(["delta_malformed", "delta_base_mismatch"]).toContain(code);
    expect(bytes).toBeLessThanOrEqual(DELTA_LIMITS.fileBytesMax);
  }
}

describe("the maker", () => {
  it("finds no tensors in what is no ONNX, is cut or nests without end, and still makes a delta", async () => {
    let nested = Uint8Array.of(0x0a, 0);
    // ModelProto.graph → node → attribute → g, again and again.
    for (let depth = 0; depth < 300; depth++)
      nested = wrap(depth % 3 === 0 ? 0x32 : depth % 3 === 1 ? 0x2a : 0x0a, nested);
    for (const bytes of [
      base.subarray(0, base.length - 9),
      wrap(0x3a, nested),
      Uint8Array.of(255, 255, 255),
      new Uint8Array(100),
    ]) {
      expect(findTensors(bytes)).toEqual([]);
      expect(Buffer.compare(await apply(bytes, make(bytes, target)!), target)).toBe(0);
      expect(Buffer.compare(await apply(base, make(base, bytes)!), bytes)).toBe(0);
    }
  });

  it("refuses files beyond its limit", () => {
    const large = { length: DELTA_LIMITS.fileBytesMax + 1 } as Uint8Array;
    expect(() => make(base, large)).toThrow(expect.objectContaining({ code: "limit_exceeded" }) as Error);
  });
});

function wrap(tag: number, inner: Uint8Array): Uint8Array<ArrayBuffer> {
  const length: number[] = [];
  for (let rest = inner.length; ; rest >>>= 7) {
    if (rest < 128) {
      length.push(rest);
      break;
    }
    length.push((rest & 127) | 128);
  }
  return Uint8Array.from([tag, ...length, ...inner]);
}
