import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { packagePath } from "@fieldloop/models";
import { encodeModel, float32Tensor, GraphBuilder, inspectModel } from "@fieldloop/runtime";
import { checkGolden, openModel, openPackage } from "@fieldloop/runtime/node";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { parseNpy } from "./model-quantize-data.js";
import { openSource } from "./model-quantize-source.js";
import { runHere, type Outcome } from "../testing/command-line.test.kit.js";

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "fieldloop-quantize-"));
});
afterEach(async () => {
  await rm(dir, { recursive: true, force: true });
});

/** Runs `fieldloop model quantize …` in this process. Speed is not measured unless asked for. */
const quantize = (...args: readonly string[]): Promise<Outcome> =>
  runHere("model", "quantize", "--seconds", "0", ...args);

/** Two layers on four numbers; the class is the larger half. */
async function writeFileModel(): Promise<string> {
  const graph = new GraphBuilder();
  const first = Float32Array.from(
    { length: 4 * 64 },
    (_, at) => Math.sin(at * 1.7) / 2 + (at % 64 < 32 === at < 128 ? 0.4 : 0),
  );
  const second = Float32Array.from(
    { length: 64 * 2 },
    (_, at) => (at >> 1 < 32 === (at % 2 === 0) ? 0.5 : -0.4) + Math.cos(at) / 9,
  );
  const hidden = graph.node("MatMul", [
    graph.input("x", "float32", [1, 4]),
    graph.initializer(float32Tensor("", [4, 64], first)),
  ]);
  graph.node(
    "MatMul",
    [graph.node("Relu", hidden)[0]!, graph.initializer(float32Tensor("", [64, 2], second))],
    {},
    ["y"],
  );
  graph.output("y", "float32", [1, 2]);
  const path = join(dir, "halves.onnx");
  await writeFile(path, encodeModel(graph.build({ opset: 17 })));
  return path;
}

const rows = Array.from({ length: 80 }, (_, at) =>
  [0, 1, 2, 3].map((column) => Math.sin(at * 3 + column * 2) + Number(column < 2 === at % 2 < 1)),
);

describe("a package", () => {
  it("gets a new version with the variant, its tolerance and its figures", async () => {
    const out = join(dir, "parts-2");
    const { code } = await quantize(
      packagePath("parts"),
      "--out",
      out,
      "--calibration-max",
      "20",
      "--evaluation-max",
      "30",
      "--calibration",
      "percentile",
      "--cpu-flags",
      "avx2",
    );
    expect(code).toBe(0);
    const pkg = await openPackage(out);
    const base = await openPackage(packagePath("parts"));
    expect(pkg.manifest.version).toBe(base.manifest.version + 1);
    expect(pkg.manifest.lineage.base).toMatchObject({ sha256: base.packageSha256 });
    const variant = pkg.manifest.variants.find(({ name }) => name === "int8-u8s8-reduced");
    expect(variant).toMatchObject({ precision: "int8", cpuFlags: expect.arrayContaining(["avx2"]) });
    const { metrics, settings } = pkg.manifest.lineage;
    expect(metrics["quantize.int8-u8s8-reduced.accuracyFloat"]).toBeGreaterThan(0.9);
    expect(metrics["quantize.int8-u8s8-reduced.bytesAfter"]).toBe(variant!.bytes);
    expect(settings["quantize.int8-u8s8-reduced.calibration"]).toBe("percentile 99.999");
    const model = await openModel(pkg, { variant: "int8-u8s8-reduced", threadCount: 1 });
    expect((await checkGolden(model)).cases).toBe(3);
    await model.release();
  });

  it("stays near the levels that devices have, and little travels", async () => {
    const out = join(dir, "parts-2");
    const args = ["--calibration-max", "40", "--evaluation-max", "200", "--accuracy-drop", "0.05", "--json"];
    const parts = packagePath("parts");
    const { code, out: said } = await quantize(parts, "--out", out, "--base", parts, ...args);
    expect(code).toBe(0);
    const { base, bytesAfter, accuracy } = JSON.parse(said) as {
      base: { changeCost: number; deltaBytes: number; deltaBytesRounded: number; trail: unknown[] };
      bytesAfter: number;
      accuracy: { samples: number };
    };
    // The weights are the base's own: none travels, only what the other calibration found.
    expect(base.changeCost).toBe(2);
    expect(base.deltaBytes).toBeLessThan(Math.min(0.05 * bytesAfter, base.deltaBytesRounded));
    expect(base.trail).toHaveLength(2);
    expect(accuracy.samples).toBe(100);
    const { manifest } = await openPackage(out);
    expect(manifest.lineage.metrics["quantize.int8-u8s8.deltaBytes"]).toBe(base.deltaBytes);
    for (const [extra, text] of [
      [["--base", join(dir, "none")], /not_found: Stay near a base: no file or folder/],
      [["--base", parts, "--method", "fp16"], /wanted --method static with int8 weights/],
      [["--base", await writeFileModel()], /no int8 weights that "fieldloop model quantize" wrote/],
    ] as const) {
      expect((await quantize(parts, ...extra)).err).toMatch(text);
    }
  });

  it("is refused a variant that misses the bound, and nothing is written", async () => {
    const out = join(dir, "bearing-2");
    const { code, err } = await quantize(
      packagePath("bearing"),
      "--out",
      out,
      "--method",
      "int4",
      "--block-size",
      "256",
      "--accuracy-drop",
      "0",
      "--evaluation-max",
      "100",
      "--data",
      await badWindows(),
    );
    expect(code).toBe(1);
    expect(err).toMatch(
      /quantization_rejected: Quantize \(int4\): (agreement|accuracy) falls by .*[Tt]ry a smaller --block-size/,
    );
    await expect(stat(out)).rejects.toThrow();
  });
});

/** Windows that lie on both sides of the anomaly threshold, where few bits cannot keep every decision. */
async function badWindows(): Promise<string> {
  const path = join(dir, "windows.csv");
  const lines = Array.from({ length: 300 }, (_, row) =>
    Array.from({ length: 256 }, (_value, at) =>
      (Math.sin(at / (2 + (row % 13))) * (0.1 + row / 400)).toFixed(4),
    ).join(","),
  );
  await writeFile(path, lines.join("\n"));
  return path;
}

describe("an ONNX file", () => {
  it("is written beside its report, from a CSV of inputs and labels", async () => {
    const model = await writeFileModel();
    const data = join(dir, "rows.csv");
    const labels = join(dir, "labels.txt");
    await writeFile(data, rows.map((row) => row.join(",")).join("\n"));
    await writeFile(
      labels,
      rows.map((row) => (row[0]! + row[1]! > row[2]! + row[3]! ? "0" : "1")).join("\n"),
    );
    const { code, out } = await quantize(
      model,
      "--data",
      data,
      "--labels",
      labels,
      "--out",
      dir,
      "--accuracy-drop",
      "0.1",
      "--json",
    );
    expect(code).toBe(0);
    const report = JSON.parse(out) as {
      written: string;
      accuracy: { metric: string; samples: number };
      accepted: boolean;
    };
    expect(report).toMatchObject({ accepted: true, accuracy: { metric: "accuracy", samples: 40 } });
    expect(JSON.parse(await readFile(`${report.written}.report.json`, "utf8"))).toMatchObject({
      method: "static",
    });
    expect(inspectModel(await readFile(report.written)).operators).toHaveProperty("QuantizeLinear");
  });

  it("takes no empty cell for a 0", async () => {
    const data = join(dir, "gap.csv");
    await writeFile(data, rows.map((row, at) => (at === 3 ? "1,,0,1" : row.join(","))).join("\n"));
    const { code, err } = await quantize(await writeFileModel(), "--data", data, "--out", dir);
    expect(code).toBe(2);
    expect(err).toMatch(/gap\.csv": row 4 does not hold 4 numbers/);
  });

  it("prints a table and warns of noise", async () => {
    const { code, out, err } = await quantize(await writeFileModel(), "--random", "20", "--out", dir);
    expect(code).toBe(0);
    expect(err).toMatch(/warning: random inputs say nothing about real ones/);
    expect(out).toMatch(/nodes converted +2 +of 2/);
    expect(out).toMatch(/integer kernels +2 +0 products in float/);
  });

  it("makes noise for a package in the sizes of its manifest, beside its state", async () => {
    const graph = new GraphBuilder();
    graph.input("x", "float32", ["n", "t"]);
    graph.input("h", "float32", ["n", 1]);
    // The file leaves open that a window has four samples.
    const weight = graph.initializer(float32Tensor("w", [4, 1], [1, 2, 3, 4]));
    const [product] = graph.node("MatMul", ["x", weight]);
    graph.node("Add", [product!, "h"], {}, ["y"]);
    graph.node("Identity", ["y"], {}, ["hn"]);
    graph.output("y", "float32", ["n", 1]);
    graph.output("hn", "float32", ["n", 1]);
    const file = join(dir, "sum.onnx");
    await writeFile(file, encodeModel(graph.build({ opset: 17 })));
    const declared = {
      task: "regression",
      inputs: [
        {
          kind: "window",
          name: "x",
          length: 4,
          hop: 4,
          sampleRateHz: 1,
          normalization: "none",
          dims: [1, 4],
        },
        { kind: "state", name: "h", output: "hn", dims: [1, 1] },
      ],
      heads: [{ kind: "regression", name: "sum", output: "y", targets: [{ name: "sum" }] }],
      signals: [],
    };
    await writeFile(join(dir, "d.json"), JSON.stringify(declared));
    const made = join(dir, "sum-1");
    await runHere("model", "import", file, "--manifest", join(dir, "d.json"), "--out", made);
    const out = join(dir, "sum-2");
    const { code, err } = await quantize(made, "--method", "dynamic", "--random", "3", "--out", out);
    expect(err).toMatch(/random inputs say nothing/);
    expect(code).toBe(0);
  });

  it("says what is missing", async () => {
    const model = await writeFileModel();
    expect(await quantize(model)).toMatchObject({
      code: 2,
      err: expect.stringMatching(/name inputs with --images or --data/),
    });
    expect(await quantize(model, "--images", dir)).toMatchObject({
      code: 2,
      err: expect.stringMatching(/import it with a preset/),
    });
    expect(await quantize(model, "--random", "9", "--search")).toMatchObject({
      code: 2,
      err: expect.stringMatching(/wanted two inputs or more beyond those to calibrate on/),
    });
    expect(await quantize(join(dir, "none.onnx"))).toMatchObject({
      code: 1,
      err: expect.stringMatching(/not_found/),
    });
  });
});

it("reads NumPy files of the usual types", () => {
  const npy = (descr: string, data: ArrayBufferView) => {
    const header = `{'descr': '${descr}', 'fortran_order': False, 'shape': (3,), }`.padEnd(117) + "\n";
    const start = Buffer.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, header.length, 0]);
    return Buffer.concat([start, Buffer.from(header, "latin1"), Buffer.from(data.buffer)]);
  };
  for (const [descr, data] of [
    ["<f4", Float32Array.of(1, -2, 3)],
    ["<f8", Float64Array.of(1, -2, 3)],
    ["<i2", Int16Array.of(1, -2, 3)],
    ["<i8", BigInt64Array.of(1n, -2n, 3n)],
  ] as const) {
    expect([...parseNpy("a.npy", npy(descr, data))]).toEqual([1, -2, 3]);
  }
  expect(() => parseNpy("a.npy", npy("<c8", Float32Array.of(1, 2)))).toThrow(/element type "<c8"/);
  expect(() => parseNpy("a.npy", Buffer.from("no numbers here"))).toThrow(/not an .npy file/);
});

it("chooses nodes by other inputs than it judges by", async () => {
  const parts = packagePath("parts");
  const limits = { calibrationMax: 10, evaluationMax: 21 };
  const whole = await openSource(parts, limits, true);
  expect(whole.searchEvaluation).toBeUndefined();
  expect(whole.evaluation!.samples).toBe(21);
  const halved = await openSource(parts, { ...limits, search: true }, true);
  expect([halved.evaluation!.samples, halved.searchEvaluation!.samples]).toEqual([11, 10]);
  const one = await openSource(parts, { ...limits, evaluationMax: 1, search: true }, true);
  expect(one.searchEvaluation).toBeUndefined();
});
