import { spawnSync } from "node:child_process";
import { create, toBinary } from "@bufbuild/protobuf";
import { request } from "node:http";
import { createServer } from "node:net";
import { readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import type { Tensor } from "../backend.js";
import { contractModels } from "../contract/models.js";
import { ModelInferRequestSchema } from "../oip/generated/open_inference_pb.js";
import { decodeMessage, fromGrpcRequest } from "../oip/grpc-messages.js";
import { OIP_LIMITS } from "../oip/limits.js";
import type { InferenceService } from "../oip/service.js";
import { backendFor } from "./backends.js";
import { serveGrpc } from "./oip-grpc.js";
import { serveHttp, type OipServer } from "./oip-http-server.js";
import { SessionService } from "./oip-service.js";
import { ortNode } from "./ort.js";
import { scratchFolder } from "./small-packages.test.kit.js";

const manyOnes = (): bigint[] => Array.from({ length: OIP_LIMITS.jsonElementsMax + 1 }, () => 1n);
const manyEmpty = (): object[] => Array.from({ length: OIP_LIMITS.wireFieldsMax + 1 }, () => ({}));
const gemm = contractModels().get("gemm")!;
const LOOPBACK = { host: "127.0.0.1", port: 0 };
const LONG_MS = 15_000;
const SHORT_MS = 2_000;

const started: OipServer[] = [];
afterEach(async () => {
  for (const server of started.splice(0)) await server.stop();
});

async function gemmService(): Promise<SessionService> {
  const open = (): ReturnType<typeof ortNode.openSession> =>
    ortNode.openSession(gemm.bytes, { threadCount: 1, executionProvider: "cpu" });
  const service = new SessionService([{ name: "gemm", version: "1", open }], {
    version: "1",
    platform: "test",
  });
  await service.load("gemm");
  return service;
}

/** The same models, but every answer waits for `gate`, and the server names only these extensions. */
function gated(
  service: InferenceService,
  gate: Promise<void>,
  extensions: readonly string[] = ["binary_tensor_data"],
): InferenceService {
  return {
    serverMetadata: () => ({ ...service.serverMetadata(), extensions }),
    ready: () => service.ready(),
    models: () => service.models(),
    modelReady: (model, version) => service.modelReady(model, version),
    modelMetadata: (model, version) => service.modelMetadata(model, version),
    load: (model) => service.load(model),
    unload: (model) => service.unload(model),
    infer: async (asked) => {
      await gate;
      return service.infer(asked);
    },
  };
}

const serve = { http: serveHttp, grpc: serveGrpc } as const;

describe.each(["http", "grpc"] as const)("a served model over %s", (scheme) => {
  async function start(service: InferenceService, port = 0): Promise<OipServer> {
    const server = await serve[scheme](service, { ...LOOPBACK, port });
    started.push(server);
    return server;
  }
  const providerOf = ({ url }: OipServer, name = "gemm"): string => `oip+${url}/v2/models/${name}`;
  const open = async (executionProvider: string): Promise<Awaited<ReturnType<typeof ortNode.openSession>>> =>
    (await backendFor(executionProvider)).openSession("", {
      executionProvider,
      threadCount: 1,
      requestTimeoutMs: LONG_MS,
    });

  it("is not found under another name", async () => {
    const server = await start(await gemmService());
    await expect(open(providerOf(server, "other"))).rejects.toMatchObject({ code: "not_found" });
  });

  it("is unavailable where nobody listens", async () => {
    await expect(open(`oip+${scheme}://127.0.0.1:1/v2/models/gemm`)).rejects.toMatchObject({
      code: "provider_unavailable",
    });
  });

  it("times out where the server does not answer", async () => {
    let release = (): void => undefined;
    const gate = new Promise<void>((resolve) => (release = resolve));
    const server = await start(gated(await gemmService(), gate));
    const executionProvider = providerOf(server);
    const backend = await backendFor(executionProvider);
    const session = await backend.openSession("", {
      executionProvider,
      threadCount: 1,
      requestTimeoutMs: SHORT_MS,
    });
    await expect(session.run(gemm.feeds)).rejects.toMatchObject({ code: "timed_out" });
    release();
    await session.release();
  });

  it("goes on after the server was started again, and says so in between", async () => {
    const service = await gemmService();
    const server = await start(service);
    const session = await open(providerOf(server));
    const before = await session.run(gemm.feeds);
    const port = Number(new URL(server.url.replace("grpc:", "http:")).port);
    await server.stop();
    await expect(session.run(gemm.feeds)).rejects.toMatchObject({ code: "unavailable" });
    await start(service, port);
    let after: typeof before | undefined;
    const deadline = performance.now() + 10_000;
    while (after === undefined && performance.now() < deadline) {
      after = await session.run(gemm.feeds).catch(() => undefined);
    }
    expect(after).toEqual(before);
    await session.release();
  }, 20_000);

  it("says by code that the model was unloaded", async () => {
    const service = await gemmService();
    const session = await open(providerOf(await start(service)));
    await service.unload("gemm");
    await expect(session.run(gemm.feeds)).rejects.toMatchObject({ code: "unavailable" });
    await session.release();
  });

  it("does not take an address twice", async () => {
    const service = await gemmService();
    const server = await start(service);
    const port = Number(new URL(server.url.replace("grpc:", "http:")).port);
    await expect(start(service, port)).rejects.toMatchObject({ code: "unavailable" });
  });
});

describe("the HTTP server", () => {
  it("is closed to pages of other origins", async () => {
    const server = await serveHttp(await gemmService(), LOOPBACK);
    try {
      const ask = async (origin: string): Promise<number> =>
        (await fetch(`${server.url}/v2/repository/index`, { method: "POST", headers: { origin } })).status;
      expect(await ask("https://page.example")).toBe(403);
      expect(await ask("http://localhost:3000")).toBe(200);
    } finally {
      await server.stop();
    }
  });
  it("refuses a body by its announced size", async () => {
    const server = await serveHttp(await gemmService(), LOOPBACK);
    started.push(server);
    const status = await new Promise<number | undefined>((resolve, reject) => {
      const outgoing = request(`${server.url}/v2/models/gemm/infer`, {
        method: "POST",
        headers: { "content-length": OIP_LIMITS.bodyBytesMax + 1 },
      });
      outgoing.on("response", (incoming) => resolve(incoming.statusCode));
      outgoing.on("error", reject);
      outgoing.flushHeaders();
    });
    expect(status).toBe(413);
  });

  it("listens on a unix socket that strangers can't open", async () => {
    const scratch = await scratchFolder();
    const socketPath = join(scratch.path, "s.sock");
    const server = await serveHttp(await gemmService(), { socketPath });
    const executionProvider = `oip+unix:${socketPath}:/v2/models/gemm`;
    const session = await (await backendFor(executionProvider)).openSession("", {
      executionProvider,
      threadCount: 1,
    });
    expect((await session.run(gemm.feeds))["y"]!.dims).toEqual([4, 10]);
    expect((await stat(socketPath)).mode & 0o007).toBe(0);
    await session.release();
    await server.stop();
    await scratch.remove();
  });
});

describe("a socket's path", () => {
  it("is taken over from a process that was killed, and from nothing else", async () => {
    const scratch = await scratchFolder();
    const socketPath = join(scratch.path, "s.sock");
    const service = await gemmService();
    const unavailable = expect.objectContaining({ code: "unavailable" });
    await writeFile(socketPath, "precious");
    await expect(serveHttp(service, { socketPath })).rejects.toThrow(unavailable);
    expect(await readFile(socketPath, "utf8")).toBe("precious");
    await rm(socketPath);
    const listening = `require("node:net").createServer().listen(${JSON.stringify(socketPath)}, () => process.kill(process.pid, "SIGKILL"))`;
    spawnSync(process.execPath, ["-e", listening]);
    expect((await stat(socketPath)).isSocket()).toBe(true);
    const server = await serveHttp(service, { socketPath });
    await expect(serveHttp(service, { socketPath })).rejects.toThrow(unavailable);
    await server.stop();
    await scratch.remove();
  });
});

describe("a client", () => {
  it("sends JSON to a server that does not name the binary extension, and refuses what JSON can't carry", async () => {
    const names = ["gemm", "identity-string", "identity-float16"];
    const served = names.map((name) => ({
      name,
      version: "1",
      open: () =>
        ortNode.openSession(contractModels().get(name)!.bytes, { threadCount: 1, executionProvider: "cpu" }),
    }));
    const service = new SessionService(served, { version: "1", platform: "test" });
    for (const name of names) await service.load(name);
    const server = await serveHttp(gated(service, Promise.resolve(), []), LOOPBACK);
    started.push(server);
    const run = async (name: string): Promise<Record<string, Tensor>> => {
      const executionProvider = `oip+${server.url}/v2/models/${name}`;
      const backend = await backendFor(executionProvider);
      const session = await backend.openSession("", { executionProvider, threadCount: 1 });
      try {
        return await session.run(contractModels().get(name)!.feeds);
      } finally {
        await session.release();
      }
    };
    const direct = await served[0]!.open();
    expect(await run("gemm")).toEqual(await direct.run(gemm.feeds));
    await direct.release();
    expect((await run("identity-string"))["y"]).toEqual(contractModels().get("identity-string")!.feeds["x"]);
    await expect(run("identity-float16")).rejects.toMatchObject({ code: "tensor_invalid" });
  });

  it("takes what is no answer of the protocol as a failure", async () => {
    const liar = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.once("data", () => socket.end("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n???"));
    });
    await new Promise<void>((resolve) => liar.listen(0, "127.0.0.1", resolve));
    const { port } = liar.address() as { port: number };
    const executionProvider = `oip+http://127.0.0.1:${port}/v2/models/m`;
    const backend = await backendFor(executionProvider);
    await expect(backend.openSession("", { executionProvider, threadCount: 1 })).rejects.toMatchObject({
      code: "invalid_body",
    });
    liar.close();
  });
});

describe("gRPC messages", () => {
  const message = (more: object): Parameters<typeof fromGrpcRequest>[0] =>
    create(ModelInferRequestSchema, {
      modelName: "m",
      inputs: [{ name: "x", datatype: "INT8", shape: [2n], ...more }],
    });

  it("may carry typed contents", () => {
    const { inputs } = fromGrpcRequest(message({ contents: { intContents: [-128, 127] } }));
    expect(inputs.get("x")).toEqual({ type: "int8", dims: [2], data: Int8Array.of(-128, 127) });
  });
  it.each([
    ["too many numbers", create(ModelInferRequestSchema, { inputs: [{ shape: manyOnes() }] })],
    ["too many fields", create(ModelInferRequestSchema, { inputs: manyEmpty() })],
  ])("are refused undecoded with %s", (_, asked) => {
    const bytes = toBinary(ModelInferRequestSchema, asked);
    expect(() => decodeMessage(ModelInferRequestSchema, bytes)).toThrow(
      expect.objectContaining({ code: "tensor_invalid" }),
    );
  });
  it.each([
    ["values that wrap around", message({ contents: { intContents: [1, 300] } })],
    ["too few values", message({ contents: { intContents: [1] } })],
    ["no values", message({})],
    ["values in another type's field", message({ contents: { fp32Contents: [1, 2] } })],
    [
      "typed contents beside raw ones",
      create(ModelInferRequestSchema, {
        inputs: [{ name: "x", datatype: "INT8", shape: [2n], contents: { intContents: [1, 2] } }],
        rawInputContents: [Uint8Array.of(3, 4)],
      }),
    ],
    ["a negative size", message({ shape: [-2n] })],
    ["half floats as contents", message({ datatype: "FP16" })],
  ])("are refused with %s", (_, asked) => {
    expect(() => fromGrpcRequest(asked)).toThrow(expect.objectContaining({ code: "tensor_invalid" }));
  });
});
