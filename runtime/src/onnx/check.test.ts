import { create } from "@bufbuild/protobuf";
import { FieldloopError, type ErrorCode } from "@fieldloop/protocol";
import { describe, expect, test } from "vitest";
import { GraphBuilder, valueInfo } from "./builder.js";
import { checkModel, type ModelLimits } from "./check.js";
import {
  FunctionProtoSchema,
  GraphProtoSchema,
  OperatorSetIdProtoSchema,
  SparseTensorProtoSchema,
  TensorProto_DataLocation,
  TensorProto_DataType,
  type GraphProto,
  type ModelProto,
} from "./generated/onnx_pb.js";
import { makeAttribute, makeNode } from "./graph.js";
import { inspectModel } from "./inspect.js";
import { ONNX_LIMITS } from "./limits.js";
import { decodeModel, encodeModel, graphOf } from "./model.js";
import { boolTensor, float32Tensor, int64Tensor } from "./tensor.js";

function soundModel(): ModelProto {
  const graph = new GraphBuilder();
  graph.input("x", "float32", ["n", 4]);
  graph.initializer(float32Tensor("w", [4, 3], new Float32Array(12).fill(0.5)));
  graph.node("MatMul", ["x", "w"], {}, ["h"]);
  graph.node("Relu", ["h"], {}, ["y"]);
  graph.output("y", "float32", ["n", 3]);
  return graph.build({ opset: 17 });
}

/** A chain of If bodies, `depth` graphs deep below the main one. */
function nestedIf(depth: number): ModelProto {
  const body = (level: number): GraphProto => {
    const inner =
      level === depth
        ? makeNode("Identity", ["x"], [`out${level}`])
        : makeNode("If", ["flag"], [`out${level}`], {
            then_branch: { g: body(level + 1) },
            else_branch: { g: body(level + 1) },
          });
    return create(GraphProtoSchema, {
      name: `body${level}`,
      node: [inner],
      output: [valueInfo(`out${level}`, "float32")],
    });
  };
  const model = soundModel();
  graphOf(model).initializer.push(boolTensor("flag", [], [true]));
  graphOf(model).node.push(
    makeNode(
      "If",
      ["flag"],
      ["z"],
      { then_branch: { g: body(1) }, else_branch: { g: body(1) } },
      { name: "gate" },
    ),
  );
  return model;
}

/** A sound model whose Relu is a call of the first local function; each is a chain of the operators named. */
function withFunctions(...functions: readonly [name: string, chain: readonly string[]][]): ModelProto {
  const model = soundModel();
  Object.assign(graphOf(model).node[1]!, { opType: functions[0]![0], domain: "local" });
  model.functions = functions.map(([name, chain]) =>
    create(FunctionProtoSchema, {
      name,
      domain: "local",
      input: ["v0"],
      output: [`v${chain.length}`],
      node: chain.map((operator, at) =>
        makeNode(operator, [`v${at}`], [`v${at + 1}`], {}, operator === "Relu" ? {} : { domain: "local" }),
      ),
    }),
  );
  return model;
}

test("a sound model passes, and its facts are stated", () => {
  const bytes = encodeModel(soundModel());
  expect(checkModel(bytes)).toEqual({
    bytes: bytes.length,
    irVersion: 10,
    opsets: { "": 17 },
    nodeCount: 2,
    subgraphDepth: 0,
    hasControlFlow: false,
    unfedInputs: [],
    omittedOutputs: [],
    inputs: [{ name: "x", type: "float32", dims: ["n", 4] }],
    outputs: [{ name: "y", type: "float32", dims: ["n", 3] }],
  });
  expect(inspectModel(bytes)).toMatchObject({
    nodeCount: 2,
    operators: { MatMul: 1, Relu: 1 },
    parameterCount: 12,
    weights: { float: { tensors: 1, elements: 12 } },
  });
});

type Attack = [
  name: string,
  code: ErrorCode,
  message: RegExp,
  model: (model: ModelProto) => void,
  limits?: ModelLimits,
];

const ATTACKS: readonly Attack[] = [
  [
    "a foreign domain",
    "onnx_unknown_domain",
    /node "Relu" \(Relu\) is from domain "com.evil"/,
    (model) => {
      graphOf(model).node[1]!.domain = "com.evil";
    },
  ],
  [
    "external data",
    "onnx_external_data",
    /initializer "w"/,
    (model) => {
      graphOf(model).initializer[0]!.dataLocation = TensorProto_DataLocation.EXTERNAL;
    },
  ],
  [
    "external data in an attribute",
    "onnx_external_data",
    /attribute "value" of node "c"/,
    (model) => {
      const tensor = float32Tensor("", [1], [0]);
      tensor.externalData = [
        { $typeName: "onnx.StringStringEntryProto", key: "location", value: "/etc/passwd" },
      ];
      graphOf(model).node.push(makeNode("Constant", [], ["c"], { value: { t: tensor } }));
    },
  ],
  [
    "an engine's own context file",
    "onnx_unsupported",
    /EPContext/,
    (model) => {
      graphOf(model).node.push(makeNode("EPContext", ["x"], ["e"], {}, { domain: "com.microsoft" }));
    },
  ],
  [
    "a claim of 2^40 elements",
    "onnx_too_large",
    /claims dimensions/,
    (model) => {
      graphOf(model).initializer[0]!.dims = [2n ** 20n, 2n ** 20n];
    },
  ],
  [
    "a claim that overflows 64 bits",
    "onnx_too_large",
    /claims dimensions/,
    (model) => {
      graphOf(model).initializer[0]!.dims = [2n ** 62n, 2n ** 62n, 0n];
    },
  ],
  [
    "a negative dimension",
    "onnx_malformed",
    /dimension -4/,
    (model) => {
      graphOf(model).initializer[0]!.dims = [-4n, -3n];
    },
  ],
  [
    "fewer bytes than dimensions",
    "onnx_malformed",
    /48 bytes for dimensions \[5,3\], 60 wanted/,
    (model) => {
      graphOf(model).initializer[0]!.dims = [5n, 3n];
    },
  ],
  [
    "a ConstantOfShape of 2^36",
    "onnx_too_large",
    /node "big" \(ConstantOfShape\) claims/,
    (model) => {
      graphOf(model).initializer.push(int64Tensor("shape", [2], [2 ** 18, 2 ** 18]));
      graphOf(model).node.push(makeNode("ConstantOfShape", ["shape"], ["big"]));
    },
  ],
  [
    "a declared input of 2^40",
    "onnx_too_large",
    /value "x" claims/,
    (model) => {
      graphOf(model).input[0] = valueInfo("x", "float32", [2 ** 20, 2 ** 20]);
    },
  ],
  [
    "an output written twice",
    "onnx_malformed",
    /writes "y", which is written already/,
    (model) => {
      graphOf(model).node.push(makeNode("Relu", ["h"], ["y"]));
    },
  ],
  [
    "a read of nothing",
    "onnx_malformed",
    /reads "ghost", which nothing writes/,
    (model) => {
      graphOf(model).node[1]!.input = ["ghost"];
    },
  ],
  [
    "a graph output of nothing",
    "onnx_malformed",
    /graph output "ghost"/,
    (model) => {
      graphOf(model).output[0]!.name = "ghost";
    },
  ],
  [
    "an attribute twice",
    "onnx_malformed",
    /attribute "alpha" twice/,
    (model) => {
      graphOf(model).node[1]!.attribute = [
        makeAttribute("alpha", { f: 1 }),
        makeAttribute("alpha", { f: 2 }),
      ];
    },
  ],
  [
    "a control character in a name",
    "onnx_malformed",
    /"a\\u001bb" holds a character/,
    (model) => {
      graphOf(model).node[1]!.output = ["a\u001bb"];
    },
  ],
  [
    "a name of 2,000 characters",
    "onnx_malformed",
    /a name of 2000 characters/,
    (model) => {
      graphOf(model).node[1]!.name = "n".repeat(2000);
    },
  ],
  [
    "no operator set",
    "onnx_malformed",
    /no operator set/,
    (model) => {
      model.opsetImport = [];
    },
  ],
  [
    "a sparse initializer",
    "onnx_unsupported",
    /sparse/,
    (model) => {
      graphOf(model).sparseInitializer.push(create(SparseTensorProtoSchema));
    },
  ],
  [
    "an operator set without kernels",
    "onnx_unsupported",
    /needs operator set 99 of "ai.onnx", the newest with kernels is 26/,
    (model) => {
      model.opsetImport[0]!.version = 99n;
    },
  ],
  [
    "an input of 8-bit floats",
    "onnx_unsupported",
    /"x" has element type FLOAT8E4M3FN/,
    (model) => {
      const type = graphOf(model).input[0]!.type!.value;
      if (type.case === "tensorType") type.value.elemType = TensorProto_DataType.FLOAT8E4M3FN;
    },
  ],
  ["too many nodes", "onnx_too_large", /2 nodes .* at most 1/, () => undefined, { nodeCountMax: 1 }],
  ["too many bytes", "onnx_too_large", /at most 100 allowed/, () => undefined, { modelBytesMax: 100 }],
];

describe("refused with a code that names the place", () => {
  test.each(ATTACKS)("%s", (_, code, message, change, limits) => {
    const model = soundModel();
    change(model);
    const error = refusal(() => checkModel(encodeModel(model), limits));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
  });

  test("control flow only where it is forbidden, and no more than eight levels of it", () => {
    const bytes = encodeModel(nestedIf(1));
    expect(checkModel(bytes)).toMatchObject({ subgraphDepth: 1, hasControlFlow: true });
    expect(refusal(() => checkModel(bytes, { allowControlFlow: false })).message).toMatch(
      /node "gate" \(If\)/,
    );
    expect(checkModel(encodeModel(nestedIf(8))).subgraphDepth).toBe(8);
    expect(refusal(() => checkModel(encodeModel(nestedIf(9)))).code).toBe("onnx_too_deep");
  });

  test("local functions are followed: what they call, and what they grow to", () => {
    expect(checkModel(encodeModel(withFunctions(["twice", ["Relu", "Relu"]])))).toMatchObject({
      nodeCount: 3,
    });
    const cycle = withFunctions(["twice", ["other"]], ["other", ["twice"]]);
    expect(refusal(() => checkModel(encodeModel(cycle))).message).toMatch(/"local.other" .* calls itself/);
    // Each of ten functions calls the next eight times: 8^10 nodes from 500 bytes.
    const names = Array.from({ length: 10 }, (_, at) => (at === 0 ? "twice" : `f${at}`));
    const bomb = withFunctions(
      ...names.map((name, at): [string, string[]] => [
        name,
        new Array(8).fill(names[at + 1] ?? "Relu") as string[],
      ]),
    );
    expect(refusal(() => checkModel(encodeModel(bomb))).message).toMatch(/1073741824 nodes|nodes by graph/);
    const foreign = withFunctions(["twice", ["Relu"]]);
    foreign.functions[0]!.node[0]!.domain = "com.evil";
    expect(refusal(() => checkModel(encodeModel(foreign))).code).toBe("onnx_unknown_domain");
    const unwritten = withFunctions(["twice", ["Relu"]]);
    unwritten.functions[0]!.output = ["ghost"];
    expect(refusal(() => checkModel(encodeModel(unwritten))).message).toMatch(
      /"ghost" of local function "twice"/,
    );
  });

  test("local functions are held to the limits in whatever order they stand, called or not", () => {
    const names = Array.from({ length: 100 }, (_, at) => `f${at}`);
    const chain = names.map((name, at): [string, string[]] => [name, [names[at + 1] ?? "Relu"]]);
    // The last first: each finds the one that it calls counted already.
    const deep = withFunctions(["twice", ["f0"]], ...chain.toReversed());
    deep.functions.push(deep.functions.shift()!);
    expect(refusal(() => checkModel(encodeModel(deep))).code).toBe("onnx_too_deep");
    const unread = withFunctions(["twice", ["Relu"]], ["idle", new Array(30).fill("Relu") as string[]]);
    expect(refusal(() => checkModel(encodeModel(unread), { nodeCountMax: 20 })).code).toBe("onnx_too_large");
    const outside = withFunctions(["twice", ["Relu"]]);
    const tensor = float32Tensor("", [1], [1]);
    tensor.dataLocation = TensorProto_DataLocation.EXTERNAL;
    outside.functions[0]!.attributeProto = [makeAttribute("weights", { t: tensor })];
    const error = refusal(() => checkModel(encodeModel(outside)));
    expect(error).toMatchObject({ code: "onnx_external_data" });
    expect(error.message).toMatch(/"weights" of local function "twice"/);
  });

  test("an operator set's domain may have a name that every object has", () => {
    const model = soundModel();
    model.opsetImport.push(create(OperatorSetIdProtoSchema, { domain: "constructor", version: 1n }));
    expect({ ...checkModel(encodeModel(model)).opsets }).toEqual({ "": 17, constructor: 1 });
  });

  test("a Loop body whose input is also an initializer", () => {
    const model = soundModel();
    const body = create(GraphProtoSchema, {
      name: "body",
      input: [valueInfo("i", "int64", []), valueInfo("go", "bool", [])],
      initializer: [int64Tensor("i", [], [0])],
      node: [makeNode("Identity", ["go"], ["still"])],
      output: [valueInfo("still", "bool")],
    });
    graphOf(model).node.push(makeNode("Loop", ["", ""], [], { body: { g: body } }));
    const error = refusal(() => checkModel(encodeModel(model)));
    expect(error.message).toMatch(/"i" is both input and initializer/);
  });

  test("nesting beyond the limit, before it is decoded", () => {
    let bytes: Uint8Array = new Uint8Array(0);
    // graph (7) > node (1) > attribute (5) > g (6) > node ... as a 61-fold shell around nothing.
    for (let level = 0; level < 61; level++) bytes = field([1, 6, 5][level % 3]!, bytes);
    const error = refusal(() => decodeModel(field(7, bytes)));
    expect(error.code).toBe("onnx_too_deep");
  });

  test("ONNX Runtime's own format, and bytes that are no protobuf", () => {
    expect(refusal(() => checkModel(new TextEncoder().encode("....ORTM....."))).message).toMatch(
      /own format/,
    );
    expect(refusal(() => checkModel(new TextEncoder().encode("not a model"))).code).toBe("onnx_malformed");
    expect(refusal(() => checkModel(new Uint8Array(0))).code).toBe("onnx_malformed");
  });

  test.each([
    [
      "a Git LFS pointer",
      "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
      /Git LFS pointer of \d+ bytes to a file of 12345/,
    ],
    ["a git-annex pointer", "/annex/objects/SHA256E-s123--abc.onnx\n", /git annex get/],
    ["a web page", "<!DOCTYPE html><html>Sign in</html>", /a web page/],
    ["a pickle", "\u0080\u0002}q", /a Python pickle/],
    ["a JPEG image", "\u00ff\u00d8\u00ff\u00e0\0\u0010JFIF", /a JPEG image/],
    ["a ZIP archive", "PK\u0003\u0004....", /a ZIP archive/],
    ["TensorFlow Lite", "\u001c\0\0\0TFL3....", /TensorFlow Lite/],
  ])("%s, by its name", (_, text, message) => {
    const error = refusal(() => checkModel(Uint8Array.from(text, (sign) => sign.charCodeAt(0))));
    expect(error.code).toBe("onnx_malformed");
    expect(error.message).toMatch(message);
  });

  test("a file that is cut short at any byte", () => {
    const bytes = encodeModel(soundModel());
    let named = 0;
    for (let length = 0; length < bytes.length; length++) {
      const error = refusal(() => checkModel(bytes.subarray(0, length)));
      expect(error.code).toBe("onnx_malformed");
      if (/cut short/.test(error.message)) named++;
    }
    expect(named).toBeGreaterThan(bytes.length / 2);
  });

  test("more typed numbers than the limit, before they are decoded", () => {
    const values = new Uint8Array(ONNX_LIMITS.typedElementsMax + 1);
    const bytes = field(7, field(5, field(5, values)));
    expect(refusal(() => decodeModel(bytes)).code).toBe("onnx_too_large");
  });
});

test("whatever bytes change, the answer is facts or a coded refusal", () => {
  const sound = encodeModel(nestedIf(2));
  let state = 12345;
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state % below;
  };
  let refused = 0;
  for (let round = 0; round < 3000; round++) {
    let bytes = Uint8Array.from(sound);
    for (let count = 1 + random(3); count > 0; count--) bytes[random(bytes.length)] = random(256);
    if (random(10) === 0) bytes = bytes.slice(0, random(bytes.length));
    try {
      checkModel(bytes);
    } catch (error) {
      expect(error, `round ${round}`).toBeInstanceOf(FieldloopError);
      expect((error as FieldloopError).code).toMatch(/^onnx_/);
      refused++;
    }
  }
  expect(refused).toBeGreaterThan(1000);
});

function refusal(action: () => unknown): FieldloopError {
  try {
    action();
  } catch (error) {
    if (error instanceof FieldloopError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

/** One length-delimited protobuf field. */
function field(number: number, value: Uint8Array): Uint8Array {
  const length: number[] = [];
  for (let rest = value.length; ; rest = Math.floor(rest / 128)) {
    length.push(rest >= 128 ? (rest % 128) + 128 : rest);
    if (rest < 128) break;
  }
  const bytes = new Uint8Array(1 + length.length + value.length);
  bytes.set([number * 8 + 2, ...length]);
  bytes.set(value, 1 + length.length);
  return bytes;
}
