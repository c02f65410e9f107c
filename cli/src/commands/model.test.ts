import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import {
  GraphBuilder,
  encodeModel,
  float32Tensor,
  inspectModel,
  opsetVersion,
  decodeModel,
} from "@fieldloop/runtime";
import type { WindowInput } from "@fieldloop/protocol";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { csvFrames, parseIdx } from "./model-inputs.js";
import { modelNameFrom, parseLabels } from "./model-options.js";
import { runHere, type Outcome } from "../testing/command-line.test.kit.js";

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "fieldloop-cli-"));
});
afterEach(async () => {
  await rm(dir, { recursive: true, force: true });
});

/** Runs `fieldloop model …` in this process, with what it prints and its exit code. */
const fieldloop = (...args: readonly string[]): Promise<Outcome> => runHere("model", ...args);

/** Digits of 2×2 pixels: the class is the brighter column. */
async function writeColumns(): Promise<string> {
  const graph = new GraphBuilder();
  const image = graph.input("image", "float32", [1, 1, 2, 2]);
  const [flat] = graph.node("Flatten", [image], { axis: { i: 1 } });
  const weight = graph.initializer(float32Tensor("w", [2, 4], [1, 0, 1, 0, 0, 1, 0, 1]));
  graph.node("Gemm", [flat!, weight], { transB: { i: 1 } }, ["logits"]);
  graph.output("logits", "float32", [1, 2]);
  const path = join(dir, "Columns_v1.onnx");
  await writeFile(path, encodeModel(graph.build({ opset: 17 })));
  return path;
}

/** An autoencoder that always answers zeros, for windows of four. */
async function writeZeros(): Promise<string> {
  const graph = new GraphBuilder();
  const x = graph.input("x", "float32", [1, 4]);
  const zero = graph.initializer(float32Tensor("zero", [1], [0]));
  graph.node("Mul", [x, zero], {}, ["y"]);
  graph.output("y", "float32", [1, 4]);
  const path = join(dir, "zeros.onnx");
  await writeFile(path, encodeModel(graph.build({ opset: 17 })));
  return path;
}

/** A picture of 8×8 from a picture: itself. */
async function writePicture(): Promise<string> {
  const graph = new GraphBuilder();
  graph.node("Identity", [graph.input("in", "float32", [1, 3, 8, 8])], {}, ["out"]);
  graph.output("out", "float32", [1, 3, 8, 8]);
  const path = join(dir, "picture.onnx");
  await writeFile(path, encodeModel(graph.build({ opset: 17 })));
  return path;
}

/** level = factor · sum of the window + what it was before: a recurrent model in its smallest form. */
async function writeRecurrent(): Promise<string> {
  const graph = new GraphBuilder();
  const x = graph.input("x", "float32", [1, 2]);
  const before = graph.input("h", "float32", [1, 1]);
  const factor = graph.input("factor", "float32", []);
  const ones = graph.initializer(float32Tensor("ones", [2, 1], [1, 1]));
  const [sum] = graph.node("MatMul", [x, ones]);
  const [scaled] = graph.node("Mul", [sum!, factor]);
  graph.node("Add", [scaled!, before], {}, ["level"]);
  graph.node("Identity", ["level"], {}, ["next"]);
  graph.output("level", "float32", [1, 1]);
  graph.output("next", "float32", [1, 1]);
  const path = join(dir, "recurrent.onnx");
  await writeFile(path, encodeModel(graph.build({ opset: 17 })));
  return path;
}

const idx = (dims: number[], data: number[]): Buffer => {
  const head = Buffer.alloc(4 + dims.length * 4);
  head[2] = 8;
  head[3] = dims.length;
  dims.forEach((size, at) => head.writeUInt32BE(size, 4 + at * 4));
  return Buffer.concat([head, Buffer.from(data)]);
};

describe("fieldloop model", () => {
  it("imports, inspects, verifies, runs with accuracy and measures", async () => {
    const file = await writeColumns();
    const out = join(dir, "package");
    const imported = await fieldloop("import", file, "--preset", "classifier-logits", "--out", out, "--json");
    expect(imported.code).toBe(0);
    expect(JSON.parse(imported.out)).toMatchObject({
      version: "columns-v1@1",
      task: "classification",
      golden: { cases: 1 },
    });

    const inspected = await fieldloop("inspect", out, "--json");
    expect(JSON.parse(inspected.out).manifest.inputs[0]).toMatchObject({
      width: 2,
      height: 2,
      colour: "gray",
    });
    expect((await fieldloop("inspect", out)).out).toMatch(/columns-v1@1 +classification/);
    expect((await fieldloop("inspect", file)).out).toMatch(/operators: .*Gemm 1/);

    const verified = await fieldloop("verify", out, "--json");
    expect(verified.code).toBe(0);
    expect(JSON.parse(verified.out)).toMatchObject({
      ok: true,
      files: 4,
      variants: [{ variant: "fp32", goldenCases: 1 }],
    });

    await writeFile(
      join(dir, "images.idx.gz"),
      gzipSync(idx([3, 2, 2], [9, 0, 9, 0, 0, 9, 0, 9, 9, 1, 9, 1])),
    );
    await writeFile(join(dir, "labels.idx.gz"), gzipSync(idx([3], [0, 1, 1])));
    const run = await fieldloop(
      "run",
      out,
      join(dir, "images.idx.gz"),
      "--labels",
      join(dir, "labels.idx.gz"),
      "--json",
    );
    expect(run.code).toBe(0);
    const result = JSON.parse(run.out);
    expect(result).toMatchObject({ frames: 3, failed: 0, labelled: 3 });
    expect(result.accuracy).toBeCloseTo(2 / 3, 9);
    expect(result.predictions.map((one: { class: number }) => one.class)).toEqual([0, 1, 0]);

    const bench = await fieldloop("bench", out, "--seconds", "0.3", "--json");
    expect(bench.code).toBe(0);
    const figures = JSON.parse(bench.out);
    expect(figures.bare.runs).toBeGreaterThan(10);
    expect(figures.ratio).toBeCloseTo(figures.predict.p50Ms / figures.bare.p50Ms, 9);
  });

  it("runs windows from CSV: one a row, or samples cut by the hop", async () => {
    const out = join(dir, "package");
    const imported = await fieldloop(
      "import",
      await writeZeros(),
      "--preset",
      "anomaly-autoencoder",
      "--threshold",
      "1",
      "--hop",
      "2",
      "--out",
      out,
    );
    expect(imported.code).toBe(0);
    await writeFile(join(dir, "windows.csv"), "a,b,c,d\n0,0,0,0\n2,2,2,2\n");
    const rows = JSON.parse((await fieldloop("run", out, join(dir, "windows.csv"), "--json")).out);
    expect(rows.predictions.map((one: { label: string }) => one.label)).toEqual(["normal", "anomalous"]);
    await writeFile(join(dir, "samples.csv"), "0\n0\n0\n0\n3\n3\n");
    const samples = await fieldloop("run", out, join(dir, "samples.csv"));
    expect(samples.out).toMatch(/0–4 +normal/);
    expect(samples.out).toMatch(/2–6 +anomalous/);
  });

  it("imports a recurrent model by any preset, and carries its state from window to window", async () => {
    const out = join(dir, "package");
    const options = ["--state", "h=next", "--constant", "factor=10", "--sample-rate-hz", "5"];
    const file = await writeRecurrent();
    const imported = await fieldloop("import", file, "--preset", "regression", ...options, "--out", out);
    expect(imported.code).toBe(0);
    await writeFile(join(dir, "windows.csv"), "1,0\n0,2\n3,3\n");
    const run = JSON.parse((await fieldloop("run", out, join(dir, "windows.csv"), "--json")).out);
    const levels = run.predictions.map((one: { heads: { values: number[] }[] }) => one.heads[0]!.values[0]);
    expect(levels).toEqual([10, 30, 90]);
    expect(
      (await fieldloop("import", file, "--preset", "regression", "--state", "h", "--out", out)).code,
    ).toBe(2);
  });

  it("imports what no preset says by the part of a manifest that says it", async () => {
    const out = join(dir, "package");
    const declared = {
      task: "regression",
      inputs: [
        {
          ...{ kind: "window", name: "x", length: 2, hop: 2, sampleRateHz: 5, normalization: "none" },
          dims: [1, 2],
        },
        { kind: "state", name: "h", output: "next", dims: [1, 1] },
        { kind: "constant", name: "factor", elementType: "float32", dims: [], values: [1] },
      ],
      heads: [
        { kind: "regression", name: "level", output: "level", targets: [{ name: "level" }] },
        { kind: "embedding", name: "state", output: "next", length: 1 },
      ],
    };
    const path = join(dir, "declared.json");
    await writeFile(path, JSON.stringify(declared));
    const file = await writeRecurrent();
    const both = await fieldloop("import", file, "--manifest", path, "--hop", "1", "--out", out);
    expect(both.err).toMatch(/either --manifest, or a preset/);
    const imported = await fieldloop("import", file, "--manifest", path, "--out", out, "--json");
    expect(JSON.parse(imported.out)).toMatchObject({ preset: "declared", golden: { cases: 1 } });
    const { manifest } = JSON.parse((await fieldloop("inspect", out, "--json")).out);
    expect(manifest.heads.map(({ kind }: { kind: string }) => kind)).toEqual(["regression", "embedding"]);
    await writeFile(path, JSON.stringify({ ...declared, heads: [{ kind: "regression" }] }));
    const bad = await fieldloop("import", file, "--manifest", path, "--out", join(dir, "other"));
    expect(bad.err).toMatch(/declared\.json": heads\.0\./);
  });

  it("prints the numbers of a regression by their targets, and no label", async () => {
    const out = join(dir, "package");
    const file = await writeColumns();
    await fieldloop("import", file, "--preset", "regression", "--targets", "left,right", "--out", out);
    await writeFile(join(dir, "images.idx"), idx([1, 2, 2], [255, 0, 255, 0]));
    const run = await fieldloop("run", out, join(dir, "images.idx"));
    expect(run.out).toMatch(/^0 +- +- +\S+ +left 2\.000, right 0\.000$/m);
    const { predictions } = JSON.parse((await fieldloop("run", out, join(dir, "images.idx"), "--json")).out);
    expect(predictions[0].heads).toEqual([{ name: "values", kind: "regression", values: [2, 0] }]);
    const refused = await fieldloop("run", out, join(dir, "images.idx"), "--save", join(dir, "saved"));
    expect(refused.err).toMatch(
      /invalid_argument: Save pictures: the model has no image head but regression/,
    );
  });

  it("saves the pictures that a model makes", async () => {
    const out = join(dir, "package");
    await fieldloop("import", await writePicture(), "--preset", "image-to-image", "--out", out);
    await writeFile(
      join(dir, "images.idx"),
      idx(
        [2, 8, 8],
        Array.from({ length: 128 }, (_, at) => at),
      ),
    );
    const saved = join(dir, "saved");
    const run = await fieldloop("run", out, join(dir, "images.idx"), "--save", saved);
    expect(run.out).toMatch(/^1 +- +- +\S+ +8×8, RGB$/m);
    expect(await readdir(saved)).toEqual(["000000.jpg", "000001.jpg"]);
    expect([...(await readFile(join(saved, "000001.jpg"))).subarray(0, 3)]).toEqual([0xff, 0xd8, 0xff]);
  });

  it("goes on after an input that it cannot read, and ends with 1", async () => {
    const out = join(dir, "package");
    await fieldloop("import", await writeColumns(), "--preset", "classifier-logits", "--out", out);
    await writeFile(join(dir, "broken.jpg"), "no image");
    await writeFile(join(dir, "images.idx"), idx([1, 2, 2], [9, 0, 9, 0]));
    const run = await fieldloop("run", out, join(dir, "broken.jpg"), join(dir, "images.idx"));
    expect(run.code).toBe(1);
    expect(run.out).toMatch(/image_type_refused/);
    expect(run.out).toMatch(/2 frames, 1 failed/);
  });

  it("finds a changed file in verify", async () => {
    const out = join(dir, "package");
    await fieldloop("import", await writeColumns(), "--preset", "classifier-logits", "--out", out);
    const bytes = await readFile(join(out, "golden/output-0.bin"));
    bytes[0]! ^= 1;
    await writeFile(join(out, "golden/output-0.bin"), bytes);
    const verified = await fieldloop("verify", out);
    expect(verified).toMatchObject({ code: 1, err: expect.stringContaining("package_hash_mismatch") });
  });

  it("reads the inspection that ONNX files give", async () => {
    const bytes = await readFile(await writeColumns());
    expect(inspectModel(bytes).nodeCount).toBe(2);
    expect(opsetVersion(decodeModel(bytes))).toBe(17);
  });

  const usage: [string, string[], number, RegExp][] = [
    ["no arguments", [], 2, /Usage: fieldloop model/],
    ["a version below one", ["import", "x.onnx", "--model-version", "0"], 2, /at least 1/],
    ["an unknown option", ["bench", "x", "--fast"], 2, /unknown option/],
    ["seconds that are no number", ["bench", "x", "--seconds", "many"], 2, /wanted a number/],
    ["threads below one", ["run", "x", "y", "--threads", "0"], 2, /at least 1/],
    [
      "an unknown resize mode",
      ["import", "x", "--preset", "tensor", "--resize", "tile"],
      2,
      /Allowed choices/,
    ],
    [
      "a name that is none",
      ["import", "x", "--preset", "tensor", "--name", "No Name"],
      2,
      /invalid_argument/,
    ],
    ["a missing file", ["import", "nowhere.onnx", "--preset", "tensor"], 1, /not_found/],
    ["a missing package", ["verify", "nowhere"], 1, /not_found/],
    [
      "an unknown preset",
      ["import", import.meta.filename, "--preset", "yolo"],
      1,
      /onnx_malformed|preset_unknown/,
    ],
  ];
  it.each(usage)("answers %s", async (_, args, code, message) => {
    const outcome = await fieldloop(...args);
    expect(outcome.code).toBe(code);
    expect(outcome.err + outcome.out).toMatch(message);
  });
  it.each(["import", "inspect", "run", "bench", "verify"])("%s explains itself", async (command) => {
    const outcome = await fieldloop(command, "--help");
    expect(outcome.code).toBe(0);
    expect(outcome.out).toMatch(new RegExp(`Usage: fieldloop model ${command}`));
    expect(outcome.out).toMatch(/--json/);
  });
});

describe("inputs of people", () => {
  const window: WindowInput = {
    kind: "window",
    name: "x",
    length: 2,
    channels: 1,
    hop: 1,
    context: 0,
    elementType: "float32",
    sampleRateHz: 1,
    normalization: "none",
    mean: 0,
    std: 1,
    dims: [],
  };
  it.each([
    ["IDX of floats", () => parseIdx("x", Buffer.from([0, 0, 13, 1, 0, 0, 0, 0]))],
    ["IDX that ends early", () => parseIdx("x", idx([5], [1, 2]))],
    ["IDX of nothing", () => parseIdx("x", Buffer.alloc(0))],
    ["a CSV with words inside", () => [...csvFrames("x", Buffer.from("1,2\n3,four\n"), window)]],
    ["a CSV with ragged rows", () => [...csvFrames("x", Buffer.from("1,2\n3\n"), window)]],
    ["a CSV of another width", () => [...csvFrames("x", Buffer.from("1,2,3\n"), window)]],
  ])("%s is refused", (_, read) => {
    expect(read).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/invalid_argument|window_invalid/) }),
    );
  });
  it("names and labels are cleaned", () => {
    expect(modelNameFrom("version-RFB_320.onnx")).toBe("version-rfb-320");
    expect(() => modelNameFrom("…onnx")).not.toThrow();
    expect(() => modelNameFrom("--.onnx")).toThrow(/use --name/);
    expect(parseLabels("one\r\n\r\n two \n")).toEqual(["one", "two"]);
  });
});
