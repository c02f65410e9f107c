import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { GraphBuilder, checkModel, encodeModel, float32Tensor, inspectModel } from "@fieldloop/runtime";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { runHere, type Outcome } from "../testing/command-line.test.kit.js";

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "fieldloop-tools-"));
  await writeFile(join(dir, "m.onnx"), perceptron());
});
afterEach(async () => {
  await rm(dir, { recursive: true, force: true });
});

const at = (name: string) => join(dir, name);

/** Runs `fieldloop model …` in this process, with what it prints and its exit code. */
const fieldloop = (...args: readonly string[]): Promise<Outcome> => runHere("model", ...args);

/** Four numbers, a hidden layer of eight, three classes, and a symbolic batch. */
function perceptron(): Uint8Array {
  const graph = new GraphBuilder();
  const wave = (count: number) => Float32Array.from({ length: count }, (_, i) => Math.sin(i));
  graph.input("x", "float32", ["N", 4]);
  const first = graph.initializer(float32Tensor("first", [4, 8], wave(32)));
  const second = graph.initializer(float32Tensor("second", [8, 3], wave(24)));
  graph.node("MatMul", ["x", first], {}, ["hidden"]);
  graph.node("Relu", ["hidden"], {}, ["active"]);
  graph.node("Identity", ["active"], {}, ["same"]);
  graph.node("MatMul", ["same", second], {}, ["scores"]);
  graph.output("scores", "float32", ["N", 3]);
  return encodeModel(graph.build({ opset: 11 }));
}

describe("fieldloop model serve", () => {
  it("says by code that there is no such file", async () => {
    const { code, err } = await fieldloop("serve", at("none.onnx"), "--port", "0", "--json");
    expect(code).toBe(1);
    expect(err).toMatch(/^error not_found: Read ONNX: no file ".*none\.onnx"\n$/);
  });

  it.each([
    ["inspect", []],
    ["import", []],
    ["edit", ["-o", "edited.onnx", "--strip"]],
    ["split", ["--at", "x", "--out", "parts"]],
    ["quantize", ["--random", "2", "--out", "variants"]],
  ])("%s says what a file is that is no ONNX", async (command, rest) => {
    await writeFile(
      at("lfs.onnx"),
      "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12345\n",
    );
    const { code, err } = await fieldloop(command, at("lfs.onnx"), ...rest);
    expect(code).toBe(1);
    expect(err).toMatch(
      /^error onnx_malformed: .*Git LFS pointer of \d+ bytes to a file of 12345 \(fetch it/m,
    );
  });
});

describe("a file that is no use to any preset", () => {
  const write = async (opType: string, domain?: string) => {
    const graph = new GraphBuilder();
    graph.node(opType, [graph.input("x", "float32", [1, 4])], {}, ["y"], domain);
    graph.output("y", "float32", [1, 4]);
    const model = graph.build({ opset: 17, domains: domain === undefined ? {} : { [domain]: 1 } });
    await writeFile(at("bad.onnx"), encodeModel(model));
  };
  it.each([
    ["Frobnicate", undefined, /^error model_load_failed: .*No Op registered for Frobnicate/m],
    ["Relu", "acme.ai", /^error onnx_unknown_domain: .*\(Relu\) is from domain "acme.ai"/m],
  ])("import says why before it asks for a preset: %s of %s", async (opType, domain, reason) => {
    await write(opType, domain);
    expect((await fieldloop("import", at("bad.onnx"), "--out", at("p"))).err).toMatch(reason);
  });
  it("quantize reads it by the rules of the gate before the engine does", async () => {
    await writeFile(at("cut.onnx"), (await readFile(at("m.onnx"))).subarray(0, 120));
    const { err } = await fieldloop("quantize", at("cut.onnx"), "--random", "2", "--out", at("q"));
    expect(err).toMatch(/^error onnx_malformed: .*it is cut short/m);
  });
});

describe("fieldloop model inspect", () => {
  it("counts what a run costs", async () => {
    const result = await fieldloop("inspect", at("m.onnx"), "--dim", "N=2", "--json");
    expect(result.code).toBe(0);
    const { cost, acceptable } = JSON.parse(result.out) as {
      cost: Record<string, unknown>;
      acceptable: boolean;
    };
    expect(acceptable).toBe(true);
    expect(cost).toMatchObject({
      macs: 2 * (32 + 24),
      providers: [{ executionProvider: "cpu", shares: { cpu: 1 } }],
      embedding: "same",
      uncounted: 0,
    });
    expect((await fieldloop("inspect", at("m.onnx"))).out).toMatch(/MatMul +2 +56 +100.0 %/);
    expect((await fieldloop("inspect", at("m.onnx"), "--no-run")).out).not.toMatch(/FLOPs/);
  });
});

describe("fieldloop model edit", () => {
  it("fixes, strips, upgrades, exposes and renames in one go", async () => {
    const args = ["--strip", "--dim", "N=1", "--opset", "17", "--embedding", "--rename", "scores=logits"];
    const result = await fieldloop("edit", at("m.onnx"), "-o", at("out.onnx"), ...args);
    expect(result.err).toBe("");
    expect(result.code).toBe(0);
    expect(result.out).toMatch(/operator set 11 to 17/);
    const facts = checkModel(new Uint8Array(await readFile(at("out.onnx"))));
    expect(facts).toMatchObject({
      opsets: { "": 17 },
      nodeCount: 3,
      inputs: [{ name: "x", dims: [1, 4] }],
      outputs: [
        { name: "logits", dims: [1, 3] },
        { name: "embedding", dims: [1, 8] },
      ],
    });
    expect((await fieldloop("edit", at("m.onnx"), "-o", at("out.onnx"))).err).toMatch(/already_exists/);
  });

  it("folds, and refuses what is not there", async () => {
    const result = await fieldloop("edit", at("m.onnx"), "-o", at("out.onnx"), "--fold", "--json");
    expect(result.code).toBe(0);
    expect(inspectModel(new Uint8Array(await readFile(at("out.onnx")))).operators).not.toHaveProperty(
      "Identity",
    );
    const ghost = await fieldloop("edit", at("m.onnx"), "-o", at("ghost.onnx"), "--expose", "ghost");
    expect([ghost.code, ghost.err]).toEqual([1, expect.stringMatching(/not_found: .*"ghost"/) as string]);
    for (const [renaming, code] of [
      ["ghost=y", "not_found"],
      ["scores=x", "already_exists"],
    ] as const) {
      const renamed = await fieldloop("edit", at("m.onnx"), "-o", at("g.onnx"), "--rename", renaming);
      expect([renamed.code, renamed.err]).toEqual([1, expect.stringContaining(code) as string]);
    }
    expect((await fieldloop("edit", at("m.onnx"), "-o", at("g.onnx"), "--dim", "N")).code).toBe(2);
    expect((await readdir(dir)).sort()).toEqual(["m.onnx", "out.onnx"]);
  });
});

describe("fieldloop model split", () => {
  it("writes parts that compose to the whole", async () => {
    const result = await fieldloop("split", at("m.onnx"), "--at", "active", "--out", at("parts"), "--json");
    expect(result.code).toBe(0);
    expect(JSON.parse(result.out)).toMatchObject({
      parts: [
        { file: "backbone.onnx", inputs: ["x"], outputs: ["active"] },
        { file: "head-1.onnx", inputs: ["active"], outputs: ["scores"] },
      ],
      worstAbsoluteDifference: { withoutOptimization: 0 },
    });
    expect((await readdir(at("parts"))).sort()).toEqual(["backbone.onnx", "head-1.onnx"]);
    expect((await fieldloop("split", at("m.onnx"), "--at", "ghost", "--out", at("p"))).err).toMatch(
      /"ghost"/,
    );
  });
});

describe("fieldloop model conformance", () => {
  it("holds a run against a baseline", async () => {
    const row = (values: number[], width: number) => ({
      type: "float32",
      dims: [1, width],
      b64: Buffer.from(Float32Array.from(values).buffer).toString("base64"),
    });
    const entry = {
      cat: "node",
      name: "test_zero",
      set: "s",
      inputs: { x: row([0, 0, 0, 0], 4) },
      outputs: { scores: row([0, 0, 0], 3) },
      model_b64: Buffer.from(perceptron()).toString("base64"),
    };
    await writeFile(at("cases.jsonl"), JSON.stringify(entry));
    await writeFile(at("same.tsv"), "category\ttest\tset\tstatus\twhy\nnode\ttest_zero\ts\tpass\t\n");
    await writeFile(at("other.tsv"), "category\ttest\tset\tstatus\twhy\nnode\ttest_zero\ts\tmismatch\t\n");
    const same = await fieldloop("conformance", at("cases.jsonl"), "--baseline", at("same.tsv"));
    expect(same).toMatchObject({ code: 0, out: expect.stringMatching(/every status is equal/) as string });
    const other = await fieldloop("conformance", at("cases.jsonl"), "--baseline", at("other.tsv"), "--json");
    expect(other).toMatchObject({
      code: 1,
      err: expect.stringMatching(/conflict: .*1 cases differ/) as string,
    });
    expect(JSON.parse(other.out)).toMatchObject({ summary: { node: { pass: 1 } } });
  });
});
