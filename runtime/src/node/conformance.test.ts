import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { toBinary } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { GraphBuilder } from "../onnx/builder.js";
import { TensorProtoSchema, type ModelProto } from "../onnx/generated/onnx_pb.js";
import { decodeModel, encodeModel } from "../onnx/model.js";
import { float32Tensor, int64Tensor } from "../onnx/tensor.js";
import { UPGRADE_OPSET_MAX, upgradeOpset } from "../onnx/upgrade.js";
import { compareWithBaseline, runConformance } from "./conformance.js";
import { readCases } from "./conformance-read.js";
import { scratchFolder } from "./small-packages.test.kit.js";

let scratch: Awaited<ReturnType<typeof scratchFolder>>;
beforeEach(async () => {
  scratch = await scratchFolder();
});
afterEach(() => scratch.remove());

const ROW = { type: "float32", dims: [1, 3], b64: base64([1, -2, 3]) } as const;

function base64(values: readonly number[]): string {
  return Buffer.from(Float32Array.from(values).buffer).toString("base64");
}

function unary(operator: string, opset = 17): ModelProto {
  const graph = new GraphBuilder();
  graph.input("x", "float32", [1, 3]);
  graph.node(operator, ["x"], {}, ["y"]);
  graph.output("y", "float32");
  return graph.build({ opset });
}

/** Divides by zero in the native kernel: see bad-models.test.ts. */
function killer(): ModelProto {
  const graph = new GraphBuilder();
  graph.input("x", "float32", [1, 3]);
  const zero = graph.initializer(int64Tensor("zero", [1], [0]));
  const one = graph.initializer(int64Tensor("one", [1], [1]));
  graph.node("Slice", ["x", zero, zero], {}, ["rows"]);
  graph.node("TopK", ["rows", one], { axis: { i: 1 } }, ["y", "where"]);
  graph.output("y", "float32");
  return graph.build({ opset: 17 });
}

const entry = (name: string, model: ModelProto, y: unknown, x: unknown = ROW) =>
  JSON.stringify({
    cat: "node",
    name,
    set: "test_data_set_0",
    inputs: { x },
    outputs: { y },
    model_b64: Buffer.from(encodeModel(model)).toString("base64"),
  });

describe("conformance", () => {
  it("names every status, and a native crash costs its own case alone", async () => {
    const file = join(scratch.path, "cases.jsonl");
    // What a killed case leaves is taken away as well.
    vi.stubEnv("TMPDIR", scratch.path);
    const abs = { ...ROW, b64: base64([1, 2, 3]) };
    await writeFile(
      file,
      [
        entry("right", unary("Abs"), abs),
        entry("within", unary("Abs"), { ...ROW, b64: base64([1.0009, 2, 3]) }),
        entry("wrong", unary("Abs"), { ...ROW, b64: base64([1.01, 2, 3]) }),
        entry("crash", killer(), abs),
        entry("other-shape", unary("Abs"), { ...abs, dims: [3] }),
        entry("unknown", unary("Wobble"), abs),
        entry("future", unary("Abs", 99), abs),
        entry("half-byte", unary("Abs"), { unsupported: "INT4" }),
        entry("wrong-feed", unary("Abs"), abs, { ...ROW, dims: [3] }),
        entry("last", unary("Abs"), abs),
      ].join("\n"),
    );
    const report = await runConformance(file, { processes: 1 });
    expect(report.cases.map(({ name, status }) => `${name} ${status}`)).toEqual([
      "right pass",
      "within pass",
      "wrong mismatch",
      "crash crash",
      "other-shape mismatch",
      "unknown load-fail",
      "future load-fail",
      "half-byte type-not-in-node",
      "wrong-feed run-fail",
      "last pass",
    ]);
    for (const { name, status, why } of report.cases) expect(why === "", name).toBe(status === "pass");
    expect(report.cases[3]!.why).toMatch(/SIGFPE/);
    expect(report.summary).toMatchObject({ node: { pass: 3, mismatch: 2, crash: 1, "load-fail": 2 } });
    vi.unstubAllEnvs();
    expect(readdirSync(scratch.path).filter((name) => name.startsWith("fieldloop-"))).toEqual([]);

    const table = `category\ttest\tset\tstatus\twhy\nnode\tright\ttest_data_set_0\tmismatch\t\nnode\tgone\ttest_data_set_0\tpass\t`;
    const differences = compareWithBaseline(report, table);
    expect(differences[0]).toMatchObject({ name: "right", status: "pass", baseline: "mismatch" });
    expect(differences.at(-1)).toMatchObject({ name: "gone", status: undefined, baseline: "pass" });
  });

  it("reads the folders of the ONNX backend tests", async () => {
    const folder = join(scratch.path, "node", "test_abs");
    await mkdir(join(folder, "test_data_set_0"), { recursive: true });
    await writeFile(join(folder, "model.onnx"), encodeModel(unary("Abs")));
    const put = (name: string, values: number[]) =>
      writeFile(
        join(folder, "test_data_set_0", name),
        toBinary(TensorProtoSchema, float32Tensor("", [1, 3], values)),
      );
    await put("input_0.pb", [1, -2, 3]);
    await put("output_0.pb", [1, 2, 3]);
    const report = await runConformance(scratch.path);
    expect(report.cases).toEqual([
      { category: "node", name: "test_abs", set: "test_data_set_0", status: "pass", why: "" },
    ]);
    await expect(runConformance(join(scratch.path, "none"))).rejects.toMatchObject({ code: "not_found" });
    await writeFile(join(scratch.path, "bad.jsonl"), "{}\n");
    await expect(runConformance(join(scratch.path, "bad.jsonl"))).rejects.toThrow(/line 1 of/);
    // A folder that holds such files is read by them.
    await expect(runConformance(scratch.path)).rejects.toThrow(/line 1 of ".*bad\.jsonl"/);
  });
});

/** Folder with the public cases; it is not part of the project. */
const dataFolder = process.env.FIELDLOOP_TEST_DATA ?? "";
const cases = join(dataFolder, "onnx-backend/cases.jsonl.gz");
const hasCases = dataFolder !== "" && existsSync(cases);
const reason = hasCases ? "" : " (skipped: FIELDLOOP_TEST_DATA names no folder with onnx-backend)";

describe.skipIf(!hasCases)(`the public operator cases${reason}`, () => {
  it("have the status of the bare engine, all of them", { timeout: 120_000 }, async () => {
    const table = readFileSync(join(dataFolder, "onnx-backend/ort-node-1.30.0-results.tsv"), "utf8");
    const report = await runConformance(cases);
    console.log(`conformance: ${JSON.stringify(report.summary)}`);
    expect(report.cases).toHaveLength(1513);
    expect(compareWithBaseline(report, table)).toEqual([]);
    expect(report.cases.filter(({ status, why }) => status !== "pass" && why === "")).toEqual([]);
  });

  it(`still pass after the upgrade to operator set ${UPGRADE_OPSET_MAX}`, { timeout: 120_000 }, async () => {
    const lines: string[] = [];
    let refused = 0;
    for await (const one of readCases(cases)) {
      const model = decodeModel(Buffer.from(one.model_b64, "base64"));
      try {
        if (!upgradeOpset(model, UPGRADE_OPSET_MAX)) continue;
      } catch {
        refused++;
        continue;
      }
      lines.push(JSON.stringify({ ...one, model_b64: Buffer.from(encodeModel(model)).toString("base64") }));
    }
    const file = join(scratch.path, "upgraded.jsonl");
    await writeFile(file, lines.join("\n"));
    const passed = new Set((await runConformance(cases)).cases.filter(isPass).map(({ name }) => name));
    const upgraded = await runConformance(file);
    const lost = upgraded.cases.filter((result) => passed.has(result.name) && !isPass(result));
    console.log(
      `upgraded: ${upgraded.cases.filter(isPass).length} of ${lines.length} pass, ${refused} refused`,
    );
    expect(lost).toEqual([]);
  });
});

function isPass({ status }: { status: string }): boolean {
  return status === "pass";
}
