import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { create } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { contractModels } from "../contract/models.js";
import { GraphBuilder, valueInfo } from "../onnx/builder.js";
import { TypeProtoSchema, ValueInfoProtoSchema } from "../onnx/generated/onnx_pb.js";
import { encodeModel } from "../onnx/model.js";
import { float32Tensor } from "../onnx/tensor.js";
import { ortNode } from "./ort.js";
import { scratchFolder } from "./small-packages.test.kit.js";

const CPU = { threadCount: 1, executionProvider: "cpu" } as const;
let scratch: Awaited<ReturnType<typeof scratchFolder>>;
beforeAll(async () => {
  scratch = await scratchFolder();
});
afterAll(() => scratch.remove());

describe("ONNX Runtime in Node", () => {
  it("tells which provider ran which share of the nodes", async () => {
    const path = join(scratch.path, "conv.onnx");
    await writeFile(path, contractModels().get("conv")!.bytes);
    const session = await ortNode.openSession(path, CPU);
    expect(await session.providerShares?.()).toEqual({ cpu: 1 });
    await session.release();
  });

  it("leaves out and names outputs that are no tensors", async () => {
    const graph = new GraphBuilder();
    graph.input("x", "float32", [2]);
    graph.node("SequenceConstruct", ["x", "x"], {}, ["pair"]);
    graph.node("Neg", ["x"], {}, ["y"]);
    graph.output("y", "float32", [2]);
    const model = graph.build({ opset: 17 });
    const element = create(TypeProtoSchema, valueInfo("", "float32", [2]).type!);
    const type = create(TypeProtoSchema, { value: { case: "sequenceType", value: { elemType: element } } });
    model.graph!.output.push(create(ValueInfoProtoSchema, { name: "pair", type }));
    const session = await ortNode.openSession(encodeModel(model), CPU);
    expect(session.outputs.map((output) => output.name)).toEqual(["y"]);
    expect(session.omitted).toEqual(["pair"]);
    const results = await session.run({ x: { type: "float32", dims: [2], data: Float32Array.of(1, 2) } });
    expect(results).toEqual({ y: { type: "float32", dims: [2], data: Float32Array.of(-1, -2) } });
    await session.release();
  });

  it("refuses text that it would cut at a zero character", async () => {
    const graph = new GraphBuilder();
    graph.node("Identity", [graph.input("x", "string", [2])], {}, ["y"]);
    graph.output("y", "string", [2]);
    const session = await ortNode.openSession(encodeModel(graph.build({ opset: 17 })), CPU);
    const run = (...data: string[]) => session.run({ x: { type: "string", dims: [2], data } });
    expect((await run("a", "ü")).y!.data).toEqual(["a", "ü"]);
    await expect(run("a", "b\0c")).rejects.toMatchObject({ code: "tensor_invalid" });
    await session.release();
  });

  it.skipIf(!ortNode.executionProviders().includes("cuda"))(
    "says which libraries a provider wants that finds none",
    async () => {
      const { bytes } = contractModels().get("gemm")!;
      const options = { threadCount: 1, executionProvider: "cuda" };
      const opened = await ortNode.openSession(bytes, options).catch((error: unknown) => error);
      // Where there is such a GPU it is not missing.
      if (!(opened instanceof Error)) return;
      expect(opened.message).toMatch(/libonnxruntime_providers_cuda\.so.*docs\/hardware\.md/);
      expect(opened).toMatchObject({ code: "provider_unavailable" });
    },
  );

  it("refuses a provider that it does not know, instead of running on the CPU", async () => {
    const { bytes } = contractModels().get("gemm")!;
    await expect(ortNode.openSession(bytes, { ...CPU, executionProvider: "npu9000" })).rejects.toMatchObject({
      code: "provider_unavailable",
    });
  });

  it("writes no line to the terminal unless asked for", async () => {
    const graph = new GraphBuilder();
    graph.input("x", "float32", [2]);
    graph.initializer(float32Tensor("w", [2], Float32Array.of(1, 2)));
    graph.node("Add", ["x", "w"], {}, ["y"]);
    graph.output("y", "float32", [2]);
    const model = graph.build({ opset: 17 });
    // A weight among the inputs, as old exporters have it: the library warns of each.
    model.graph!.input.push(valueInfo("w", "float32", [2]));
    const path = join(scratch.path, "warns.onnx");
    await writeFile(path, encodeModel(model));
    const said = async (nativeLog: boolean): Promise<string> => {
      const script = `
        const { ortNode } = await import(${JSON.stringify(new URL("./ort.js", import.meta.url).href)});
        const options = { threadCount: 1, executionProvider: "cpu", nativeLog: ${nativeLog} };
        await (await ortNode.openSession(${JSON.stringify(path)}, options)).release();`;
      const args = ["--input-type=module", "--eval", script];
      const { stdout, stderr } = await promisify(execFile)(process.execPath, args);
      return stdout + stderr;
    };
    expect(await said(false)).toBe("");
    expect(await said(true)).toMatch(/Initializer w appears in graph inputs/);
  });
});
