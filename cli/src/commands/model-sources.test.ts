import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inputSchema, type Manifest } from "@fieldloop/protocol";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readFrames, type NamedFrame } from "./model-inputs.js";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "fieldloop-sources-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** Of the manifest only the inputs are looked at. */
function manifestOf(input: unknown): Manifest {
  return { inputs: [inputSchema.parse(input)], nodes: [] } as Partial<Manifest> as Manifest;
}

const SOUND = manifestOf({
  ...{ kind: "window", name: "x", length: 400, hop: 400, sampleRateHz: 8_000 },
  ...{ normalization: "none", dims: [1, 400] },
});
const CODES = manifestOf({
  ...{ kind: "window", name: "x", length: 4, hop: 4, sampleRateHz: 1, normalization: "none", dims: [1, 4] },
  ...{ elementType: "int8", quantization: { scale: 0.5, zeroPoint: -128 } },
});
const TABLE = manifestOf({
  ...{ kind: "table", name: "x", dims: [0, 2] },
  columns: ["a", "b"].map((name) => ({ name, encoding: { kind: "number" } })),
});

async function frames(paths: readonly string[], manifest: Manifest): Promise<NamedFrame[]> {
  const found: NamedFrame[] = [];
  for await (const frame of readFrames(paths, manifest)) found.push(frame);
  return found;
}

async function file(name: string, content: string | Uint8Array): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, content);
  return path;
}

/** 16-bit sound of one channel. */
function wav(samples: readonly number[], hz: number): Buffer {
  const bytes = Buffer.alloc(44 + samples.length * 2);
  bytes.write("RIFF", 0, "latin1");
  bytes.writeUInt32LE(36 + samples.length * 2, 4);
  bytes.write("WAVEfmt ", 8, "latin1");
  bytes.writeUInt32LE(16, 16);
  bytes.writeUInt16LE(1, 20);
  bytes.writeUInt16LE(1, 22);
  bytes.writeUInt32LE(hz, 24);
  bytes.writeUInt32LE(hz * 2, 28);
  bytes.writeUInt16LE(2, 32);
  bytes.writeUInt16LE(16, 34);
  bytes.write("data", 36, "latin1");
  bytes.writeUInt32LE(samples.length * 2, 40);
  samples.forEach((value, at) => bytes.writeInt16LE(value, 44 + at * 2));
  return bytes;
}

describe("inputs of model run", () => {
  it("cut a sound file into the model's windows, all of them, the first of a new stream", async () => {
    const samples = Array.from({ length: 1_700 }, (_, at) => (at % 400) * 64);
    const found = await frames([await file("odd name&x=1.wav", wav(samples, 8_000))], SOUND);
    expect(found.map(({ fresh }) => fresh)).toEqual([true, false, false, false]);
    for (const { frame } of found) {
      if (frame.kind !== "window") throw new Error(frame.kind);
      expect(frame.samples).toEqual(Float32Array.from(samples.slice(0, 400), (value) => value / 32_768));
    }
  });
  it("take rows of CSV and NDJSON by the names of their columns, and spoil nothing silently", async () => {
    const rows = [
      { id: 1, b: 2, a: 3, kind: "x" },
      { id: 2, b: 5, a: 6, kind: "y" },
    ];
    const csv = await file("rows.csv", "id,b,a,kind\n1,2,3,x\n2,5,6,y\n");
    const lines = await file("rows.ndjson", rows.map((row) => JSON.stringify(row)).join("\n"));
    for (const path of [csv, lines, `csv:${csv}`]) {
      expect((await frames([path], TABLE)).map(({ frame }) => frame)).toMatchObject(
        rows.map((values) => ({ kind: "row", values })),
      );
    }
    const bad = await file("bad.csv", "id,b,a\n1,2,3\n1,2\n");
    await expect(frames([bad], TABLE)).rejects.toMatchObject({ code: "row_malformed", message: /line 3/ });
  });
  it("read 8-bit codes as what the manifest or the path says they stand for", async () => {
    const path = await file("codes.bin", Uint8Array.of(0x80, 0x81, 0, 127, 0x80, 0x80, 0x80, 0x82));
    const samples = async (input: string): Promise<number[][]> =>
      (await frames([input], CODES)).map(({ frame }) => (frame.kind === "window" ? [...frame.samples] : []));
    expect(await samples(path)).toEqual([
      [0, 0.5, 64, 127.5],
      [0, 0, 0, 1],
    ]);
    expect(await samples(`tensor:${path}?type=uint8&scale=2`)).toEqual([
      [256, 258, 0, 254],
      [256, 256, 256, 260],
    ]);
    await expect(frames([`tensor:${path}?scale=-1`], CODES)).rejects.toMatchObject({
      code: "invalid_argument",
    });
    await expect(frames([`tensor:${path}.none`], CODES)).rejects.toMatchObject({ code: "not_found" });
    await expect(frames([path], SOUND)).rejects.toMatchObject({ code: "window_invalid" });
  });
  it("say what a file or a source is not", async () => {
    await expect(frames([join(folder, "none.wav")], SOUND)).rejects.toMatchObject({ code: "not_found" });
    await expect(frames(["radio:x"], SOUND)).rejects.toMatchObject({ code: "source_unknown" });
    await expect(frames([`audio:${folder}/none.wav?pace=none`], SOUND)).rejects.toMatchObject({
      code: "source_failed",
    });
  });
});
