import { brotliCompressSync, constants } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { apply, drawnNetwork, make, sha256, TENSOR_TYPES, type DrawnTensor } from "./delta.test.kit.js";
import { readDeltaHeader } from "./header.js";
import { DELTA_LIMITS } from "./limits.js";

const tensor = fc.record({
  name: fc.stringMatching(/^[a-z]{1,6}$/),
  type: fc.constantFrom(...TENSOR_TYPES),
  dims: fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 4 }),
  seed: fc.integer({ min: 1, max: 50 }),
  drift: fc.constant(0),
});
const unique = fc.uniqueArray(tensor, { selector: ({ name }) => name, maxLength: 8 });

async function expectRoundTrip(base: Uint8Array, target: Uint8Array): Promise<Uint8Array> {
  const delta = make(base, target)!;
  expect(Buffer.compare(await apply(base, delta), target)).toBe(0);
  return delta;
}

describe("a delta rebuilds the target", () => {
  it("between drawn networks: changed, renamed, resized, removed, added and reordered tensors", async () => {
    const edits = fc.array(
      fc.record({
        at: fc.nat(7),
        drift: fc.double({ min: 0, max: 2, noNaN: true }),
        rename: fc.boolean(),
        grow: fc.boolean(),
        remove: fc.boolean(),
      }),
      { maxLength: 6 },
    );
    await fc.assert(
      fc.asyncProperty(unique, edits, unique, fc.boolean(), async (tensors, changes, added, reverse) => {
        const changed: DrawnTensor[] = [...tensors];
        for (const { at, drift, rename, grow, remove } of changes) {
          const old = changed[at];
          if (!old) continue;
          const dims = grow ? [old.dims[0]! + 1, ...old.dims.slice(1)] : old.dims;
          if (remove) changed.splice(at, 1);
          else changed[at] = { ...old, drift, dims, name: rename ? `${old.name}0` : old.name };
        }
        changed.push(...added.map((one) => ({ ...one, name: `${one.name}9` })));
        if (reverse) changed.reverse();
        await expectRoundTrip(drawnNetwork(tensors), drawnNetwork(changed, "changed"));
      }),
      { numRuns: 150 },
    );
  });

  it("between any two files, empty ones too", async () => {
    const bytes = fc.uint8Array({ maxLength: 400 });
    await fc.assert(
      fc.asyncProperty(bytes, bytes, bytes, async (a, b, c) => {
        await expectRoundTrip(a, b);
        await expectRoundTrip(Uint8Array.from([...a, ...b]), Uint8Array.from([...b, ...c, ...a]));
      }),
      { numRuns: 150 },
    );
  });

  it("with any bits in floats: NaN, infinities, both zeros, the smallest numbers", async () => {
    const special = [
      0x7fc00000, 0xffc00001, 0x7f800000, 0xff800000, 0, 0x80000000, 1, 0x80000001, 0x7f7fffff, 0xffffffff,
    ];
    const words = (start: number) =>
      Float32Array.from(
        new Float32Array(
          Uint32Array.from({ length: 100 }, (_, at) => special[(start + at * (1 + start)) % special.length]!)
            .buffer,
        ),
      );
    const file = (start: number) => {
      const bytes = drawnNetwork([{ name: "w", type: "float32", dims: [100], seed: 1, drift: 0 }]);
      const at = Buffer.from(bytes).indexOf(Buffer.from([0x4a, 0x90, 0x03])) + 3;
      bytes.set(new Uint8Array(words(start).buffer), at);
      return bytes;
    };
    for (let start = 0; start < 10; start++) await expectRoundTrip(file(0), file(start));
  });

  it("across the borders of chunks, and of tensors larger than one", async () => {
    const columns = 333;
    const rows = Math.ceil((3 * DELTA_LIMITS.chunkBytes) / columns);
    const network = (drift: number) =>
      drawnNetwork([
        { name: "levels", type: "int8", dims: [rows, columns], seed: 1, drift },
        { name: "floats", type: "float32", dims: [rows, 100], seed: 2, drift },
      ]);
    await expectRoundTrip(network(0), network(0.02));
  });

  it("and is the same for the same files", () => {
    const [base, target] = [network(0), network(0.01)];
    expect(sha256(make(base, target)!)).toBe(sha256(make(base, target)!));
    const header = readDeltaHeader(make(base, target)!);
    expect(header).toMatchObject({
      baseSha256: sha256(base),
      targetSha256: sha256(target),
      targetBytes: target.length,
    });
  });
});

const network = (drift: number): Uint8Array =>
  drawnNetwork([
    { name: "first", type: "int8", dims: [64, 32, 3, 3], seed: 3, drift },
    { name: "second", type: "int8", dims: [128, 64, 3, 3], seed: 4, drift },
  ]);

describe("a delta is small", () => {
  it("where nothing changed, and where one small tensor did", async () => {
    expect(make(network(0), network(0))!.length).toBeLessThan(110);
    const head = (drift: number) => [
      { name: "body", type: "int8" as const, dims: [256, 128, 3], seed: 1, drift: 0 },
      { name: "head", type: "int8" as const, dims: [10, 64], seed: 2, drift },
    ];
    const target = drawnNetwork(head(0.05));
    const delta = await expectRoundTrip(drawnNetwork(head(0)), target);
    expect(delta.length).toBeLessThan(0.02 * target.length);
  });

  it("below the differences' own entropy by little or brotli's form of them, whichever is less", async () => {
    for (const drift of [0.005, 0.02, 0.05]) {
      const [base, target] = [network(0), network(drift)];
      const delta = await expectRoundTrip(base, target);
      const difference = Uint8Array.from(target, (byte, at) => byte - base[at]!);
      const { brotli, entropy } = bounds(difference);
      expect(delta.length).toBeLessThan(Math.min(brotli, entropy * 1.01) + 200);
    }
  });

  it("where the names of all tensors changed", async () => {
    const named = (prefix: string) =>
      drawnNetwork([
        { name: `${prefix}/first`, type: "int8", dims: [64, 32, 3, 3], seed: 3, drift: 0 },
        {
          name: `${prefix}/second`,
          type: "int8",
          dims: [128, 64, 3, 3],
          seed: 4,
          drift: prefix === "old" ? 0 : 0.005,
        },
      ]);
    expect((await expectRoundTrip(named("old"), named("new"))).length).toBeLessThan(0.2 * 92_160);
  });

  it("or there is none", () => {
    const [base, target] = [network(0), network(5)];
    expect(make(base, target, target.length / 2)).toBeUndefined();
    expect(make(base, target)!.length).toBeLessThan(target.length * 1.05);
  });
});

function bounds(bytes: Uint8Array): { brotli: number; entropy: number } {
  const counts = new Float64Array(256);
  for (const byte of bytes) counts[byte]!++;
  const entropy =
    counts.reduce((sum, count) => sum - (count > 0 ? count * Math.log2(count / bytes.length) : 0), 0) / 8;
  const brotli = brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_LGWIN]: 24 } }).length;
  return { brotli, entropy };
}
