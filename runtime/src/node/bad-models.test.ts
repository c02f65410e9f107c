import { readdirSync } from "node:fs";
import { link, mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import type { ErrorCode } from "@fieldloop/protocol";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { GraphBuilder, valueInfo } from "../onnx/builder.js";
import {
  GraphProtoSchema,
  ValueInfoProtoSchema,
  type ModelProto,
  type TensorProto,
} from "../onnx/generated/onnx_pb.js";
import { makeNode } from "../onnx/graph.js";
import { encodeModel, graphOf } from "../onnx/model.js";
import { boolTensor, float32Tensor, int64Tensor } from "../onnx/tensor.js";
import { importModel, type ImportOptions } from "./import.js";
import { openModel } from "./model.js";
import { openPackage } from "./package.js";
import { scratchFolder } from "./small-packages.test.kit.js";

let scratch: Awaited<ReturnType<typeof scratchFolder>>;
beforeEach(async () => {
  scratch = await scratchFolder();
});
afterEach(() => scratch.remove());

const MIB = 2 ** 20;

async function importBytes(bytes: Uint8Array, more: Partial<ImportOptions> = {}) {
  const file = join(scratch.path, "m.onnx");
  await writeFile(file, bytes);
  return importModel(file, join(scratch.path, "package"), {
    preset: "tensor",
    model: "bad",
    licence: "MIT",
    created: new Date("2026-11-20T00:00:00Z"),
    ...more,
  });
}

/** A graph from `x` to `y`, both float32, with what `fill` puts between; `fill` returns the tensor that becomes `y`. */
function between(fill: (graph: GraphBuilder) => string, opset = 17): ModelProto {
  const graph = new GraphBuilder();
  graph.input("x", "float32", [1, 4]);
  const last = fill(graph);
  graph.node("Identity", [last], {}, ["y"]);
  graph.output("y", "float32");
  return graph.build({ opset });
}

const weighted = () =>
  between((graph) => {
    const weight = graph.initializer(float32Tensor("w", [4, 2], new Float32Array(8).fill(0.5)));
    return graph.node("MatMul", ["x", weight], {}, ["h"])[0]!;
  });

/** `w` with its 32 bytes in another file. */
function external(location: string, more: Readonly<Record<string, string>> = {}): ModelProto {
  const model = weighted();
  const tensor = graphOf(model).initializer[0]!;
  tensor.dataLocation = 1;
  tensor.rawData = new Uint8Array(0);
  Reflect.deleteProperty(tensor, "rawData");
  tensor.externalData = Object.entries({ location, ...more }).map(([key, value]) => ({
    $typeName: "onnx.StringStringEntryProto",
    key,
    value,
  })) as TensorProto["externalData"];
  return model;
}

/** Runs until its condition is false, which it never is. */
const endlessLoop = () =>
  between((graph) => {
    const go = graph.initializer(boolTensor("go", [], [true]));
    const body = create(GraphProtoSchema, {
      name: "body",
      input: [valueInfo("i", "int64", []), valueInfo("on", "bool", []), valueInfo("v", "float32", [1, 4])],
      node: [makeNode("Identity", ["on"], ["still"]), makeNode("Cos", ["v"], ["next"])],
      output: [valueInfo("still", "bool", []), valueInfo("next", "float32", [1, 4])],
    });
    const [before] = graph.node("Relu", ["x"]);
    return graph.node("Loop", ["", go, before!], { body: { g: body } }, ["spun"])[0]!;
  });

/** TopK over no rows divides by zero in the CPU kernel: a valid model that its input kills. */
const topKOfNothing = () =>
  between((graph) => {
    const zero = graph.initializer(int64Tensor("zero", [1], [0]));
    const one = graph.initializer(int64Tensor("one", [1], [1]));
    const [rows] = graph.node("Slice", ["x", zero, zero]);
    const [best] = graph.node("TopK", [rows!, one], { axis: { i: 1 } }, ["best", "where"]);
    return best!;
  });

/** A tensor of 2 GiB whose size only the run knows. */
const hungry = () =>
  between((graph) => {
    const repeats = graph.initializer(float32Tensor("repeats", [2], [8_192, 16_384]));
    const [positive] = graph.node("Abs", ["x"]);
    const [floats] = graph.node("Add", [
      repeats,
      graph.node("Mul", [
        graph.node("ReduceSum", [positive!], { keepdims: { i: 0 } })[0]!,
        graph.initializer(float32Tensor("nought", [], [0])),
      ])[0]!,
    ]);
    const [counts] = graph.node("Cast", [floats!], { to: { i: 7 } });
    return graph.node("Tile", ["x", counts!], {}, ["heap"])[0]!;
  });

/** As exporters of scikit-learn write a logistic regression: the label, and a map of each class to its probability. */
function zippedClassifier(): ModelProto {
  const graph = new GraphBuilder();
  graph.input("x", "float32", ["N", 2]);
  const attributes = {
    classlabels_ints: { ints: [10, 20] },
    coefficients: { floats: [1, -1, -1, 1] },
    intercepts: { floats: [0, 0] },
    post_transform: { s: "SOFTMAX" },
  };
  graph.node("LinearClassifier", ["x"], attributes, ["label", "raw"], "ai.onnx.ml");
  graph.node("Normalizer", ["raw"], { norm: { s: "L1" } }, ["scores"], "ai.onnx.ml");
  graph.node("ZipMap", ["scores"], { classlabels_int64s: { ints: [10, 20] } }, ["named"], "ai.onnx.ml");
  graph.output("label", "int64", ["N"]);
  const model = graph.build({ opset: 15, domains: { "ai.onnx.ml": 3 } });
  graphOf(model).output.push(mapSequence("named"));
  return model;
}

/** sequence(map(int64, tensor(float))) */
function mapSequence(name: string) {
  const tensor = valueInfo("", "float32", []).type!;
  const map = { value: { case: "mapType" as const, value: { keyType: 7, valueType: tensor } } };
  return create(ValueInfoProtoSchema, {
    name,
    type: { value: { case: "sequenceType", value: { elemType: map } } },
  });
}

interface Row {
  readonly name: string;
  readonly make: () => Uint8Array;
  readonly code: ErrorCode;
  readonly message: RegExp;
  readonly options?: Partial<ImportOptions>;
}

const row = (
  name: string,
  model: () => ModelProto,
  code: ErrorCode,
  message: RegExp,
  options?: Partial<ImportOptions>,
): Row => ({
  name,
  make: () => encodeModel(model()),
  code,
  message,
  ...(options === undefined ? {} : { options }),
});

const REFUSED: readonly Row[] = [
  row(
    "external data that is missing",
    () => external("w.bin"),
    "onnx_external_data",
    /"w": "w.bin" is missing/,
  ),
  row(
    "external data in another folder",
    () => external("../../etc/passwd"),
    "onnx_external_data",
    /"w": "..\/..\/etc\/passwd" is not a file in the model's own folder/,
  ),
  row("external data by an absolute path", () => external("/etc/passwd"), "onnx_external_data", /own folder/),
  row(
    "external data without a place",
    () => external("w.bin", { offset: "-1" }),
    "onnx_external_data",
    /offset "-1"/,
  ),
  row(
    "an operator of an unknown domain",
    () => {
      const model = weighted();
      graphOf(model).node[0]!.domain = "com.vendor";
      return model;
    },
    "onnx_unknown_domain",
    /"MatMul" \(MatMul\) is from domain "com.vendor"/,
  ),
  row(
    "an operator that does not exist",
    () => between((graph) => graph.node("Wobble", ["x"], {}, ["h"])[0]!),
    "model_load_failed",
    /Wobble/,
  ),
  row(
    "a type error",
    () =>
      between((graph) => {
        const whole = graph.initializer(int64Tensor("whole", [1], [1]));
        return graph.node("Add", ["x", whole], {}, ["sum"])[0]!;
      }),
    "model_load_failed",
    /Type Error.*node \(Add\)/s,
  ),
  row(
    "a shape error",
    () =>
      between((graph) => {
        const weight = graph.initializer(float32Tensor("narrow", [3, 2], new Float32Array(6)));
        return graph.node("MatMul", ["x", weight], {}, ["h"])[0]!;
      }),
    "model_load_failed",
    /MatMul/,
  ),
  row(
    "an operator set of the future",
    () => between((graph) => graph.node("Relu", ["x"])[0]!, 99),
    "onnx_unsupported",
    /operator set 99 of "ai.onnx", the newest with kernels is 26/,
  ),
  row(
    "an operator without a kernel",
    () =>
      between((graph) => {
        const shift = graph.initializer(int64Tensor("shift", [1], [1]));
        const [whole] = graph.node("Cast", ["x"], { to: { i: 5 } });
        const [moved] = graph.node("Cast", [shift], { to: { i: 5 } });
        const [bits] = graph.node("BitwiseAnd", [whole!, moved!], {}, ["bits"]);
        const [fed] = graph.node("RandomNormalLike", [bits!], { dtype: { i: 16 } }, ["noise"]);
        return graph.node("Cast", [fed!], { to: { i: 1 } })[0]!;
      }, 22),
    "model_load_failed",
    /RandomNormalLike/,
  ),
  row(
    "a claim of 2 GiB of weights",
    () => {
      const model = weighted();
      graphOf(model).initializer[0]!.dims = [2n ** 29n, 4n];
      return model;
    },
    "onnx_malformed",
    /initializer "w" has 32 bytes for dimensions \[536870912,4\]/,
  ),
  row(
    "a claim of 2^40 elements",
    () => {
      const model = weighted();
      graphOf(model).initializer[0]!.dims = [2n ** 20n, 2n ** 20n];
      return model;
    },
    "onnx_too_large",
    /initializer "w" claims dimensions/,
  ),
  {
    name: "a pointer in place of the file",
    make: () => Buffer.from("version https://git-lfs.github.com/spec/v1\noid sha256:1f\nsize 1270727\n"),
    code: "onnx_malformed",
    message: /Git LFS pointer of \d+ bytes to a file of 1270727/,
  },
  {
    name: "the engine's own format",
    make: () => Buffer.from("....ORTM........"),
    code: "onnx_malformed",
    message: /ONNX Runtime's own format/,
  },
  row(
    "a model that only gives NaN",
    () =>
      between((graph) => graph.node("Sqrt", [graph.node("Sub", ["x", highs(graph)])[0]!], {}, ["root"])[0]!),
    "model_output_invalid",
    /"y" holds values that are not finite, first written by node "Sqrt" \(Sqrt\)/,
  ),
  row(
    "a Loop that never ends",
    endlessLoop,
    "timed_out",
    /no answer within the time limit of 2 s at node "Loop" \(Loop\)/,
    { trial: { timeoutMs: 2_000 } },
  ),
  row("a tensor of 2 GiB", hungry, "limit_exceeded", /more than 400 MiB of memory at node "Tile" \(Tile\)/, {
    trial: { rssBytesMax: 400 * MIB },
  }),
  row(
    "a model that kills the process",
    topKOfNothing,
    "model_run_failed",
    /ended with signal SIGFPE at node "TopK" \(TopK\)/,
  ),
  row(
    "an input that is a sequence",
    () => {
      const model = weighted();
      graphOf(model).input.push(sequence("parts"));
      graphOf(model).node.push(makeNode("SequenceLength", ["parts"], ["count"]));
      graphOf(model).output.push(valueInfo("count", "int64", []));
      return model;
    },
    "onnx_unsupported",
    /input "parts" takes a value of type sequence/,
  ),
  row(
    "only an output that is a sequence",
    () => {
      const model = weighted();
      const graph = graphOf(model);
      graph.node = [makeNode("SequenceConstruct", ["x"], ["list"])];
      graph.output = [sequence("list")];
      return model;
    },
    "onnx_unsupported",
    /its only output "list" is of type sequence/,
  ),
];

function highs(graph: GraphBuilder): string {
  return graph.initializer(float32Tensor("high", [1], [100]));
}

function sequence(name: string) {
  const info = create(ValueInfoProtoSchema, valueInfo(name, "float32"));
  return create(ValueInfoProtoSchema, {
    name,
    type: { value: { case: "sequenceType", value: { elemType: info.type! } } },
  });
}

describe("bad models are refused at import, and the message says what and where", () => {
  it.each(REFUSED)("$name", { timeout: 60_000 }, async ({ make, code, message, options }) => {
    const error: unknown = await importBytes(make(), options).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code });
    expect((error as Error).message).toMatch(message);
    // The folder holds the file alone: nothing was begun.
    expect(readdirSync(scratch.path)).toEqual(["m.onnx"]);
  });

  it("a file that is cut short, at many places", async () => {
    const bytes = encodeModel(weighted());
    for (let length = 0; length < bytes.length; length += 7) {
      await expect(importBytes(bytes.subarray(0, length))).rejects.toMatchObject({ code: "onnx_malformed" });
    }
  });

  it("external data that is a link", async () => {
    const outside = join(scratch.path, "outside.bin");
    await writeFile(outside, new Uint8Array(32));
    await symlink(outside, join(scratch.path, "soft.bin"));
    await link(outside, join(scratch.path, "hard.bin"));
    await mkdir(join(scratch.path, "folder.bin"));
    for (const name of ["soft.bin", "hard.bin", "folder.bin"]) {
      await expect(importBytes(encodeModel(external(name)))).rejects.toMatchObject({
        code: "onnx_external_data",
        message: expect.stringMatching(/"w": ".*" is no regular file/) as string,
      });
    }
    await writeFile(join(scratch.path, "short.bin"), new Uint8Array(16));
    await expect(
      importBytes(encodeModel(external("short.bin", { offset: "8", length: "32" }))),
    ).rejects.toThrow(/has 16 bytes, bytes 8 to 40 are wanted/);
  });
});

describe("models that need a hand are imported, with a warning", () => {
  it("external data beside the file comes into the package", async () => {
    const weights = new Float32Array(10).fill(0.5);
    await writeFile(join(scratch.path, "w.bin"), new Uint8Array(weights.buffer));
    const bytes = encodeModel(external("w.bin", { offset: "8", length: "32" }));
    const pkg = await importBytes(bytes);
    expect(pkg.warnings).toEqual([expect.stringMatching(/1 tensors .* brought into the model/) as string]);
    const model = await openModel(await openPackage(pkg.dir), { threadCount: 1 });
    try {
      const x = { type: "float32", dims: [1, 4], data: Float32Array.of(1, 2, 3, 4) } as const;
      expect([...(await model.runTensors({ x })).y!.data]).toEqual([5, 5]);
    } finally {
      await model.release();
    }
  });

  it("an output that cannot be returned is left out by name", async () => {
    const model = weighted();
    graphOf(model).node.push(makeNode("SequenceConstruct", ["h"], ["list"]));
    graphOf(model).output.push(sequence("list"));
    const pkg = await importBytes(encodeModel(model));
    expect(pkg.warnings).toEqual([
      'output "list" is left out: it is of type sequence, and results hold tensors only',
    ]);
    expect(pkg.manifest.golden[0]!.outputs.map(({ name }) => name)).toEqual(["y"]);
  });

  it("a classifier of ai.onnx.ml keeps its label, and loses the map of probabilities", async () => {
    const graph = new GraphBuilder();
    graph.input("x", "float32", [1, 2]);
    const attributes = {
      classlabels_ints: { ints: [10, 20] },
      coefficients: { floats: [1, -1, -1, 1] },
      intercepts: { floats: [0, 0] },
      post_transform: { s: "SOFTMAX" },
    };
    graph.node("LinearClassifier", ["x"], attributes, ["label", "probabilities"], "ai.onnx.ml");
    const zip = { classlabels_int64s: { ints: [10, 20] } };
    graph.node("ZipMap", ["probabilities"], zip, ["named"], "ai.onnx.ml");
    graph.output("label", "int64", [1]);
    graph.output("probabilities", "float32", [1, 2]);
    const model = graph.build({ opset: 15, domains: { "ai.onnx.ml": 3 } });
    graphOf(model).output.push(mapSequence("named"));
    const pkg = await importBytes(encodeModel(model));
    expect(pkg.warnings).toEqual([
      'output "named" is left out: it is of type sequence, and results hold tensors only; output "probabilities" has the numbers of it',
    ]);
    expect(pkg.manifest.golden[0]!.outputs.map(({ name, elementType }) => `${name} ${elementType}`)).toEqual([
      "label int64",
      "probabilities float32",
    ]);
  });

  it("a classifier whose probabilities leave it in a map alone gives them as a tensor", async () => {
    const pkg = await importBytes(encodeModel(zippedClassifier()), {
      preset: "tabular-classifier",
      presetOptions: { labels: ["low", "high"] },
    });
    expect(pkg.manifest.heads).toMatchObject([{ output: "scores", values: "probabilities" }]);
    const model = await openModel(await openPackage(pkg.dir), { threadCount: 1 });
    try {
      const values = { "column-1": 2, "column-2": 0 };
      const { label, confidence } = await model.predict({ kind: "row", values });
      expect(label).toBe("low");
      expect(confidence).toBeCloseTo(1 / (1 + Math.exp(-4)), 5);
    } finally {
      await model.release();
    }
  });

  it("NaN for some inputs leaves the output out of the golden case", async () => {
    const model = between((graph) => graph.node("Log", ["x"], {}, ["root"])[0]!);
    const pkg = await importBytes(encodeModel(model));
    expect(pkg.warnings).toEqual([expect.stringMatching(/"y" holds values .* node "Log" \(Log\)/) as string]);
    expect(pkg.manifest.golden).toEqual([]);
  });

  it("control flow runs, and symbolic dimensions take a size", async () => {
    const body = (operator: string) =>
      create(GraphProtoSchema, {
        name: operator,
        node: [makeNode(operator, ["x"], [`${operator}Out`])],
        output: [valueInfo(`${operator}Out`, "float32")],
      });
    const graph = new GraphBuilder();
    graph.input("x", "float32", ["N", 2]);
    graph.input("flag", "bool", []);
    graph.node("If", ["flag"], { then_branch: { g: body("Neg") }, else_branch: { g: body("Abs") } }, ["y"]);
    graph.output("y", "float32", ["N", 2]);
    const bytes = encodeModel(graph.build({ opset: 17 }));
    const pkg = await importBytes(bytes, { dims: { N: 1 } });
    expect(pkg.manifest.inputs[0]).toMatchObject({ name: "x", dims: [1, 2] });
    expect(pkg.manifest.golden).toHaveLength(1);
    await expect(importBytes(bytes, { dims: { M: 3 } })).rejects.toThrow(/"M": no input has it, there are N/);
  });
});
